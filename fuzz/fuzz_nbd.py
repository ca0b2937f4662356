# SPDX-License-Identifier: Apache-2.0
"""What a client of the NBD server says, and what it is answered: the state machines, no sockets."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from random import Random

from regraft.blockdev.export import BlockSizes, Extent, Origin
from regraft.blockdev.nbd.exports import Exports, Session
from regraft.blockdev.nbd.handshake import Handshake, State
from regraft.blockdev.nbd.replies import BrokenReplyError, Replies
from regraft.blockdev.nbd.requests import Requests
from regraft.errors import RegraftError, SourceError
from regraft.limits import Limits

_LIMITS = Limits(nbd_options=50, nbd_option_size=8192, nbd_request_size=1 << 20, nbd_reply_buffer=1 << 17)
_CHUNK_TYPES = {0, 1, 2, 5, 0x8001}


class _Disk:
    """A mebibyte of which a part is a hole and a part cannot be read."""

    description = "to be fuzzed"
    has_origins = True

    def __init__(self, name: str, blocks: BlockSizes) -> None:
        self.name, self.blocks, self.size = name, blocks, 1 << 20

    def read_into(self, offset: int, view: memoryview) -> None:
        assert len(view)
        assert 0 <= offset <= self.size - len(view)
        if offset <= 777_777 < offset + len(view):
            raise SourceError("a bad block")
        view[:] = b"\xaa" * len(view)

    def direct(self, offset: int, length: int) -> None:
        return None

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        assert length
        assert 0 <= offset <= self.size - length
        half = max(0, min(length, self.size // 2 - offset))
        if half:
            yield Extent(half, hole=True, origin=Origin.ZERO)
        if half < length:
            yield Extent(length - half)


_EXPORTS = Exports([_Disk("disk", BlockSizes()), _Disk("coarse", BlockSizes(512, 4096))])


def _check(sent: bytes) -> None:
    """All that was sent is whole replies."""
    position = 0
    while position < len(sent):
        magic, _, kind = struct.unpack_from(">IHH", sent, position)
        if magic == 0x67446698:
            position += 16
            return  # data may follow, whose length only the request tells
        assert magic == 0x668E33EF
        assert kind in _CHUNK_TYPES
        position += 20 + struct.unpack_from(">I", sent, position + 16)[0]
    assert position == len(sent)


def _transmit(session: Session, data: bytes, step: int) -> None:
    sent = bytearray()
    replies = Replies(session, sent.__iadd__, lambda error: None, limits=_LIMITS)  # type: ignore[arg-type]
    requests = Requests(limits=_LIMITS)
    position = asked = 0
    while position < len(data) and not requests.fault and asked < 500:
        room = requests.room[: min(step, len(data) - position)]
        room[:] = data[position : position + len(room)]
        position += len(room)
        found = requests.take(len(room))
        asked += len(found)
        try:
            going_on = replies.answer(found[:100])
        except BrokenReplyError:
            return
        _check(bytes(sent))
        sent.clear()
        if not going_on:
            return
        if asked % 3 == 0 and not requests.fault:  # as if handed over
            requests = Requests(requests.remains, limits=_LIMITS)


def _talk(handshake: Handshake, data: bytes, step: int) -> None:
    for position in range(0, len(data), step):
        handshake.feed(data[position : position + step])
        while handshake.answer() is not None:
            pass
        if handshake.state is State.UPGRADE:
            handshake = handshake.upgraded()
        elif handshake.state is State.TRANSMIT:
            _transmit(handshake.session, handshake.rest + data[position + step :], step)
            return
        elif handshake.state is State.CLOSE:
            return


def target(data: bytes) -> None:
    """The first byte tells what is fuzzed and in what pieces it comes."""
    kind, data = data[:1], data[1:]
    mode = kind[0] if kind else 0
    step = (1, 28, 1000, 1 << 16)[mode % 4]
    try:
        if mode & 64:
            export = list(_EXPORTS)[mode >> 4 & 1]
            contexts = ("base:allocation", "x-regraft:origin")
            structured = bool(mode & 32)
            _transmit(Session(export, structured, contexts if structured else ()), data, step)
        else:
            _talk(Handshake(_EXPORTS, tls=bool(mode & 16), secure=bool(mode & 32), limits=_LIMITS), data, step)
    except RegraftError:
        return


def _option(number: int, data: bytes = b"") -> bytes:
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def _request(command: int, offset: int = 0, length: int = 0, flags: int = 0) -> bytes:
    return struct.pack(">IHHQQI", 0x25609513, flags, command, 7, offset, length)


def _name(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def messages() -> tuple[list[bytes], list[bytes]]:
    """Well-formed options and requests, as material."""
    go = _name(b"disk") + struct.pack(">HHHH", 3, 1, 2, 3)
    query = _name(b"disk") + struct.pack(">I", 2) + _name(b"base:allocation") + _name(b"x-regraft:origin")
    options = [_option(3), _option(5), _option(8), _option(11), _option(6, go), _option(9, query), _option(10, query)]
    options += [
        _option(7, go),
        _option(7, _name(b"coarse") + b"\0\0"),
        _option(1, b"disk"),
        _option(2),
        _option(99, b"x"),
    ]
    requests = [_request(0, 4096, 512), _request(0, 0, 1 << 20), _request(0, 777_000, 4096), _request(0, 0, 1 << 20, 4)]
    requests += [_request(1, 0, 100) + bytes(100), _request(3), _request(4, 0, 512), _request(6, 0, 1 << 31)]
    requests += [_request(7, 0, 1 << 20), _request(7, 100, 512, 8), _request(0, (1 << 64) - 1, 2), _request(2)]
    return options, requests


def conversations(random: Random) -> Iterator[bytes]:
    """Endless talk of clients that are partly in their right mind, with the client flags in front."""
    options, requests = messages()
    while True:
        parts = [struct.pack(">I", 3), *random.choices(options, k=random.randrange(4))]
        if random.random() < 0.8:
            parts += [options[2], options[6], options[7]]
        parts += random.choices(requests[:-1], k=random.randrange(6))
        yield b"".join(parts)


def seeds() -> list[bytes]:
    options, requests = messages()
    flags = struct.pack(">I", 3)
    handshakes = [flags + b"".join(options[2:8]) + b"".join(requests), *(flags + option for option in options)]
    return [
        *(bytes([mode]) + handshake for handshake in handshakes for mode in (0, 1, 3, 16, 48)),
        *(bytes([mode]) + request for request in requests for mode in (64, 67, 96, 99, 115)),
        *(bytes([mode]) + b"".join(requests) for mode in (65, 67, 97, 98, 99, 83, 115)),
    ]
