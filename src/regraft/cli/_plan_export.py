# SPDX-License-Identifier: Apache-2.0
"""A plan as a disk: the one place that knows both views and block devices."""

from __future__ import annotations

from collections.abc import Iterator

from regraft.blockdev.export import BlockSizes, Extent, Origin, Piece
from regraft.engine.files import FileMedium
from regraft.engine.state import identity_of
from regraft.engine.view import View, Whence
from regraft.stores.scattered import Scattered

_ORIGINS = {
    Whence.ZERO: Origin.ZERO,
    Whence.COPY: Origin.COPY,
    Whence.LOCAL: Origin.DATA,
    Whence.PATCH: Origin.PATCH,
    Whence.REMOTE: Origin.REMOTE,
}


class PlanExport:
    """Serves a view. Its reads may wait for a peer: see `ready`."""

    has_origins = True
    blocks = BlockSizes()

    def __init__(self, view: View, *, name: str, description: str = "") -> None:
        self.view = view
        self.name, self.description, self.size = name, description, view.size

    def read_into(self, offset: int, view: memoryview) -> None:
        self.view.read_into(offset, view)

    def ready(self, offset: int, length: int) -> bool:
        return self.view.ready(offset, length)

    @property
    def identity(self) -> bytes:
        """The same for the same image from the same artifact."""
        return identity_of(self.view.plan.recipe)

    def direct(self, offset: int, length: int) -> Piece | None:
        medium = self.view.medium
        if isinstance(medium, Scattered):
            medium, offset, length = medium.run(offset, length)
        if isinstance(medium, FileMedium) and medium.size >= offset + length:
            return Piece(medium.fileno(), offset, length)
        return None

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for run in self.view.runs(offset, length):
            yield Extent(run.length, hole=run.whence is Whence.ZERO, origin=_ORIGINS[run.whence])
