# SPDX-License-Identifier: Apache-2.0
"""An image of a chunk store as a disk: the one place that knows both."""

from __future__ import annotations

from collections.abc import Iterator

from regraft.blockdev.export import BlockSizes, Extent, Origin, Piece
from regraft.engine.files import FileMedium
from regraft.stores.image import StoredImage
from regraft.stores.reader import Reader


class StoreExport:
    """Serves an open image. What was verified goes out of the packs without being copied."""

    has_origins = False
    blocks = BlockSizes()

    def __init__(self, image: StoredImage, *, name: str = "") -> None:
        """Raises StateError if chunks are missing."""
        self._reader = Reader(image)
        self.size, self.name, self.description = image.size, name or image.name, ""
        self.identity = image.description.identity  #: the same for the same image from the same artifact

    def read_into(self, offset: int, view: memoryview) -> None:
        self._reader.read_into(offset, view)

    def direct(self, offset: int, length: int) -> Piece | None:
        found = self._reader.lies(offset, length)
        if found is None or not isinstance(found[0], FileMedium):
            return None
        return Piece(found[0].fileno(), *found[1:])

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for count, zeros in self._reader.runs(offset, length):
            yield Extent(count, hole=zeros, origin=Origin.ZERO if zeros else Origin.DATA)
