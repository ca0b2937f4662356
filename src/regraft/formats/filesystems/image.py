# SPDX-License-Identifier: Apache-2.0
"""What the parsers of file systems read through: bounded, whatever the file system says of itself."""

from __future__ import annotations

from collections.abc import Callable

from regraft.errors import FormatError, LimitError
from regraft.limits import Limits

#: Bytes that the shortest read counts as, so that many short ones come to an end, too.
_LEAST = 512


class Image:
    """Random access to the `size` bytes of an image by `read(offset, view)`, which fills the view.

    All reads together may be of `limits.layout_bytes`: a file system that leads round in circles ends there.
    """

    __slots__ = ("_left", "_read", "size")

    def __init__(self, read: Callable[[int, memoryview], None], size: int, limits: Limits) -> None:
        self._read, self._left = read, limits.layout_bytes
        self.size = size

    def take(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`. Raises FormatError outside of the image, LimitError after too many."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise FormatError(f"{length} bytes behind the end of the image, which has {self.size}", offset=offset)
        self.charge(length)
        data = bytearray(length)
        self._read(offset, memoryview(data))
        return bytes(data)

    def charge(self, length: int) -> None:
        """Count `length` bytes of work. Raises LimitError."""
        self._left -= max(length, _LEAST)
        if self._left < 0:
            raise LimitError("its structure takes more reads than limits.layout_bytes allows")
