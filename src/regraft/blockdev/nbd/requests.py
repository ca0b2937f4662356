# SPDX-License-Identifier: Apache-2.0
"""Requests out of a stream of bytes, and whether they may be answered (doc/proto.md, "Request message")."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.blockdev.nbd.exports import Session
from regraft.blockdev.nbd.protocol import REQUEST, REQUEST_MAGIC, Command, Error, Flag, Request
from regraft.limits import DEFAULT, Limits

_RECEIVED = 64 << 10  # bytes taken from a socket at once

_WRITE, _HEADER = int(Command.WRITE), REQUEST.size  # members of an enumeration are slow to look up
_WRITES = frozenset((Command.WRITE, Command.TRIM, Command.WRITE_ZEROES))
#: Command flags by command, as plain numbers: the complement of an IntFlag has only the flags that have names.
#: FUA is allowed on all of them, since it was offered.
_FLAGS: dict[int, int] = {
    Command.READ: int(Flag.FUA | Flag.DF),
    Command.WRITE: int(Flag.FUA),
    Command.FLUSH: int(Flag.FUA),
    Command.TRIM: int(Flag.FUA),
    Command.WRITE_ZEROES: int(Flag.FUA | Flag.NO_HOLE | Flag.FAST_ZERO),
    Command.BLOCK_STATUS: int(Flag.FUA | Flag.REQ_ONE),
}


@dataclass(frozen=True, slots=True)
class Remains:
    """What a stream of requests was in the middle of: part of a header, or of the payload of a refused write.

    `unanswered`: requests from before that, which nobody has begun to answer.
    """

    header: bytes = b""
    skip: int = 0
    write: Request | None = None
    unanswered: tuple[Request, ...] = ()


class Requests:
    """Fill `room`, then `take` all the requests that are complete. The payload of writes is skipped."""

    def __init__(self, remains: Remains | None = None, *, limits: Limits = DEFAULT) -> None:
        remains = remains or Remains()
        self.fault = ""  #: why the stream cannot be read any further
        self._view = memoryview(bytearray(_RECEIVED))
        self._limits = limits
        self._end = len(remains.header)
        self._view[: self._end] = remains.header
        self._skip = remains.skip
        self._write = remains.write

    @property
    def room(self) -> memoryview:
        """Where the next bytes of the stream belong; never empty."""
        return self._view[self._end :] if self._end else self._view

    @property
    def remains(self) -> Remains:
        return Remains(bytes(self._view[: self._end]), self._skip, self._write)

    def take(self, count: int) -> list[Request]:
        """The requests that are complete now that `count` bytes came into `room`. A fault ends the stream."""
        if count == _HEADER and not self._end and self._write is None:  # one at a time: everything costs here
            request: Request = REQUEST.unpack_from(self._view)
            if request[0] == REQUEST_MAGIC and request[2] != _WRITE and not self.fault:
                return [request]
        end, start = self._end + count, 0
        found: list[Request] = []
        while not self.fault:
            if self._write is not None:
                skipped = min(self._skip, end - start)
                self._skip -= skipped
                start += skipped
                if self._skip:
                    break
                found.append(self._write)
                self._write = None
            whole = start + (end - start) // _HEADER * _HEADER
            if whole == start:
                break
            for request in REQUEST.iter_unpack(self._view[start:whole]):
                start += _HEADER
                if request[0] != REQUEST_MAGIC:
                    self.fault = f"wrong magic number {request[0]:#x} of a request"
                    break
                if request[2] == _WRITE:
                    self._begin_write(request)
                    break
                found.append(request)
        self._end = end - start
        if self._end:
            self._view[: self._end] = bytes(self._view[start:end])
        return found

    def _begin_write(self, request: Request) -> None:
        length = request[5]
        if length > self._limits.nbd_request_size:
            self.fault = f"a write of {length} bytes"
            return
        self._write, self._skip = request, length


def judge(session: Session, request: Request, *, limits: Limits = DEFAULT) -> Error:
    """The error that a request deserves before anything is read for it, or OK: a read, a flush or a block status."""
    _, flags, command, _, offset, length = request
    known = _FLAGS.get(command)
    if known is None or flags & ~known:
        return Error.EINVAL
    if command in _WRITES:
        return Error.EPERM
    if command == Command.FLUSH:
        return Error.OK
    misaligned = session.export.blocks.minimum - 1
    if offset + length > session.export.size or (offset | length) & misaligned:
        return Error.EINVAL
    if command == Command.READ:
        wrong = length > limits.nbd_request_size or (flags & Flag.DF and not session.structured)
    else:  # an empty range has no extents that could be told
        wrong = not session.contexts or not length
    return Error.EINVAL if wrong else Error.OK
