# SPDX-License-Identifier: Apache-2.0
"""A base that is being merged, as a disk: the new image, at any moment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from regraft.blockdev.export import BlockSizes, Extent, Origin, Piece
from regraft.cli._merge_work import How, check_base, open_work
from regraft.cli._network import Network
from regraft.engine.artifact_merge import ArtifactMerge
from regraft.engine.background import Background
from regraft.engine.delta_merge import DeltaMerge
from regraft.engine.files import FileMedium, open_source, open_target
from regraft.engine.merge_status import Where
from regraft.engine.merge_view import MergeView
from regraft.engine.progress import QUIET, Progress
from regraft.errors import SourceError
from regraft.formats.dm_update import Diff

_ORIGINS = {Where.BASE: Origin.DATA, Where.SOURCE: Origin.COPY, Where.WINDOW: Origin.DATA, Where.STORED: Origin.PATCH}
_BLOCK = 4096


class MergeExport:
    """Serves the target of a merge, and has the merge go on in the background. `settled`: the base, to read from."""

    has_origins = True
    blocks = BlockSizes()

    def __init__(self, view: MergeView, settled: FileMedium, merge: Background, *, name: str) -> None:
        self.merge, self._view, self._settled = merge, view, settled
        self.name, self.description, self.size = name, "", view.size

    def read_into(self, offset: int, view: memoryview) -> None:
        count = self._view.read_into(offset, view)
        if count != len(view):
            raise SourceError(f"read {self._view.name} at {offset}: {len(view)} bytes wanted, {count} there")

    def direct(self, offset: int, length: int) -> Piece | None:
        if self._view.settled(offset, length) and self._settled.size >= offset + length:
            return Piece(self._settled.fileno(), offset, length)
        return None

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for _, count, place in self._view.runs(offset, length):
            yield Extent(count, origin=_ORIGINS[place.where])


class Merging:
    """An export, the merge behind it, and the base that it holds; `free` lets go of the base when all is done."""

    def __init__(
        self,
        what: str,
        base: str,
        how: How,
        network: Network,
        *,
        name: str = "",
        report: Callable[[str], None] = lambda _: None,
        progress: Progress = QUIET,
    ) -> None:
        """Opens all of it, and compares the base with what the plan was made from. Writes nothing."""
        check_base(what, base)
        with ExitStack() as rest, ExitStack() as held:
            settled = open_source(base)
            rest.callback(settled.close)
            target = open_target(base)
            held.callback(target.close)
            work = held.enter_context(open_work(what, target, how, network, viewed=True, progress=progress))
            self.recipe = work.plan.recipe
            self.background = Background(work, block=_block_size(work), report=report)
            held.callback(self.background.stop)
            view = MergeView(work.merge, settled)
            self.export = MergeExport(view, settled, self.background, name=name or os.path.basename(what))
            self._held, self._rest = held.pop_all(), rest.pop_all()

    def free(self) -> None:
        """Let others use the base, from which reads are still served. Only when the merge is complete, or for good."""
        self._held.close()

    def close(self) -> None:
        """Finish the batch, and close all. Nobody may read any more."""
        with self._rest:
            self.free()


@contextmanager
def open_merging(
    what: str,
    base: str,
    how: How,
    network: Network,
    *,
    name: str = "",
    report: Callable[[str], None] = lambda _: None,
    progress: Progress = QUIET,
) -> Iterator[Merging]:
    """What `Merging` is; closed at the end."""
    merging = Merging(what, base, how, network, name=name, report=report, progress=progress)
    try:
        yield merging
    finally:
        merging.close()


def _block_size(work: ArtifactMerge | DeltaMerge) -> int:
    """By which the merge is counted."""
    parsed = work.delta.parsed if isinstance(work, DeltaMerge) else None
    return parsed.superblock.block_size if isinstance(parsed, Diff) else _BLOCK
