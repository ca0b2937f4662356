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
from regraft.errors import RegraftError, UsageError
from regraft.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from regraft.blockdev.export import Export
    from regraft.engine.keep import KeepFile
    from regraft.model import Recipe


@contextmanager
def open_export(
    what: str,
    *,
    name: str = "",
    network: Network | None = None,
    stores: Places = USUAL,
    seeds: Sequence[str] = (),
    keep: str | None = None,
    read_ahead: bool = True,
    report: Callable[[str], None] = lambda _: None,
    progress: Progress = QUIET,
    limits: Limits = DEFAULT,
) -> Iterator[Export]:
    """Open `what`, by its magic: a flat image or block device, or a chunked artifact as a path or URL.

    Of an artifact every part is read when it is first asked for: from the `seeds`, else from the artifact. `keep`: a
    file that takes what was obtained, and so becomes the image. read_ahead: fetch ahead of sequential readers, and
    complete what is kept. `name`: of the export, instead of the file's. `report` is told, from any thread, of what goes
    wrong without failing a read.

    `stores`: where the chunk files of a casync index are.

    Raises UsageError, SourceError, FormatError, TransportError; StateError, BusyError or MediumError for `keep`.
    """
    from regraft.cli._artifact import is_artifact

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
        net = network or Network()
        yield _open_plan(stack, what, name, net, stores, seeds, keep, read_ahead, report, progress, limits)


def _open_plan(
    stack: ExitStack,
    what: str,
    name: str,
    network: Network,
    stores: Places,
    seeds: Sequence[str],
    keep: str | None,
    read_ahead: bool,
    report: Callable[[str], None],
    progress: Progress,
    limits: Limits,
) -> Export:
    from regraft.cli._artifact import is_url, open_artifact
    from regraft.cli._plan_export import PlanExport
    from regraft.engine.match import match
    from regraft.engine.read_ahead import ReadAhead
    from regraft.engine.seeds import open_seed
    from regraft.engine.view import View

    artifact = stack.enter_context(open_artifact(what, network, stores, limits=_patience(limits)))
    recipe = artifact.recipe
    kept = _open_keep(keep, recipe, limits) if keep else None
    if kept is not None:
        stack.callback(_close_keep, kept, report)
    opened = []
    algorithm = recipe.matchable
    if algorithm is not None:  # else nothing could be found in them
        for path in seeds:
            opened.append(open_seed(path, algorithm, recipe.chunker, progress=progress))
            stack.callback(opened[-1].medium.close)
    plan = match(recipe, [(seed.medium.name, seed.index) for seed in opened])
    view = View(
        plan,
        [seed.medium for seed in opened],
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
    path = unquote(urlsplit(what).path) if is_url(what) else what
    return PlanExport(view, name=name or os.path.basename(path))


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


def _open_keep(path: str, recipe: Recipe, limits: Limits) -> KeepFile:
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


def _close_keep(kept: KeepFile, report: Callable[[str], None]) -> None:
    try:
        kept.close()
    except RegraftError as error:
        report(f"what was kept last is not recorded: {error}")
