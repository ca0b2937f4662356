# SPDX-License-Identifier: Apache-2.0
"""Messages of the kernel's FUSE protocol for a file system that is one read-only file (linux/fuse.h, version 7).

All integers are of the machine's byte order. A message is a header and what the operation says; each length is checked
before it is used, although the kernel is the only one who can write to /dev/fuse.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct

from regraft.blockdev.export import Export
from regraft.errors import FormatError, RegraftError, UnsupportedError
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

IN_HEADER = Struct("=IIQQIIIHH")  #: length, operation, unique, node, uid, gid, pid, words of extensions, padding
OUT_HEADER = Struct("=IiQ")  #: length, error (0 or negative), unique
_INIT_IN = Struct("=IIII")  # major, minor, most read-ahead, flags
_INIT_OUT = Struct("=IIIIHHIIHHI7I")
_READ_IN = Struct("=QQIIQII")  # handle, offset, size, read flags, lock owner, flags, padding
_OPEN_IN = Struct("=II")  # flags as of open(2), flags of the protocol
_OPEN_OUT = Struct("=QII")
_ATTRIBUTES = Struct("=QIIQQQQQQIIIIIIIIII")  # validity in s and ns, padding, struct fuse_attr
_STATFS_OUT = Struct("=QQQQQIIII6I")

MAJOR = 7
LEAST_MINOR = 23  #: of Linux 3.15: since then messages have the sizes used here
OUR_MINOR = 31
ROOT = 1  #: the node that is mounted: here the file itself
#: What a buffer for requests must have: the kernel refuses less (FUSE_MIN_READ_BUFFER).
REQUEST_SIZE = 16 << 10
BLOCK = 4096
_LEAST_WRITE = 4096  # the kernel takes no less, and never writes
_VALID = 1 << 30  # seconds for which attributes are good: they never change
_ACCESS_MODE = 3  # of open(2): 0 is reading
_PAGE = 4096


class Operation(IntEnum):
    """Those that one read-only file can be asked for; more are refused by number."""

    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43


class Feature(IntFlag):
    """Of INIT: what both sides can."""

    ASYNC_READ = 1
    ASYNC_DIO = 1 << 15
    MAX_PAGES = 1 << 22


_WANTED = Feature.ASYNC_READ | Feature.ASYNC_DIO | Feature.MAX_PAGES
_KEEP_CACHE = 2  # of OPEN's answer: what is cached stays good
#: Nothing is answered to these.
_SILENT = frozenset((Operation.FORGET, Operation.BATCH_FORGET, Operation.INTERRUPT))
_EMPTY = frozenset((Operation.RELEASE, Operation.FLUSH, Operation.FSYNC, Operation.DESTROY))
_CHANGES = frozenset(
    (Operation.SETATTR, Operation.WRITE, Operation.SETXATTR, Operation.REMOVEXATTR, Operation.FALLOCATE)
)


@dataclass(frozen=True, slots=True)
class Request:
    """One message of the kernel."""

    operation: int
    unique: int
    node: int
    body: memoryview


def parse(data: Buffer) -> Request:
    """A message as it was read from the device. Raises FormatError if it is not as long as it says."""
    view = memoryview(data).cast("B")
    if len(view) < IN_HEADER.size:
        raise FormatError(f"FUSE request of {len(view)} bytes, a header has {IN_HEADER.size}", offset=0)
    length, operation, unique, node, _, _, _, extensions, _ = IN_HEADER.unpack_from(view)
    if length != len(view):
        raise FormatError(f"FUSE request of {len(view)} bytes says that it has {length}", offset=0)
    end = length - 8 * extensions
    if end < IN_HEADER.size:
        raise FormatError(f"FUSE request of {length} bytes with {extensions} words of extensions", offset=36)
    return Request(operation, unique, node, view[IN_HEADER.size : end])


def reply(unique: int, body: Buffer = b"", *, error: int = 0) -> bytes:
    """An answer: with `error`, an errno, it has no body."""
    if error:
        return OUT_HEADER.pack(OUT_HEADER.size, -error, unique)
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), 0, unique) + bytes(body)


@dataclass(frozen=True, slots=True)
class Owner:
    """What the file says of itself. `changed` in seconds since 1970."""

    uid: int = 0
    gid: int = 0
    mode: int = 0o444
    changed: int = 0


class OneFile:
    """A file system that consists of one file with the bytes of an export. Stateless but for what INIT agreed on.

    Answers may be asked for in several threads at once. `report` is called with a sentence for each read that failed.
    """

    def __init__(
        self,
        export: Export,
        *,
        owner: Owner = Owner(),
        report: Callable[[str], None] = lambda _: None,
        limits: Limits = DEFAULT,
    ) -> None:
        self._export, self._owner, self._report, self._limits = export, owner, report, limits
        self.minor = 0  #: of the version agreed on; 0 before

    @property
    def reply_size(self) -> int:
        """Bytes of the longest answer."""
        return OUT_HEADER.size + self._limits.fuse_read_size

    def answer(self, data: Buffer, room: memoryview) -> memoryview | bytes | None:
        """The answer to one message, perhaps in `room`, which has `reply_size` bytes; None if it gets none.

        Raises FormatError if not even a header can be made out, UnsupportedError if the kernel's version is too old.
        """
        request = parse(data)
        if request.operation == Operation.READ:
            return self._read(request, room)
        if request.operation in _SILENT:
            return None
        if request.operation in _EMPTY:
            return reply(request.unique)
        if request.operation in _CHANGES:
            return reply(request.unique, error=errno.EROFS)
        act = _ACTS.get(request.operation)
        if act is None:
            return reply(request.unique, error=errno.ENOSYS)
        if request.node != ROOT and request.operation != Operation.INIT:
            return reply(request.unique, error=errno.ESTALE)
        return act(self, request)

    def _init(self, request: Request) -> bytes:
        if len(request.body) < _INIT_IN.size:
            return reply(request.unique, error=errno.EPROTO)
        major, minor, ahead, flags = _INIT_IN.unpack_from(request.body)
        if major > MAJOR:  # it asks again in our version
            return reply(request.unique, _INIT_OUT.pack(MAJOR, OUR_MINOR, *[0] * 16))
        if major < MAJOR or minor < LEAST_MINOR:
            raise UnsupportedError(
                f"this kernel speaks FUSE {major}.{minor}, {MAJOR}.{LEAST_MINOR} is the least", cure="use Linux >= 3.15"
            )
        agreed = _WANTED & flags
        pages = -(-self._limits.fuse_read_size // _PAGE) if agreed & Feature.MAX_PAGES else 0
        self.minor = min(minor, OUR_MINOR)
        background, congestion = 4 * self._limits.fuse_threads, 3 * self._limits.fuse_threads
        out = (MAJOR, self.minor, ahead, int(agreed), background, congestion, _LEAST_WRITE, 1, pages, *[0] * 9)
        return reply(request.unique, _INIT_OUT.pack(*out))

    def _getattr(self, request: Request) -> bytes:
        size, owner = self._export.size, self._owner
        times = (owner.changed,) * 3
        mode = stat.S_IFREG | owner.mode
        attributes = (ROOT, size, -(-size // 512), *times, 0, 0, 0, mode, 1, owner.uid, owner.gid, 0, BLOCK, 0)
        return reply(request.unique, _ATTRIBUTES.pack(_VALID, 0, 0, *attributes))

    def _open(self, request: Request) -> bytes:
        if len(request.body) < _OPEN_IN.size:
            return reply(request.unique, error=errno.EINVAL)
        if _OPEN_IN.unpack_from(request.body)[0] & _ACCESS_MODE:
            return reply(request.unique, error=errno.EROFS)
        return reply(request.unique, _OPEN_OUT.pack(0, _KEEP_CACHE, 0))

    def _statfs(self, request: Request) -> bytes:
        blocks = -(-self._export.size // BLOCK)
        return reply(request.unique, _STATFS_OUT.pack(blocks, 0, 0, 1, 0, BLOCK, 255, BLOCK, 0, *[0] * 6))

    def _read(self, request: Request, room: memoryview) -> memoryview | bytes:
        if request.node != ROOT or len(request.body) < _READ_IN.size:
            return reply(request.unique, error=errno.EINVAL)
        _, offset, size, _, _, _, _ = _READ_IN.unpack_from(request.body)
        count = min(size, max(self._export.size - offset, 0))  # a file ends where it ends
        if count > self._limits.fuse_read_size:
            return reply(request.unique, error=errno.EINVAL)
        end = OUT_HEADER.size + count
        try:
            if count:
                self._export.read_into(offset, room[OUT_HEADER.size : end])
        except RegraftError as error:
            self._report(str(error))
            return reply(request.unique, error=errno.EIO)
        except Exception as error:  # a fault of ours: without an answer the reader would wait for ever
            self._report(f"read {count} bytes at {offset}: {error!r}")
            return reply(request.unique, error=errno.EIO)
        OUT_HEADER.pack_into(room, 0, end, 0, request.unique)
        return room[:end]


_ACTS: dict[int, Callable[[OneFile, Request], bytes]] = {
    Operation.INIT: OneFile._init,
    Operation.GETATTR: OneFile._getattr,
    Operation.OPEN: OneFile._open,
    Operation.STATFS: OneFile._statfs,
}
