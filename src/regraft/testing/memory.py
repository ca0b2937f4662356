# SPDX-License-Identifier: Apache-2.0
"""Media in memory, with faults on request."""

from __future__ import annotations

from threading import Condition

from regraft.engine.medium import Medium
from regraft.errors import BusyError, SourceError, TooSmallError
from regraft.model.buffers import Buffer


class MemoryMedium:
    """A file (or, with `device`, a block device of fixed size) in memory.

    bad: byte ranges (start, end) whose reading fails, as a bad sector does.
    """

    def __init__(self, content: Buffer = b"", *, name: str = "memory", device: bool = False) -> None:
        self.content = bytearray(content)
        self._name, self._device = name, device
        self.bad: list[tuple[int, int]] = []
        self.holders: list[bool] = []  # of locks: whether each is shared

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


class MemoryLock:
    """A lock on a medium of a `MemoryDirectory`."""

    def __init__(self, medium: MemoryMedium, shared: bool, free: Condition) -> None:
        self._medium: MemoryMedium | None = medium
        self._shared, self._free = shared, free
        medium.holders.append(shared)

    def release(self) -> None:
        with self._free:
            if self._medium is not None:
                self._medium.holders.remove(self._shared)
                self._medium = None
                self._free.notify_all()


class MemoryDirectory:
    """A folder in memory. `files` maps a name to its medium. space: bytes that it says are free."""

    def __init__(self, files: dict[str, MemoryMedium] | None = None, *, space: int = 1 << 40) -> None:
        self.files = dict(files or {})
        self.path = "memory"
        self.space = space
        self._free = Condition()

    def exists(self, name: str) -> bool:
        return name in self.files

    def names(self) -> list[str]:
        return sorted(self.files)

    def free_space(self) -> int:
        return self.space

    def open(self, name: str) -> Medium:
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]

    def create(self, name: str) -> Medium:
        medium = self.files.setdefault(name, MemoryMedium(name=name))
        medium.resize(0)
        return medium

    def replace(self, old: str, new: str) -> None:
        self.files[new] = self.files.pop(old)

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    def sync_directory(self) -> None: ...

    def lock(self, name: str, *, shared: bool = False, wait: bool = True) -> MemoryLock:
        with self._free:
            while True:
                if name not in self.files:
                    raise FileNotFoundError(name)
                holders = self.files[name].holders
                if not holders or (shared and all(holders)):
                    return MemoryLock(self.files[name], shared, self._free)
                if not wait:
                    raise BusyError(f"{name} is in use by another process")
                self._free.wait()
