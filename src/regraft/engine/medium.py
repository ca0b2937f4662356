# SPDX-License-Identifier: Apache-2.0
"""The medium: the one way to bytes that must survive a power cut.

Two small interfaces. `Medium` is a file or block device; `Directory` holds the few files that record progress. Code
that opens a file for writing by any other way is a fault: the crash laboratory (`regraft.testing.crash`) records what
passes through here and replays every state a power cut could have left.

The rules of durability that the recorder assumes, and POSIX gives:
  * a write is durable only after a later `sync` of the same medium;
  * un-synced writes may be lost in any combination, or torn at 512 bytes;
  * a name made by `create`, `replace` or `remove` is durable only after `sync_directory`.
"""

from __future__ import annotations

from typing import Protocol

from regraft.model.buffers import Buffer


class Medium(Protocol):
    """Random access to a sized run of bytes. Thread-safe: every call carries its own offset."""

    @property
    def name(self) -> str:
        """For messages, e.g. the path."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def sparse(self) -> bool:
        """Whether zeros need not be written: `zero` makes holes."""

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset`; return the bytes read, fewer only at the end. Raises SourceError."""

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data`. Raises MediumError, SpaceError, TooSmallError."""

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros, in the cheapest way: a hole where the medium has holes. Raises MediumError."""

    def resize(self, size: int) -> None:
        """Make a file exactly `size` bytes long, sparse where it grows; a device must be at least that large.

        Raises TooSmallError.
        """

    def sync(self) -> None:
        """Return when all that was written is durable (fdatasync). Raises MediumError, and then nothing counts."""

    def forget(self) -> None:
        """Drop cached clean pages, so that the next read comes from the medium itself. A hint."""

    def close(self) -> None: ...


class Lock(Protocol):
    """A file that is held locked, until `release` or the end of the process."""

    def release(self) -> None: ...


class Directory(Protocol):
    """A folder of files. Names are single components chosen by regraft or its user, never by a peer."""

    @property
    def path(self) -> str:
        """For messages."""

    def exists(self, name: str) -> bool: ...

    def names(self) -> list[str]:
        """What is in the folder, sorted."""

    def free_space(self) -> int:
        """Bytes that can still be written into it."""

    def open(self, name: str) -> Medium:
        """An existing file. Raises FileNotFoundError."""

    def create(self, name: str) -> Medium:
        """A new empty file, or an existing one emptied."""

    def replace(self, old: str, new: str) -> None:
        """Rename atomically, over whatever `new` was."""

    def remove(self, name: str) -> None:
        """Remove the file if it is there."""

    def sync_directory(self) -> None:
        """Return when the names are durable."""

    def lock(self, name: str, *, shared: bool = False, wait: bool = True) -> Lock:
        """Lock the file that has this name, against every other holder, or with `shared` against exclusive ones.

        A lock belongs to the file, not to its name: it stays with a file that was renamed or removed. Raises
        FileNotFoundError, and BusyError when another holder is in the way and `wait` is false.
        """


def read_all(medium: Medium, maximum: int) -> bytes:
    """The whole content, of at most `maximum` bytes; raises ValueError above that."""
    if medium.size > maximum:
        raise ValueError(f"{medium.name} has {medium.size} bytes, more than {maximum}")
    content = bytearray(medium.size)
    got = medium.read_into(0, memoryview(content))
    return bytes(content[:got])


def save(directory: Directory, name: str, content: Buffer) -> None:
    """Replace file `name` by `content`, atomically and durably: write, sync, rename, sync the directory."""
    temporary = name + ".new"
    medium = directory.create(temporary)
    try:
        medium.write(0, content)
        medium.sync()
    finally:
        medium.close()
    directory.replace(temporary, name)
    directory.sync_directory()
