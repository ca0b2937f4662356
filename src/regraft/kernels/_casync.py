# SPDX-License-Identifier: Apache-2.0
"""casync's chunker in Python, with as few steps of the interpreter as possible.

The hash begins anew with each chunk and is tested for the first time when its window of 48 bytes is full: what is
tested is a function of the last 48 bytes. So the hashes of many positions are computed at once, by arithmetic on long
integers that hold a word of 32 bits, a lane, for each position. Follows cachunker.c of casync 2.
"""

from __future__ import annotations

import struct
from array import array
from functools import cache, lru_cache

from regraft.kernels._buzhash import TABLE, WINDOW

_LANE = 4  #: bytes of a lane
_BATCH = 4096  #: positions hashed at once


def cuts(data: memoryview, parameters: tuple[int, int, int], searched: int, final: bool) -> array[int]:
    """Lengths of the chunks of `data`, which starts at a cut; the open chunk at the end only if `final`.

    parameters: minimum, maximum, discriminator.
    """
    minimum, maximum, discriminator = parameters
    lengths = array("I")
    start = 0
    while True:
        first = max(start + max(minimum, WINDOW) - 1, searched)
        last = start + max(maximum, WINDOW) - 1
        found = _ending(data, first, last, discriminator)
        if found < 0:
            break
        lengths.append(found + 1 - start)
        start = found + 1
    if final and start < len(data):
        lengths.append(len(data) - start)
    return lengths


def _ending(data: memoryview, first: int, last: int, discriminator: int) -> int:
    """The position of the byte that ends the chunk, from `first` to `last`; -1 if it lies behind the data."""
    for start in range(first, min(last, len(data)), _BATCH):
        stop = min(start + _BATCH, last, len(data))
        for number, value in enumerate(hashes(bytes(data[start + 1 - WINDOW : stop]))):
            if value % discriminator == discriminator - 1:
                return start + number
    return last if last < len(data) else -1


def hashes(data: bytes) -> tuple[int, ...]:
    """The hashes of all windows of `data`, from that of the first 48 bytes on.

    The hash of a window is the exclusive or of its words, each rotated once more than the one after it. From windows
    of 1 byte those of 2, 4, ... 32 are joined; and of 32 and 16 those of 48, as a rotation by 32 is none.
    """
    count = len(data)
    buffer = bytearray(count * _LANE)
    for byte, column in enumerate(_columns()):
        buffer[byte::_LANE] = data.translate(column)
    value, size, sixteen = int.from_bytes(buffer, "little"), 1, 0
    while size < 32:
        if size == 16:
            sixteen = value
        high, low = _masks(size, count)
        older = value << 32 * size
        value ^= (older & low) << size | (older & high) >> 32 - size
        size *= 2
    value ^= sixteen << 32 * 32
    words = (value & (1 << count * 32) - 1).to_bytes(len(buffer), "little")
    return struct.unpack_from(f"<{count + 1 - WINDOW}I", words, (WINDOW - 1) * _LANE)


@lru_cache(16)
def _masks(turn: int, count: int) -> tuple[int, int]:
    """In each lane: the bits that a rotation to the left by `turn` brings to the low end, and the others."""
    low = (1 << 32 - turn) - 1
    lanes = count + turn  # as many as there are once the lanes are shifted
    one = int.from_bytes(low.to_bytes(_LANE, "little") * lanes, "little")
    return one ^ (1 << lanes * 32) - 1, one


@cache
def _columns() -> list[bytes]:
    """The four bytes of each word, as tables for `bytes.translate`."""
    return [bytes(word >> 8 * byte & 0xFF for word in TABLE) for byte in range(_LANE)]
