# SPDX-License-Identifier: Apache-2.0
"""A directory whose every call passes a hook first: to fail, to stop, or to let others go ahead."""

from __future__ import annotations

from collections.abc import Callable

from regraft.engine.medium import Directory, Lock, Medium
from regraft.errors import BusyError
from regraft.model.buffers import Buffer

#: Told the name of the call and of the file that it is about to be made on; what it raises, the caller gets.
Hook = Callable[[str, str], None]

#: The calls that need space on a disk.
WRITES = frozenset(("create", "write", "replace"))


class HookedDirectory:
    """Passes every call on, and so do the media that it gives."""

    def __init__(self, inner: Directory, hook: Hook) -> None:
        self._inner, self._hook = inner, hook

    @property
    def path(self) -> str:
        return self._inner.path

    def exists(self, name: str) -> bool:
        self._hook("exists", name)
        return self._inner.exists(name)

    def names(self) -> list[str]:
        self._hook("names", "")
        return self._inner.names()

    def free_space(self) -> int:
        self._hook("free_space", "")
        return self._inner.free_space()

    def open(self, name: str) -> Medium:
        self._hook("open", name)
        return _HookedMedium(self._inner.open(name), name, self._hook)

    def create(self, name: str) -> Medium:
        self._hook("create", name)
        return _HookedMedium(self._inner.create(name), name, self._hook)

    def replace(self, old: str, new: str) -> None:
        self._hook("replace", new)
        self._inner.replace(old, new)

    def remove(self, name: str) -> None:
        self._hook("remove", name)
        self._inner.remove(name)

    def sync_directory(self) -> None:
        self._hook("sync_directory", "")
        self._inner.sync_directory()

    def lock(self, name: str, *, shared: bool = False, wait: bool = True) -> Lock:
        """Waits in the hook, which is told of each try, and not in the directory."""
        while True:
            self._hook("lock", name)
            try:
                return self._inner.lock(name, shared=shared, wait=False)
            except BusyError:
                if not wait:
                    raise
                self._hook("wait", name)


class _HookedMedium:
    def __init__(self, inner: Medium, file: str, hook: Hook) -> None:
        self._inner, self._file, self._hook = inner, file, hook

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def size(self) -> int:
        return self._inner.size

    @property
    def sparse(self) -> bool:
        return self._inner.sparse

    def read_into(self, offset: int, view: memoryview) -> int:
        self._hook("read_into", self._file)
        return self._inner.read_into(offset, view)

    def write(self, offset: int, data: Buffer) -> None:
        self._hook("write", self._file)
        self._inner.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._hook("write", self._file)
        self._inner.zero(offset, length)

    def resize(self, size: int) -> None:
        self._hook("resize", self._file)
        self._inner.resize(size)

    def sync(self) -> None:
        self._hook("sync", self._file)
        self._inner.sync()

    def forget(self) -> None:
        self._inner.forget()

    def close(self) -> None:
        self._inner.close()


class FullDisk:
    """A hook: after `writes` calls that need space, there is none left. `name`s what cannot be written any more."""

    def __init__(self, writes: int) -> None:
        self.left = writes

    def __call__(self, call: str, name: str) -> None:
        from regraft.errors import SpaceError

        if call in WRITES:
            self.left -= 1
            if self.left < 0:
                raise SpaceError(f"{call} {name}: No space left on device")
