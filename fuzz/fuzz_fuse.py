# SPDX-License-Identifier: Apache-2.0
"""Any bytes as a message of the kernel to a FUSE file system."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from regraft.blockdev.export import BlockSizes, Extent
from regraft.blockdev.fuse.protocol import IN_HEADER, OUT_HEADER, OneFile, Operation
from regraft.errors import RegraftError


class _Zeros:
    name = description = ""
    size = 100_000
    blocks = BlockSizes()
    has_origins = False

    def read_into(self, offset: int, view: memoryview) -> None:
        if not 0 <= offset <= offset + len(view) <= self.size:
            raise AssertionError(f"a read of {len(view)} bytes at {offset}")

    def direct(self, offset: int, length: int) -> None:
        return None

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(length, hole=True)


_WORDS: list[str] = []
_FILE = OneFile(_Zeros(), report=_WORDS.append)
_ROOM = memoryview(bytearray(_FILE.reply_size))


def target(data: bytes) -> None:
    _WORDS.clear()
    try:
        answer = _FILE.answer(data, _ROOM)
    except RegraftError:
        return
    if _WORDS:
        raise AssertionError(_WORDS[0])
    if answer is not None:
        length, error, unique = OUT_HEADER.unpack_from(answer)
        if length != len(answer) or error > 0 or unique != IN_HEADER.unpack_from(data)[2]:
            raise AssertionError(f"an answer of {len(answer)} bytes that says {length}, {error}, {unique}")


def seeds() -> list[bytes]:
    bodies = {
        Operation.INIT: struct.pack("=IIII", 7, 38, 131_072, 0xFFFFFFFF) + bytes(48),
        Operation.GETATTR: bytes(16),
        Operation.OPEN: bytes(8),
        Operation.READ: struct.pack("=QQIIQII", 0, 99_000, 4096, 0, 0, 0, 0),
        Operation.STATFS: b"",
        Operation.FORGET: bytes(8),
        Operation.WRITE: bytes(40) + b"data",
        Operation.FLUSH: bytes(24),
        Operation.INTERRUPT: bytes(8),
        99: b"name\0",
    }
    return [IN_HEADER.pack(40 + len(body), number, 7, 1, 0, 0, 0, 0, 0) + body for number, body in bodies.items()]
