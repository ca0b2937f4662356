# SPDX-License-Identifier: Apache-2.0
"""What can be served as a disk, and the simplest such thing: a flat file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol, runtime_checkable

from regraft.engine.files import open_source
from regraft.errors import SourceError


class Origin(IntEnum):
    """Where the bytes of a range come from. The values are seen by clients: never renumber them."""

    DATA = 0  #: bytes of the image itself, on this machine
    ZERO = 1  #: zeros; nothing is read
    COPY = 2  #: another image on this machine: a seed or base
    PATCH = 3  #: computed from a base and stored bytes
    REMOTE = 4  #: not here yet: fetched when it is first read


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes of one kind. A hole reads as zeros and takes no space."""

    length: int
    hole: bool = False
    origin: Origin = Origin.DATA


class Piece(NamedTuple):
    """`length` bytes that lie in an open file, from `offset` on in that file, as they are in the disk."""

    descriptor: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """In bytes, powers of two. Requests that are not aligned to `minimum` are refused."""

    minimum: int = 1
    preferred: int = 4096


class Export(Protocol):
    """A read-only disk. All methods are called from several threads at once."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def size(self) -> int:
        """In bytes; does not change while it is served."""
        ...

    @property
    def blocks(self) -> BlockSizes: ...
    @property
    def has_origins(self) -> bool:
        """Whether the origins of `extents` say more than data or hole."""
        ...

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill the whole view with the bytes from `offset` on, which lie within the size, or raise a RegraftError:
        never a part, never zeros for bytes that could not be had."""
        ...

    def direct(self, offset: int, length: int) -> Piece | None:
        """Where in a file the first of these bytes lie, as many as lie there together, so that they can be sent without
        being copied; None if in none, or if it must be `read_into` that reads them, e.g. to verify them."""
        ...

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What `length` bytes from `offset` on consist of: in order, exactly that many bytes, no extent empty."""
        ...


@runtime_checkable
class SlowExport(Export, Protocol):
    """A disk whose reads may wait for a peer. Those that would do not hold up others of the same client."""

    def ready(self, offset: int, length: int) -> bool:
        """Whether this range can be read now without waiting for a peer."""
        ...


class FileExport:
    """A regular file or block device, as it is. Its size is what it was when it was opened.

    Read with pread, not mapped: a file that is truncated while it is served makes a read fail, not the process.
    """

    has_origins = False
    blocks = BlockSizes()

    def __init__(self, path: str, *, name: str = "") -> None:
        self._medium = open_source(path)
        self._descriptor = self._medium.fileno()
        self._device = self._medium.is_device
        self.size = self._medium.size
        self.name = name or os.path.basename(path)
        self.description = ""

    def read_into(self, offset: int, view: memoryview) -> None:
        try:
            done = os.preadv(self._descriptor, (view,), offset)
        except OSError as error:
            raise SourceError(f"read {self._medium.name} at {offset}: {error.strerror}") from None
        if done != len(view):
            done += self._medium.read_into(offset + done, view[done:])
        if done != len(view):
            raise SourceError(f"read {self._medium.name} at {offset}: {len(view)} bytes wanted, {done} there")

    def direct(self, offset: int, length: int) -> Piece | None:
        if self._device or os.fstat(self._descriptor).st_size >= offset + length:
            return Piece(self._descriptor, offset, length)
        return None

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        # Asked of the file system every time: a hole that was filled since must not be served as zeros.
        end = offset + length
        while offset < end:
            data = min(self._seek(offset, os.SEEK_DATA, end), end)
            if data > offset:
                yield Extent(data - offset, hole=True, origin=Origin.ZERO)
            hole = min(self._seek(data, os.SEEK_HOLE, end), end) if data < end else end
            if hole > data:
                yield Extent(hole - data)
            offset = hole

    def _seek(self, offset: int, whence: int, end: int) -> int:
        try:
            return os.lseek(self._descriptor, offset, whence)
        except OSError as error:
            if error.errno == errno.ENXIO and whence == os.SEEK_DATA and offset < os.fstat(self._descriptor).st_size:
                return end  # a hole up to the end of the file
            # Not known here, or truncated meanwhile: all is data, and reading it will tell.
            return offset if whence == os.SEEK_DATA else end

    def close(self) -> None:
        self._medium.close()
        self._descriptor = -1
