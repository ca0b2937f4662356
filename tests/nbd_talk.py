# SPDX-License-Identifier: Apache-2.0
"""A client of the NBD protocol that can say anything, also what no client should. Layouts as in doc/proto.md."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from regraft.blockdev.export import BlockSizes, Extent, Origin
from regraft.errors import SourceError

MAGIC = 0x25609513
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED, LIST_META, SET_META = 1, 2, 3, 5, 6, 7, 8, 9, 10
ACK, SERVER, REP_INFO, META = 1, 2, 3, 4
UNSUP, INVALID, TLS_REQD, UNKNOWN, TOO_BIG = (0x80000000 + n for n in (1, 3, 5, 6, 9))
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, DF, REQ_ONE = 1, 4, 8
EPERM, EIO, EINVAL, ESHUTDOWN = 1, 5, 22, 108


@dataclass
class PatternExport:
    """Random bytes with a hole in the second quarter, and a range that cannot be read."""

    name: str = "disk"
    size: int = 1 << 20
    description: str = ""
    blocks: BlockSizes = field(default_factory=BlockSizes)
    has_origins: bool = True
    broken: range = range(0)
    reads: int = 0
    works: int = 0  #: so many reads succeed before the broken range is broken

    def __post_init__(self) -> None:
        data = bytearray(random.Random(self.size).randbytes(self.size))
        self.hole = range(self.size // 4, self.size // 2)
        data[self.hole.start : self.hole.stop] = bytes(len(self.hole))
        self.content = bytes(data)

    def read_into(self, offset: int, view: memoryview) -> None:
        self.reads += 1
        if self.reads > self.works and offset < self.broken.stop and offset + len(view) > self.broken.start:
            view[:] = b"\xee" * len(view)
            raise SourceError(f"read at {offset}: a bad block; password=secret")
        view[:] = self.content[offset : offset + len(view)]

    def direct(self, offset: int, length: int) -> None:
        return None

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        for start, stop, origin in (
            (0, self.hole.start, Origin.COPY),
            (self.hole.start, self.hole.stop, Origin.ZERO),
            (self.hole.stop, self.size * 3 // 4, Origin.DATA),
            (self.size * 3 // 4, self.size, Origin.REMOTE),
        ):
            first, last = max(start, offset), min(stop, end)
            if first < last:
                yield Extent(last - first, origin is Origin.ZERO, origin)


def option(number: int, data: bytes = b"", *, length: int | None = None, magic: bytes = b"IHAVEOPT") -> bytes:
    return magic + struct.pack(">II", number, len(data) if length is None else length) + data


def string(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def go(name: bytes, *infos: int) -> bytes:
    return string(name) + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def queries(name: bytes, *texts: bytes) -> bytes:
    return string(name) + struct.pack(">I", len(texts)) + b"".join(map(string, texts))


def request(command: int, offset: int = 0, length: int = 0, *, flags: int = 0, cookie: int = 7) -> bytes:
    return struct.pack(">IHHQQI", MAGIC, flags, command, cookie, offset, length)


def option_replies(data: bytes) -> list[tuple[int, int, bytes]]:
    """Option, reply and data of each; fails if anything is left over."""
    found, position = [], 0
    while position < len(data):
        magic, number, reply, length = struct.unpack_from(">QIII", data, position)
        assert magic == 0x0003E889045565A9
        position += 20
        assert position + length <= len(data)
        found.append((number, reply, data[position : position + length]))
        position += length
    return found


@dataclass
class Answer:
    """What came back for one request."""

    cookie: int
    error: int = 0
    simple: bool = False
    pieces: list[tuple[int, bytes]] = field(default_factory=list)
    holes: list[tuple[int, int]] = field(default_factory=list)
    statuses: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    words: bytes = b""

    def data(self, offset: int, length: int) -> bytes:
        """The bytes read; fails unless data and holes cover the range exactly once."""
        out, seen = bytearray(length), 0
        for start, piece in [*self.pieces, *((start, bytes(size)) for start, size in self.holes)]:
            out[start - offset : start - offset + len(piece)] = piece
            seen += len(piece)
        assert seen == length == len(out)
        return bytes(out)


class Client:
    """Blocking, with a time-out; whatever is not as the protocol says fails the test."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        line.settimeout(20)

    def take(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            more = self.line.recv(count - len(data))
            if not more:
                raise EOFError(bytes(data))
            data += more
        return bytes(data)

    def say(self, data: bytes) -> None:
        self.line.sendall(data)

    def ended(self) -> bool:
        """Whether the server has closed; reads what is still there."""
        try:
            while self.line.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def greet(self, flags: int = 3) -> None:
        assert self.take(18) == b"NBDMAGICIHAVEOPT\0\3"
        self.say(struct.pack(">I", flags))

    def reply(self) -> tuple[int, int, bytes]:
        head = self.take(20)
        return option_replies(head + self.take(struct.unpack_from(">I", head, 16)[0]))[0]

    def ask(self, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """All replies to an option."""
        self.say(option(number, data))
        found = []
        while True:
            echoed, reply, content = self.reply()
            assert echoed == number
            found.append((reply, content))
            if reply == ACK or reply & 0x80000000:
                return found

    def attach(
        self, name: bytes = b"", *, structured: bool = True, contexts: tuple[bytes, ...] = ()
    ) -> tuple[int, int]:
        """Through the handshake; size and flags."""
        self.greet()
        if structured:
            assert self.ask(STRUCTURED) == [(ACK, b"")]
        if contexts:
            assert len(self.ask(SET_META, queries(name, *contexts))) == len(contexts) + 1
        replies = self.ask(GO, go(name))
        assert replies[-1][0] == ACK, replies
        _, size, flags = struct.unpack(">HQH", replies[0][1])
        return size, flags

    def answer(self, *, reads: int = 0) -> Answer:
        """The next whole answer; `reads` bytes follow if it is a simple one with success."""
        answer: Answer | None = None
        while True:
            (magic,) = struct.unpack(">I", self.take(4))
            if magic == 0x67446698:
                assert answer is None
                error, cookie = struct.unpack(">IQ", self.take(12))
                answer = Answer(cookie, error, simple=True)
                if reads and not error:
                    answer.pieces.append((0, self.take(reads)))
                return answer
            assert magic == 0x668E33EF, hex(magic)
            flags, kind, cookie, length = struct.unpack(">HHQI", self.take(16))
            payload = self.take(length)
            answer = answer or Answer(cookie)
            assert answer.cookie == cookie
            self._chunk(answer, kind, payload)
            if flags & 1:
                return answer

    @staticmethod
    def _chunk(answer: Answer, kind: int, payload: bytes) -> None:
        if kind == 1:
            assert len(payload) > 8
            answer.pieces.append((struct.unpack_from(">Q", payload)[0], payload[8:]))
        elif kind == 2:
            answer.holes.append(struct.unpack(">QI", payload))
        elif kind == 5:
            (context,) = struct.unpack_from(">I", payload)
            answer.statuses[context] = list(struct.iter_unpack(">II", payload[4:]))
        elif kind & 0x8000:
            answer.error, size = struct.unpack_from(">IH", payload)
            answer.words = payload[6 : 6 + size]
        else:
            assert (kind, payload) == (0, b"")

    def command(self, number: int, offset: int = 0, length: int = 0, *, flags: int = 0, simple: bool = False) -> Answer:
        self.say(request(number, offset, length, flags=flags, cookie=offset + length))
        answer = self.answer(reads=length if simple and number == READ else 0)
        assert answer.cookie == offset + length
        return answer
