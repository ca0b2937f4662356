# SPDX-License-Identifier: Apache-2.0
"""Answers to requests, many in one buffer that goes out at once (doc/proto.md, "Simple reply", "Structured reply")."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice

from regraft.blockdev.export import Extent, Piece
from regraft.blockdev.nbd.exports import CONTEXTS, Session
from regraft.blockdev.nbd.protocol import (
    ALLOCATION,
    CHUNK,
    CHUNK_DATA,
    CHUNK_ERROR,
    CHUNK_HOLE,
    CHUNK_MAGIC,
    CHUNK_STATUS,
    DONE,
    EXTENT,
    SIMPLE,
    SIMPLE_MAGIC,
    STATE_HOLE,
    STATE_ZERO,
    Chunk,
    Command,
    Error,
    Flag,
    Request,
)
from regraft.blockdev.nbd.requests import judge
from regraft.errors import RegraftError
from regraft.limits import DEFAULT, Limits

_SMALL = 32 << 10  # bytes up to which a read is not searched for holes beforehand
_LEAST = 128 << 10  # of a buffer
_READ, _DATA, _OK = int(Command.READ), int(Chunk.OFFSET_DATA), int(Error.OK)  # members of enumerations are slow
_SIMPLE_HEAD, _CHUNK_HEAD = SIMPLE.size, CHUNK_DATA.size
_ZEROS = memoryview(bytes(_SMALL))
_WORDS = {
    Error.EPERM: b"read-only",
    Error.EIO: b"reading failed",
    Error.EINVAL: b"invalid request",
    Error.ESHUTDOWN: b"shutting down",
}


class BrokenReplyError(Exception):
    """A read failed when a part of its reply was already sent: only the end of the connection can tell the client."""


def reply_buffer(limits: Limits = DEFAULT) -> bytearray:
    """For the answers of one thread."""
    return bytearray(max(limits.nbd_reply_buffer, _LEAST))


class Replies:
    """Answers requests in order into one buffer of fixed size; `send` gets a view of it when it is full and on `flush`.

    A failed read is answered with EIO and told to `report`, which is called with the error; the client learns no more.
    """

    def __init__(
        self,
        session: Session,
        send: Callable[[memoryview], None],
        report: Callable[[RegraftError], None],
        *,
        send_file: Callable[[int, int, int], int] | None = None,
        alone: Callable[[], AbstractContextManager[object]] = nullcontext,
        buffer: bytearray | None = None,
        limits: Limits = DEFAULT,
    ) -> None:
        """`send_file` sends from a descriptor, an offset, so many bytes; it gives how many it could read there.

        `alone` is entered while what is sent in several steps must not be mixed with what others send.
        """
        self._send_file = send_file
        self._session = session
        self._export = session.export
        self._structured = session.structured
        self._send = send
        self._report = report
        self._limits = limits
        self._alone = alone
        self._buffer = reply_buffer(limits) if buffer is None else buffer
        self._view = memoryview(self._buffer)
        self._room = len(self._buffer)
        self._used = 0
        # Where blocks have a minimum, alignment is to be judged first.
        self._small = _SMALL if session.export.blocks.minimum == 1 else 0

    def flush(self) -> None:
        if self._used:
            used, self._used = self._used, 0
            self._send(self._view[:used])

    def answer(self, requests: Sequence[Request]) -> bool:
        """Answer them all, then flush; False if the client has said good-bye. Raises BrokenReplyError."""
        small, size, structured = self._small, self._export.size, self._structured
        going_on = True
        for request in requests:
            _, flags, command, cookie, offset, length = request
            # The common case, apart: everything costs here.
            if command == _READ and not flags and 0 < length <= small and offset + length <= size:
                if structured:
                    self._read_chunk(cookie, offset, length, DONE)
                else:
                    self._read_simple(cookie, offset, length)
            elif command == Command.DISC:
                going_on = False
                break
            else:
                self._answer(request)
        self.flush()
        return going_on

    def refuse(self, requests: Sequence[Request]) -> None:
        """Answer them all with ESHUTDOWN, then flush."""
        for request in requests:
            if request[2] != Command.DISC:
                self._error(request[3], Error.ESHUTDOWN, request[2] == Command.READ)
        self.flush()

    def _reserve(self, count: int) -> int:
        """Where the next `count` bytes of replies belong."""
        if self._used + count > self._room:
            self.flush()
        return self._used

    def _answer(self, request: Request) -> None:
        _, flags, command, cookie, offset, length = request
        error = judge(self._session, request, limits=self._limits)
        if error:
            self._error(cookie, error, command in (Command.READ, Command.BLOCK_STATUS))
        elif command == Command.BLOCK_STATUS:
            self._block_status(cookie, offset, length, bool(flags & Flag.REQ_ONE))
        elif command == Command.READ and length:
            self._read(cookie, offset, length, bool(flags & Flag.DF))
        elif command == Command.READ and self._structured:
            self._done(cookie)
        else:
            self._simple(cookie, Error.OK)

    def _done(self, cookie: int) -> None:
        at = self._reserve(CHUNK.size)
        CHUNK.pack_into(self._buffer, at, CHUNK_MAGIC, DONE, Chunk.NONE, cookie, 0)
        self._used = at + CHUNK.size

    def _simple(self, cookie: int, error: Error) -> None:
        at = self._reserve(SIMPLE.size)
        SIMPLE.pack_into(self._buffer, at, SIMPLE_MAGIC, error, cookie)
        self._used = at + SIMPLE.size

    def _error(self, cookie: int, error: Error, structured: bool) -> None:
        """An error as the only or last part of a reply. `structured`: as the command asks for, if that was agreed."""
        if not structured or not self._structured:
            self._simple(cookie, error)
            return
        words = _WORDS.get(error, b"")
        size = CHUNK_ERROR.size + len(words)
        at = self._reserve(size)
        length = size - CHUNK.size
        CHUNK_ERROR.pack_into(self._buffer, at, CHUNK_MAGIC, DONE, Chunk.ERROR, cookie, length, error, len(words))
        self._buffer[at + CHUNK_ERROR.size : at + size] = words
        self._used = at + size

    def _load(self, offset: int, at: int, length: int) -> bool:
        """Read into the buffer; False, and a report, if that fails."""
        try:
            self._export.read_into(offset, self._view[at : at + length])
        except RegraftError as error:
            self._report(error)
            return False
        return True

    def _read_simple(self, cookie: int, offset: int, length: int) -> None:
        at = self._used
        if at + _SIMPLE_HEAD + length > self._room:
            at = self._reserve(_SIMPLE_HEAD + length)
        start = at + _SIMPLE_HEAD
        try:
            self._export.read_into(offset, self._view[start : start + length])
        except RegraftError as error:
            self._report(error)
            self._simple(cookie, Error.EIO)
            return
        SIMPLE.pack_into(self._buffer, at, SIMPLE_MAGIC, _OK, cookie)
        self._used = start + length

    def _read_chunk(self, cookie: int, offset: int, length: int, done: int) -> bool:
        """One chunk of data, or a hole if it is small and all zeros. False if it failed: the reply has then ended."""
        at = self._used
        if at + _CHUNK_HEAD + length > self._room:
            at = self._reserve(_CHUNK_HEAD + length)
        start = at + _CHUNK_HEAD
        try:
            self._export.read_into(offset, self._view[start : start + length])
        except RegraftError as error:
            self._report(error)
            self._error(cookie, Error.EIO, True)
            return False
        buffer = self._buffer
        if not buffer[start] and length <= _SMALL and buffer.startswith(_ZEROS[:length], start):
            self._hole(cookie, offset, length, done)
            return True
        CHUNK_DATA.pack_into(buffer, at, CHUNK_MAGIC, done, _DATA, cookie, 8 + length, offset)
        self._used = start + length
        return True

    def _hole(self, cookie: int, offset: int, length: int, done: int) -> None:
        at = self._reserve(CHUNK_HOLE.size)
        CHUNK_HOLE.pack_into(self._buffer, at, CHUNK_MAGIC, done, Chunk.OFFSET_HOLE, cookie, 12, offset, length)
        self._used = at + CHUNK_HOLE.size

    def _read(self, cookie: int, offset: int, length: int, whole: bool) -> None:
        """Any read. `whole`: the data must be one chunk."""
        if self._structured and not whole:
            self._read_extents(cookie, offset, length)
        elif length <= len(self._buffer) - CHUNK_DATA.size:
            if self._structured:
                self._read_chunk(cookie, offset, length, DONE)
            else:
                self._read_simple(cookie, offset, length)
        else:
            self._read_large(cookie, offset, length)

    def _read_extents(self, cookie: int, offset: int, length: int) -> None:
        end = offset + length
        most = len(self._buffer) - CHUNK_DATA.size
        try:
            for hole, start, stop in self._merged(offset, length):
                if hole:
                    self._hole(cookie, start, stop - start, DONE if stop == end else 0)
                    continue
                while start < stop:
                    size = stop - start
                    piece = self._export.direct(start, size) if self._send_file and size > _SMALL else None
                    if piece is not None and piece.length > _SMALL:
                        size = piece.length
                        with self._alone():
                            sent = self._file_chunk(cookie, piece, start, start + size == end)
                    else:
                        size = min(most, piece.length if piece is not None else size)
                        sent = self._read_chunk(cookie, start, size, DONE if start + size == end else 0)
                    if not sent:
                        return
                    start += size
        except RegraftError as error:
            self._report(error)
            self._error(cookie, Error.EIO, True)

    def _file_chunk(self, cookie: int, piece: Piece, offset: int, last: bool) -> bool:
        """One chunk of data straight from a file. False if it failed: the reply has then ended.

        Its header promises the data before they are read, so it is not yet the end of the reply: if they cannot be read
        the chunk is filled up, and an error follows that makes it void.
        """
        if self._send_file is None:
            return False
        at = self._reserve(CHUNK_DATA.size)
        CHUNK_DATA.pack_into(self._buffer, at, CHUNK_MAGIC, 0, _DATA, cookie, 8 + piece.length, offset)
        self._used = at + CHUNK_DATA.size
        self.flush()
        end = offset + piece.length
        offset += self._send_file(*piece)
        failed = False
        while offset < end:  # not all could be sent that way
            size = min(end - offset, len(self._buffer))
            if failed or not self._load(offset, 0, size):
                failed = True
                self._view[:size] = bytes(size)
            self._used = size
            self.flush()
            offset += size
        if failed:
            self._error(cookie, Error.EIO, True)
        elif last:
            self._done(cookie)
        return not failed

    def _merged(self, offset: int, length: int) -> Iterator[tuple[bool, int, int]]:
        """Neighbours that are holes, or are not, as one: hole?, start, stop."""
        start, position, kind = offset, offset, False
        for extent in self._export.extents(offset, length):
            if extent.hole != kind:
                if position > start:
                    yield kind, start, position
                start, kind = position, extent.hole
            position += extent.length
        yield kind, start, offset + length

    def _read_large(self, cookie: int, offset: int, length: int) -> None:
        """One reply larger than the buffer. Read twice: an error can be told only before the header is sent."""
        self.flush()
        most = len(self._buffer)
        for piece in range(offset, offset + length, most):
            if not self._load(piece, 0, min(most, offset + length - piece)):
                self._error(cookie, Error.EIO, True)
                return
        if self._structured:
            CHUNK_DATA.pack_into(self._buffer, 0, CHUNK_MAGIC, DONE, Chunk.OFFSET_DATA, cookie, 8 + length, offset)
            self._used = CHUNK_DATA.size
        else:
            self._simple(cookie, Error.OK)
        with self._alone():
            self.flush()
            for piece in range(offset, offset + length, most):
                size = min(most, offset + length - piece)
                if not self._load(piece, 0, size):
                    raise BrokenReplyError(f"reading at {piece} failed the second time")
                self._used = size
                self.flush()

    def _block_status(self, cookie: int, offset: int, length: int, only_one: bool) -> None:
        most = 1 if only_one else self._most_extents()
        contexts = self._session.contexts
        for context in contexts:
            try:
                found = self._statuses(context, offset, length, most)
            except RegraftError as error:
                self._report(error)
                self._error(cookie, Error.EIO, True)
                return
            size = CHUNK_STATUS.size + EXTENT.size * len(found)
            at = self._reserve(size)
            done = DONE if context == contexts[-1] else 0
            head = (CHUNK_MAGIC, done, Chunk.BLOCK_STATUS, cookie, size - CHUNK.size, CONTEXTS[context])
            CHUNK_STATUS.pack_into(self._buffer, at, *head)
            for row, status in enumerate(found):
                EXTENT.pack_into(self._buffer, at + CHUNK_STATUS.size + row * EXTENT.size, *status)
            self._used = at + size

    def _most_extents(self) -> int:
        return min(self._limits.nbd_extents, (len(self._buffer) - CHUNK_STATUS.size) // EXTENT.size)

    def _statuses(self, context: str, offset: int, length: int, most: int) -> list[tuple[int, int]]:
        """At most so many pairs of length and status, no two neighbours of equal status."""
        found: list[tuple[int, int]] = []
        for extent in islice(self._export.extents(offset, length), 16 * self._limits.nbd_extents):
            status = _status(context, extent)
            if found and found[-1][1] == status:
                found[-1] = (found[-1][0] + extent.length, status)
            elif len(found) == most:
                break
            else:
                found.append((extent.length, status))
        return found


def _status(context: str, extent: Extent) -> int:
    if context == ALLOCATION:
        return STATE_HOLE | STATE_ZERO if extent.hole else 0
    return int(extent.origin)
