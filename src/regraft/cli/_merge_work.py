# SPDX-License-Identifier: Apache-2.0
"""Opening a merge: of a chunked artifact or of a pairwise delta, each known by its first bytes, onto its base."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from regraft.cli._network import Network
from regraft.cli._options import Size
from regraft.engine.progress import QUIET, Progress
from regraft.errors import DigestError, SourceError, UnsupportedError, UsageError
from regraft.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from regraft.engine.artifact_merge import ArtifactMerge
    from regraft.engine.delta_merge import DeltaMerge
    from regraft.engine.files import FileMedium
    from regraft.formats.sidecar import Sidecar
    from regraft.model import Plan


@dataclass(frozen=True, slots=True)
class How:
    """How to merge. window: bytes that are journaled at once; rate: bytes per second, 0 for as many as there can be;
    sidecar: a path, if it is not beside the delta; bare: do without one."""

    window: int = DEFAULT.merge_window
    rate: int = 0
    load: float = 0
    sidecar: str = ""
    bare: bool = False


def merge_options(command: Any) -> Any:
    """The options of `How`, as the parameter `how`."""
    import functools

    @functools.wraps(command)
    def wrapped(
        window: int, rate: int | None, load: float, sidecar: str | None, no_sidecar: bool, **others: Any
    ) -> Any:
        if sidecar and no_sidecar:
            raise UsageError("--sidecar and --no-sidecar exclude each other")
        return command(
            how=How(window, rate or 0, load, os.path.abspath(sidecar) if sidecar else "", no_sidecar), **others
        )

    options = (
        click.option(
            "--window", type=Size(), default="8Mi", show_default=True, help="Bytes that are journaled at once, at most."
        ),
        click.option("--rate", type=Size(), default=None, help="Bytes to write per second, at most: 10M, 512Ki."),
        click.option("--load", type=float, default=0, help="Wait while the system's load is above this; 0: never."),
        click.option("--sidecar", metavar="FILE", default=None, help="Of a delta.  [default: its name and .sidecar]"),
        click.option(
            "--no-sidecar", is_flag=True, help="Do without: nothing tells if the base and the result are right."
        ),
    )
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def is_local_delta(what: str) -> bool:
    """Whether `what` is a pairwise delta, in a file. Raises SourceError if there is no such file."""
    from regraft.cli._artifact import is_url
    from regraft.engine.deltas import HEAD, is_delta, read
    from regraft.engine.files import open_source

    if is_url(what):
        return False
    medium = open_source(what)
    try:
        return is_delta(read(medium, 0, min(HEAD, medium.size)))
    finally:
        medium.close()


def check_base(what: str, base: str) -> None:
    """Raises SourceError, UsageError."""
    from regraft.cli._artifact import is_url

    if not os.path.exists(base):
        raise SourceError(f"open {base}: No such file or directory", cure="give the base that is to be updated")
    if not is_url(what) and os.path.exists(what) and os.path.samefile(what, base):
        raise UsageError(f"{base} is the artifact itself", cure="give the image that is to be updated")


def find_sidecar(what: str, how: How) -> Sidecar | None:
    """The sidecar of a delta; None only if it is to be done without. Raises MissingError, FormatError, DigestError."""
    from regraft.engine import deltas

    return None if how.bare else deltas.find_sidecar(what, how.sidecar or None)


def check_identity(base: FileMedium, sidecar: Sidecar, *, progress: Progress = QUIET) -> None:
    """Read the base. Raises DigestError if it is neither the base of the delta nor what the delta makes of it."""
    from regraft.engine.verify import digest_of

    for size, digest in ((sidecar.base_size, sidecar.base), (sidecar.target_size, sidecar.target)):
        if base.size >= size and digest_of(base, size, digest, progress=progress):
            return
    raise DigestError(f"{base.name} is not the base of this delta", cure="give the image from which it was made")


@contextmanager
def open_plan(what: str, base: str, how: How, network: Network, *, progress: Progress = QUIET) -> Iterator[Plan]:
    """The plan of a merge that is only looked at. A base that is not the right one is refused."""
    from regraft.cli._artifact import open_artifact
    from regraft.engine.artifact_merge import begun, plan_onto
    from regraft.engine.delta_merge import delta_onto
    from regraft.engine.files import open_source
    from regraft.engine.state import state_of

    with ExitStack() as stack:
        source = open_source(base)
        stack.callback(source.close)
        if is_local_delta(what):
            known = state_of(base, create=False)
            medium = open_source(what)
            stack.callback(medium.close)
            going_on, sidecar = known is not None and begun(known), find_sidecar(what, how)
            plan = delta_onto(medium, source, sidecar, begun=going_on)[1]
            if sidecar is not None and not going_on:
                check_identity(source, sidecar, progress=progress)
            yield plan
            return
        artifact = stack.enter_context(open_artifact(what, network))
        yield plan_onto(artifact.recipe, source, progress=progress)


@contextmanager
def open_work(
    what: str,
    target: FileMedium,
    how: How,
    network: Network,
    *,
    viewed: bool = False,
    progress: Progress = QUIET,
    limits: Limits = DEFAULT,
) -> Iterator[ArtifactMerge | DeltaMerge]:
    """A merge of `what` onto `target`, the base, opened for writing; closed at the end.

    viewed: it is also to be read from, for which all of `what` must be on this machine.
    """
    from regraft.cli._artifact import open_artifact
    from regraft.engine.artifact_merge import ArtifactMerge
    from regraft.engine.delta_merge import DeltaMerge
    from regraft.engine.files import open_source
    from regraft.engine.state import state_of
    from regraft.engine.throttle import Throttle

    throttle, state = Throttle(how.rate, how.load), state_of(target.name)
    work: ArtifactMerge | DeltaMerge
    with ExitStack() as stack:
        if is_local_delta(what):
            sidecar = find_sidecar(what, how)
            medium = open_source(what)
            stack.callback(medium.close)
            work = DeltaMerge(
                medium, target, state, sidecar, unverified=how.bare, window=how.window, throttle=throttle,
                limits=limits, progress=progress,
            )  # fmt: skip
        else:
            artifact = stack.enter_context(open_artifact(what, network, limits=limits))
            if viewed and artifact.remote:
                raise UnsupportedError(
                    f"{what} is to be read while it is merged, and is not on this machine", cure="download it first"
                )
            work = ArtifactMerge(
                artifact.recipe, artifact.blob, target, state, remote=artifact.remote,
                window=how.window, throttle=throttle, limits=limits, progress=progress,
            )  # fmt: skip
        stack.callback(work.close)
        yield work
