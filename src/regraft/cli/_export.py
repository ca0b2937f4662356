# SPDX-License-Identifier: Apache-2.0
"""Opening what can be served as a disk: an image, or a chunked artifact, of which nothing need be here yet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from regraft.cli._network import Network
from regraft.cli._options import USUAL, Places
from regraft.engine.progress import QUIET, Progress
from regraft.errors import RegraftError, StateError, UsageError
from regraft.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from regraft.blockdev.export import Export
    from regraft.cli._artifact import Artifact
    from regraft.engine.keep import KeepFile
    from regraft.engine.seeds import Seed
    from regraft.engine.view import View
    from regraft.formats.sidecar import Sidecar
    from regraft.model import Recipe
    from regraft.stores.keep import KeepStore


@contextmanager
def open_export(
    what: str,
    *,
    name: str = "",
    network: Network | None = None,
    stores: Places = USUAL,
    seeds: Sequence[str] = (),
    keep: str | None = None,
    base: str | None = None,
    sidecar: Sidecar | None = None,
    read_ahead: bool = True,
    report: Callable[[str], None] = lambda _: None,
    progress: Progress = QUIET,
    limits: Limits = DEFAULT,
) -> Iterator[Export]:
    """Open `what`, by its magic: a flat image or block device, a chunked artifact as a path or URL, or a delta; or an
    image of a chunk store as STORE/NAME, which is in use until the end of the block.

    A delta is seen as what it makes of `base`, which is not changed; each range is verified by `sidecar` when it is
    read.

    Of an artifact every part is read when it is first asked for: from the `seeds`, else from the artifact. `stores`:
    where an index has its chunks, if not beside it. `keep`: a file that takes what was obtained, and so becomes the
    image; or STORE/NAME, an image of a chunk store that is there once it is complete. read_ahead: fetch ahead of
    sequential readers, and complete what is kept. `name`: of the export, instead of the file's. `report` is told, from
    any thread, of what goes wrong without failing a read.

    Raises UsageError, SourceError, FormatError, TransportError; StateError, BusyError, SpaceError or MediumError for
    `keep`.
    """
    from regraft.cli._artifact import is_artifact, open_artifact
    from regraft.cli._plan_export import PlanExport
    from regraft.cli._store import open_seeds
    from regraft.cli._store_export import StoreExport
    from regraft.stores.places import open_stored, stored

    if base is not None:
        with ExitStack() as stack:
            yield _open_delta(stack, what, base, sidecar, name, report, limits)
        return
    if (place := stored(what)) is not None:
        if keep:
            raise UsageError(f"{what} is in a store already: --keep is for artifacts")
        with open_stored(place, limits=limits) as image:
            yield StoreExport(image, name=name)
        return
    if not is_artifact(what):
        from regraft.blockdev.export import FileExport

        if keep:
            raise UsageError(f"{what} is an image: --keep is for artifacts")
        export = FileExport(what, name=name)
        try:
            yield export
        finally:
            export.close()
        return
    with ExitStack() as stack:
        artifact = stack.enter_context(open_artifact(what, network or Network(), stores, limits=_patience(limits)))
        recipe = artifact.recipe
        opened = open_seeds(seeds, recipe.matchable, recipe.chunker, stack, progress)
        kept: KeepFile | KeepStore | None = None
        if keep and (place := _in_store(keep)) is not None:
            kept = _keep_in_store(stack, place, what, artifact, opened, limits)
            if kept is None:
                yield StoreExport(stack.enter_context(open_stored(place, limits=limits)), name=name or _basename(what))
                return
        elif keep:
            kept = _keep_in_file(keep, recipe, limits)
        yield PlanExport(_view(stack, artifact, opened, kept, read_ahead, report, limits), name=name or _basename(what))


def _open_delta(
    stack: ExitStack,
    what: str,
    base: str,
    sidecar: Sidecar | None,
    name: str,
    report: Callable[[str], None],
    limits: Limits,
) -> Export:
    from regraft.cli._plan_export import PlanExport
    from regraft.engine.artifact_merge import begun
    from regraft.engine.blobs import LocalBlob
    from regraft.engine.delta_merge import delta_onto
    from regraft.engine.files import open_source
    from regraft.engine.state import state_of
    from regraft.engine.view import View

    known = state_of(base, create=False)
    if known is not None and begun(known):
        raise StateError(f"a merge onto {base} has begun: it is no base any more", cure="go on with --merge")
    delta, source = open_source(what), open_source(base)
    stack.callback(delta.close)
    stack.callback(source.close)
    _, plan = delta_onto(delta, source, sidecar, limits=limits)
    view = View(plan, [source], [LocalBlob(delta)], local=(0,), report=report, limits=limits)
    stack.callback(view.close)
    return PlanExport(view, name=name or os.path.basename(what))


def _view(
    stack: ExitStack,
    artifact: Artifact,
    seeds: Sequence[Seed],
    kept: KeepFile | KeepStore | None,
    read_ahead: bool,
    report: Callable[[str], None],
    limits: Limits,
) -> View:
    """The view of an artifact, with the threads behind it, for as long as `stack` lasts."""
    from regraft.engine.match import match
    from regraft.engine.read_ahead import ReadAhead
    from regraft.engine.view import View

    if kept is not None:
        stack.callback(_close_keep, kept, report)
    view = View(
        match(artifact.recipe, [(seed.medium.name, seed.index) for seed in seeds]),
        [seed.medium for seed in seeds],
        [artifact.blob],
        local=() if artifact.remote else (0,),
        keep=kept,
        report=report,
        limits=limits,
    )
    stack.callback(view.close)
    if kept is not None:
        kept.start()
    if read_ahead:
        ahead = ReadAhead(view, kept, report=report)
        stack.callback(ahead.close)
        ahead.start()
    return view


def _basename(what: str) -> str:
    return os.path.basename(unquote(urlsplit(what).path) if "://" in what else what)


def _patience(limits: Limits) -> Limits:
    """Fewer and shorter tries than an update makes: there is a reader who waits, and who may well ask again."""
    third = limits.view_deadline / 3
    return replace(
        limits,
        retries=min(limits.retries, 3),
        retry_wait=min(limits.retry_wait, third / 3),
        connect_timeout=min(limits.connect_timeout, third),
        idle_timeout=min(limits.idle_timeout, third),
        low_speed_time=min(limits.low_speed_time, third),
    )


def _in_store(keep: str) -> tuple[str, str] | None:
    """STORE/NAME, if that is meant: STORE is a chunk store, or not there, so that it cannot hold a file either."""
    from regraft.stores import names
    from regraft.stores.places import stored

    folder = os.path.dirname(keep)
    if stored(keep) is not None or (folder and not os.path.lexists(keep) and not os.path.lexists(folder)):
        return names.split(keep)
    return None


def _keep_in_store(
    stack: ExitStack, place: tuple[str, str], what: str, artifact: Artifact, seeds: Sequence[Seed], limits: Limits
) -> KeepStore | None:
    """A lazy clone; None if the image is there, complete."""
    from regraft.cli._store import metadata_of, without_secrets
    from regraft.stores.keep import open_keep
    from regraft.stores.store import open_store

    folder, name = place
    store = stack.enter_context(open_store(folder, create=True, limits=limits))
    return open_keep(
        store, name, artifact.recipe, seeds=seeds, source=without_secrets(what), metadata=metadata_of(artifact),
        limits=limits,
    )  # fmt: skip


def _keep_in_file(path: str, recipe: Recipe, limits: Limits) -> KeepFile:
    from regraft.engine.files import open_target
    from regraft.engine.keep import KeepFile
    from regraft.engine.state import state_of

    state = state_of(path)
    if state is None:
        raise UsageError(f"there is no place for the state of {path}")
    target = open_target(path)
    try:
        return KeepFile(recipe, target, state, limits=limits)
    except BaseException:
        target.close()
        raise


def _close_keep(kept: KeepFile | KeepStore, report: Callable[[str], None]) -> None:
    try:
        kept.close()
    except RegraftError as error:
        report(f"what was kept last is not recorded: {error}")
