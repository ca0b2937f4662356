# SPDX-License-Identifier: Apache-2.0
"""Exports made of exports: padded to whole blocks, and one behind the other."""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from regraft.blockdev.export import BlockSizes, Export, Extent, FileExport, Origin, Piece
from regraft.engine.files import FileMedium
from regraft.errors import MediumError
from regraft.model.buffers import Buffer


class Joined:
    """Exports one behind the other, each padded with zeros to a multiple of `block` bytes.

    So a kernel that reads whole blocks reads the end of an image too: as zeros behind its last byte.
    """

    def __init__(self, parts: Sequence[Export], *, name: str = "", block: int = 4096) -> None:
        self._parts = list(parts)
        self._starts: list[int] = []
        at = 0
        for part in self._parts:
            self._starts.append(at)
            at += -(-part.size // block) * block
        self.size = at
        self.name = name
        self.description = ""
        minimum = max((part.blocks.minimum for part in self._parts), default=1)
        self.blocks = BlockSizes(minimum, max(minimum, block))
        self.has_origins = any(part.has_origins for part in self._parts)

    @property
    def starts(self) -> Sequence[int]:
        """Where each part starts, in bytes."""
        return self._starts

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[Export | None, int, int]]:
        """The range as pieces of parts: part, offset in it, bytes. None stands for padding."""
        end = offset + length
        while offset < end:
            row = bisect_right(self._starts, offset) - 1
            while row + 1 < len(self._starts) and self._starts[row + 1] <= offset:
                row += 1  # an empty part
            part, start = self._parts[row], self._starts[row]
            limit = self._starts[row + 1] if row + 1 < len(self._starts) else self.size
            data_end = start + part.size
            if offset < data_end:
                count = min(end, data_end) - offset
                yield part, offset - start, count
            else:
                count = min(end, limit) - offset
                yield None, 0, count
            offset += count

    def read_into(self, offset: int, view: memoryview) -> None:
        at = 0
        for part, start, count in self._pieces(offset, len(view)):
            if part is None:
                view[at : at + count] = bytes(count)
            else:
                part.read_into(start, view[at : at + count])
            at += count

    def direct(self, offset: int, length: int) -> Piece | None:
        part, start, count = next(self._pieces(offset, length))
        return part.direct(start, count) if part is not None else None

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for part, start, count in self._pieces(offset, length):
            if part is None:
                yield Extent(count, hole=True, origin=Origin.ZERO)
            else:
                yield from part.extents(start, count)


class SlowJoined(Joined):
    """The same when reads of a part may wait for a peer."""

    def ready(self, offset: int, length: int) -> bool:
        """Whether this range can be read now without waiting for a peer."""
        for part, start, count in self._pieces(offset, length):
            ready: Callable[[int, int], bool] | None = getattr(part, "ready", None)
            if ready is not None and not ready(start, count):
                return False
        return True


def joined(parts: Sequence[Export], *, name: str = "", block: int = 4096) -> Joined:
    """`parts` one behind the other, slow if one of them is."""
    kind = SlowJoined if any(hasattr(part, "ready") for part in parts) else Joined
    return kind(parts, name=name, block=block)


class Stored(FileExport):
    """Bytes as an export, in an unlinked file: they take no memory. Raises MediumError if that cannot be written."""

    def __init__(self, content: Buffer, *, name: str = "") -> None:
        try:
            self._file = tempfile.TemporaryFile(prefix="regraft-")  # noqa: SIM115 - closed by close()
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            raise MediumError(f"write a temporary file: {error.strerror}") from None
        self._medium = FileMedium(self._file.fileno(), name or "temporary file")
        self._descriptor = self._file.fileno()
        self._device = False
        self.size = len(content)
        self.name, self.description = name, ""

    def close(self) -> None:
        self._file.close()
        self._descriptor = -1
