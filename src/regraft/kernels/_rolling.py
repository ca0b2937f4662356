# SPDX-License-Identifier: Apache-2.0
"""bita's content-defined chunkers in Python, with as few steps of the interpreter as possible.

The window is never emptied, so where a chunk may end is a function of the bytes before it: the places that match are
found first, many at once, by arithmetic on long integers that hold a word of 32 bits, a lane, for each position. `cuts`
then walks them and applies the least and greatest length. Follows the chunker of bita 0.13.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import TypeVar

#: The longest window; bita itself uses 16 and 64 bytes.
MAXIMUM_WINDOW = 4096

_SEED = 0x10324195

#: One word per byte value.
# fmt: off
TABLE = tuple(word ^ _SEED for word in (
    0xa40cc360, 0xbb785af8, 0x32c790bc, 0x6c64cd34, 0x83b4aa73, 0x36b691a5, 0x4631ad79, 0x5e49d231,
    0xcab22600, 0x6d45bfdf, 0xcd26dfc8, 0xf2e63bec, 0x18cb0c69, 0x817876fd, 0xb8c88ca8, 0xfabcc7d3,
    0x21211be3, 0x7bbd8a4b, 0xa7bc508f, 0x0cf35be6, 0x5bb76463, 0x900cc253, 0xa1bf6569, 0xb5fc01ff,
    0xd9d8d709, 0xf2fdd75b, 0x8cf7fdcc, 0x7a24b10f, 0xc2dfa4ea, 0xaec2a258, 0xb8e51edf, 0x81944196,
    0x1040fd08, 0x728857d5, 0xd4ec5341, 0x2e547382, 0x337cab71, 0x792f8dac, 0x6932136a, 0x0211f28b,
    0xeba45b99, 0x47a35907, 0x77271fb4, 0xbc09c6fb, 0x2d4eaf65, 0xfd7b53c0, 0xed4c2634, 0x54c8155d,
    0x8078f561, 0x0d87a7a9, 0x4e75f462, 0x251c62a7, 0xb038d1a8, 0x57d57b20, 0x500b6495, 0xee5fbf54,
    0x97bb0e7c, 0xfe5ca9ad, 0xa91746dd, 0x160b7122, 0xafc5ceee, 0x7d850b16, 0x15c28cc5, 0x655bc438,
    0x6ed4a616, 0x01a0e18f, 0xaae23461, 0xe387536b, 0x8b2470b1, 0x92be2ce1, 0xb18b3370, 0x803d5e25,
    0x8a94f196, 0xcd225534, 0xee4f24dc, 0x51749bfb, 0xcf068d2e, 0xc859a603, 0xfc12373b, 0x8e422af2,
    0xf28be938, 0x7619c3f8, 0xea77dc6b, 0x5006f1e4, 0x297c8237, 0x445bd977, 0x67cad7ed, 0xefde9644,
    0x626bed36, 0x0276970b, 0x1e699630, 0x373ee5db, 0xe83a37b3, 0x2b3938bc, 0xb2132f15, 0x66e60490,
    0x72e4e7ef, 0x8c4c2912, 0x6f7aab32, 0xc8f2eb65, 0x9b1c772b, 0xf48fb997, 0xd7b70417, 0x5a1476bd,
    0xfe547592, 0x82c7e59c, 0xede3935b, 0x08954101, 0x79f75116, 0x18a6b281, 0x90d2f6e6, 0x9c0139d9,
    0xba4a4d22, 0xfa3ab4db, 0xfc18be27, 0x047f414d, 0xba7ff7b4, 0xcc2b1b72, 0x756145da, 0xf12ff6c0,
    0xae78b289, 0x55935d1d, 0xfd849c3e, 0xae586a4f, 0x8948b6f5, 0xa079d886, 0xd7f5a118, 0x9ca03cf1,
    0xc500e85d, 0x8ce73a6c, 0x6725bb68, 0xfdb46ea2, 0x2ec367c4, 0x8fcdee2f, 0x21b13487, 0x67b41d6b,
    0xe662a354, 0x9cad336e, 0x8b284ff5, 0x1cf3c8b3, 0x6de04fd1, 0xf8ed762d, 0xc30471d4, 0x2c4ecebc,
    0x7211a0b8, 0xa34ee19c, 0x47b4bb79, 0x090777b6, 0x77f02513, 0x7cba4a74, 0xd87c18d3, 0xad8b9c5e,
    0x430c3f91, 0x072122ed, 0xc489ce87, 0x05798ec5, 0xc21e987b, 0x4eb62176, 0x8dfafefe, 0xfaeebadc,
    0x6fdc0b01, 0x60ebe6ee, 0x4244a970, 0x22d97939, 0x7ae88397, 0x76434679, 0xf8a624b6, 0x45ebdb60,
    0x68808c40, 0x628db2cb, 0x0b6e16fe, 0x8fbd2c92, 0xf5737f03, 0x562d3fc5, 0xd3306769, 0x97bd2f93,
    0x7a5312e6, 0x02065be8, 0x0b0c0a57, 0x80ad5f0e, 0x30e049bd, 0x5cd85bbc, 0xf981af4b, 0xbc18728f,
    0x85ce9d03, 0xc2c97922, 0xbedb47dd, 0x420f23c2, 0x40b504d3, 0x9d28e6fe, 0x7549831f, 0xa9668219,
    0xd24b01ae, 0x8e1c6dd7, 0xe5c94cf8, 0x34a91576, 0x48a005e5, 0x5c671015, 0xef4797c5, 0xd7476c01,
    0x37c339e7, 0xae017bab, 0xb5d8e74f, 0x50c5fc5b, 0x3b14aa64, 0xfc693cb1, 0x9cc65b82, 0x407c538f,
    0x71b2a28a, 0x297e5b01, 0xa3f7007e, 0x0742f937, 0xe05c4998, 0x6fd8e28f, 0x65036a03, 0xdc7f1a37,
    0x4b73b787, 0xf4fa5820, 0x85097266, 0x567d4e36, 0xdcc0aa2f, 0x5ff8969b, 0x464620a0, 0x8c694162,
    0x868a341a, 0x7bd4619e, 0x2c90aa84, 0x025668b2, 0xca4d0465, 0xcb579718, 0xdc7aa0eb, 0xa3605310,
    0x7a7910c6, 0x6a8ecffc, 0x6598058a, 0xfc5fb823, 0xbc3ef53a, 0xf0d09546, 0xeb210009, 0xf58cb960,
    0xbecbb337, 0xb84b6459, 0x4ebf437d, 0x85610fd2, 0x16e79f2f, 0x0849cce5, 0x77c3bd48, 0x955719e2,
    0x87abd4a7, 0x2799ae4f, 0x03b80cac, 0xd56e7604, 0x8b07ed07, 0x944552c5, 0x5b93e058, 0x8fbd2c92,
))
# fmt: on

_WORD = 0xFFFFFFFF
_LANE = 4  #: bytes of a lane
_BATCH = 4096  #: positions searched at once; a multiple of 32
_PLAIN = 1  #: `carry` of a stream in which nothing is special any more

T = TypeVar("T")


def cuts(
    data: memoryview,
    kind: str,
    parameters: tuple[int, int, int, int],
    place: tuple[int, int, int],
    final: bool,
) -> tuple[array[int], int]:
    """Lengths of the chunks of `data` from `before` on, and the next `carry`.

    parameters: bits, minimum, maximum, window. place: before, searched, carry.

    BuzHash fills its window with the first bytes of the stream. If the bytes fed next are zeros, it takes them for
    repeats of a zero before the stream and, once it has counted a window of them, feeds no more: one byte too few.
    Until a byte other than zero is fed, the last byte of the first window, the stale one, stays. What is skipped,
    because no chunk can end near it, is not fed. `carry` tells of that: 0 at the start, 1 if it is over, else the stale
    byte from bit 1 and the zeros fed from bit 9 on.
    """
    bits, minimum, maximum, window = parameters
    before, searched, carry = place
    lengths = array("I")
    start = before
    fresh = carry == 0 and kind == "buzhash"
    stale, fed = carry >> 1 & 0xFF, carry >> 9
    if fresh and len(data) >= window:
        stale, fed = data[window - 1], 0
    mask = (1 << bits) - 1
    stale_matches = stale and hash_of(bytes([stale]) + bytes(window - 1)) & mask == mask
    found = matching(data, kind, bits, window, before + searched)
    at = next(found, None)
    run_end = 0
    while True:
        filled = window if fresh else 0
        earliest = start + max(minimum, filled + 1) - 1
        end = latest = max(earliest, start + maximum - 1)
        feeding = start + max(filled, minimum - window - 1)
        if stale:
            if feeding >= run_end:
                run_end = _end_of_zeros(data, feeding)
            held = feeding + max(window - 1 - fed, 0)
            while at is not None and (at < earliest or held <= at < run_end):
                at = next(found, None)
            if stale_matches and max(held, earliest) < run_end:
                end = min(latest, max(held, earliest))
        while at is not None and at < earliest:
            at = next(found, None)
        if at is not None and at < end:
            end = at
        if end >= len(data):
            break
        if stale and run_end <= end:
            stale = fed = 0
        elif stale:
            fed = min(window, fed + max(end + 1 - feeding, 0))
        lengths.append(end + 1 - start)
        start = end + 1
        fresh = False
    if lengths:
        carry = fed << 9 | stale << 1 if stale else _PLAIN
    if final and start < len(data):
        lengths.append(len(data) - start)
    return lengths, carry


def _end_of_zeros(data: memoryview, start: int) -> int:
    """The first position from `start` on that holds another byte, or the end of the data."""
    for first in range(start, len(data), 1 << 16):
        piece = bytes(data[first : first + (1 << 16)])
        if left := len(piece.lstrip(b"\0")):
            return first + len(piece) - left
    return max(start, len(data))


def hash_of(window: bytes) -> int:
    """The BuzHash of a full window: its words, each rotated once more than the one after it."""
    value = 0
    for byte in window:
        value = _rotl(value, 1) ^ TABLE[byte]
    return value


def matching(data: memoryview, kind: str, bits: int, window: int, start: int) -> Iterator[int]:
    """All positions from `start` on at which the hash of the window that ends there has its low `bits` bits set.

    RollSum takes what lies before the data as zeros; BuzHash has no hash before a full window.
    """
    search = _rollsum if kind == "rollsum" else _buzhash
    context = (window + 31) // 32 * 32
    if kind == "buzhash":
        start = max(start, window - 1)
    for first in range(start, len(data), _BATCH):
        # The frame of BuzHash turns with the position in the piece, which has all of the window in any case.
        base = max(first - context, 0)
        piece = bytes(data[base : first + _BATCH])
        missing = search(piece, window, bits)
        yield from (base + lane for lane in _zero_lanes(missing, len(piece), first - base))


def _zero_lanes(lanes: int, count: int, start: int) -> Iterator[int]:
    """The numbers of the lanes from `start` on that are zero."""
    words = (lanes & (1 << count * 32) - 1).to_bytes(count * _LANE, "little")
    zero = bytes(_LANE)
    at = words.find(zero, start * _LANE)
    while at >= 0:
        lane = -(-at // _LANE)
        if words.startswith(zero, lane * _LANE):
            yield lane
            at = lane * _LANE + _LANE - 1
        at = words.find(zero, at + 1)


def _over(count: int, one: T, joined: Callable[[T, T, int, int], T]) -> T:
    """What windows of `count` bytes give, from what a single byte gives, in some log2(count) steps.

    joined(new, old, m, n): of windows of m + n bytes, from those of the m newer and the n older bytes.
    """
    value, size = one, 1
    for digit in bin(count)[3:]:
        value, size = joined(value, value, size, size), 2 * size
        if digit == "1":
            value, size = joined(one, value, 1, size), size + 1
    return value


def _rollsum(data: bytes, window: int, bits: int) -> int:
    """Per lane, the bits that are not set and ought to be, of rsync's sums.

    The first is 31 w + the sum of the bytes; the second is 31 w (w - 1) + the sum of the bytes, each times its age, 1
    for the newest. Of both only 16 bits count.
    """
    half = _lanes(0xFFFF, len(data))

    def joined(new: tuple[int, int], old: tuple[int, int], m: int, n: int) -> tuple[int, int]:
        one, two = old[0] << m * 32, old[1] << m * 32
        return new[0] + one & half, new[1] + two + m * one & half

    buffer = bytearray(len(data) * _LANE)
    buffer[::_LANE] = data
    each = int.from_bytes(buffer, "little")
    one, two = _over(window, (each, each), joined)
    one += _lanes(31 * window & 0xFFFF, len(data))
    two += _lanes(31 * window * (window - 1) & 0xFFFF, len(data))
    value = (one & half) << 16 | two & half
    return ~value & _lanes((1 << bits) - 1, len(data))


def _buzhash(data: bytes, window: int, bits: int) -> int:
    """Per lane, the bits that are not set and ought to be, of the cyclic polynomial hash.

    The lane of position p holds the word of its byte, rotated right by p. In this turning frame the hash of a window is
    a mere exclusive or of its lanes, and so are the bits that ought to be set: turned by p.
    """
    turned = _turned()
    buffer = bytearray(len(data) * _LANE)
    for turn in range(32):
        column = data[turn::32]
        for byte in range(_LANE):
            buffer[turn * _LANE + byte :: 32 * _LANE] = column.translate(turned[turn][byte])
    each = int.from_bytes(buffer, "little")
    value = _over(window, each, lambda new, old, m, _n: new ^ old << m * 32)
    return ~value & _turned_mask(bits, -(-len(data) // 32))


@lru_cache(16)
def _lanes(word: int, count: int) -> int:
    return int.from_bytes(word.to_bytes(_LANE, "little") * count, "little")


@cache
def _turned() -> list[list[bytes]]:
    """For each of 32 turns the four bytes of each word, as tables for `bytes.translate`."""
    words = [[_rotl(word, -turn) for word in TABLE] for turn in range(32)]
    return [[bytes(word >> 8 * byte & 0xFF for word in turn) for byte in range(_LANE)] for turn in words]


@lru_cache(16)
def _turned_mask(bits: int, count: int) -> int:
    masks = b"".join(_rotl((1 << bits) - 1, -turn).to_bytes(_LANE, "little") for turn in range(32))
    return int.from_bytes(masks * count, "little")


def _rotl(word: int, count: int) -> int:
    count %= 32
    return (word << count | word >> 32 - count) & _WORD
