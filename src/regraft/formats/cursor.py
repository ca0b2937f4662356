# SPDX-License-Identifier: Apache-2.0
"""A checked cursor over foreign bytes: every read is bounded, every error carries its offset."""

from __future__ import annotations

import struct
from typing import Any

from regraft.errors import FormatError
from regraft.model.buffers import Buffer


class Cursor:
    """Reads forward through `data`. `what` names the thing in messages; `base` is added to reported offsets."""

    __slots__ = ("_base", "_data", "_what", "end", "position")

    def __init__(self, data: Buffer, what: str, *, base: int = 0) -> None:
        self._data = memoryview(data).cast("B")
        self._what = what
        self._base = base
        self.position = 0
        self.end = len(self._data)

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return self.end - self.position

    def fail(self, cause: str) -> FormatError:
        """An error at the current position, to be raised by the caller."""
        return FormatError(f"{self._what}: {cause}", offset=self._base + self.position)

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count < 0 or count > self.left:
            raise self.fail(f"{count} bytes expected, {self.left} left")
        start = self.position
        self.position += count
        return bytes(self._data[start : self.position])

    def unpack(self, layout: str) -> tuple[Any, ...]:
        """The next fields, by a `struct` layout."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def limit(self, count: int) -> None:
        """Forbid reads beyond the next `count` bytes."""
        if count < 0 or count > self.left:
            raise self.fail(f"a section of {count} bytes, {self.left} left")
        self.end = self.position + count

    def finish(self) -> None:
        """Raise unless everything was read."""
        if self.left:
            raise self.fail(f"{self.left} bytes too many")
