# SPDX-License-Identifier: Apache-2.0
"""Media in memory, with faults on request."""

from __future__ import annotations

from regraft.errors import SourceError, TooSmallError
from regraft.model.buffers import Buffer


class MemoryMedium:
    """A file (or, with `device`, a block device of fixed size) in memory.

    bad: byte ranges (start, end) whose reading fails, as a bad sector does.
    """

    def __init__(self, content: Buffer = b"", *, name: str = "memory", device: bool = False) -> None:
        self.content = bytearray(content)
        self._name, self._device = name, device
        self.bad: list[tuple[int, int]] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def sparse(self) -> bool:
        return not self._device

    def read_into(self, offset: int, view: memoryview) -> int:
        end = min(offset + len(view), len(self.content))
        for start, stop in self.bad:
            if start < end and offset < stop:
                raise SourceError(f"read {self._name} at {offset}: Input/output error")
        count = max(end - offset, 0)
        view[:count] = self.content[offset : offset + count]
        return count

    def write(self, offset: int, data: Buffer) -> None:
        end = offset + len(data)
        if end > len(self.content):
            if self._device:
                raise TooSmallError(f"{self._name} has {len(self.content)} bytes, {end} are needed")
            self.content += bytes(end - len(self.content))
        self.content[offset:end] = data

    def zero(self, offset: int, length: int) -> None:
        if length > 0:
            self.write(offset, bytes(length))

    def resize(self, size: int) -> None:
        if not self._device:
            self.content = self.content[:size] + bytes(max(size - len(self.content), 0))
        elif len(self.content) < size:
            raise TooSmallError(f"{self._name} has {len(self.content)} bytes, the image {size}")

    def sync(self) -> None: ...
    def forget(self) -> None: ...
    def close(self) -> None: ...
