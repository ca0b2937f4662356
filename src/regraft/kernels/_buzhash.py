# SPDX-License-Identifier: Apache-2.0
"""zchunk's automatic chunker in Python: libzck's cuts exactly, with as few steps of the interpreter as possible.

libzck rolls one 32 bit hash (buzhash, window of 48 bytes) from cut to cut. From the 48th byte of a chunk on it is the
hash of the last 48 bytes and nothing else, so that the positions where it matches can be found first, without any
knowledge of cuts, many at once (`matching`). They are rare. `cuts` then walks them; only where libzck feeds a byte
twice is the hash rolled byte by byte.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from functools import cache

WINDOW = 48
MASK = 0x7FFF
MINIMUM = 8192  #: bytes; no content cuts a chunk before
MAXIMUM = 131072  #: bytes; no chunk is longer

#: One word per byte value; casync and desync use the same constants.
# fmt: off
TABLE = (
    0x458be752, 0xc10748cc, 0xfbbcdbb8, 0x6ded5b68, 0xb10a82b5, 0x20d75648, 0xdfc5665f, 0xa8428801,
    0x7ebf5191, 0x841135c7, 0x65cc53b3, 0x280a597c, 0x16f60255, 0xc78cbc3e, 0x294415f5, 0xb938d494,
    0xec85c4e6, 0xb7d33edc, 0xe549b544, 0xfdeda5aa, 0x882bf287, 0x3116737c, 0x05569956, 0xe8cc1f68,
    0x0806ac5e, 0x22a14443, 0x15297e10, 0x50d090e7, 0x4ba60f6f, 0xefd9f1a7, 0x5c5c885c, 0x82482f93,
    0x9bfd7c64, 0x0b3e7276, 0xf2688e77, 0x8fad8abc, 0xb0509568, 0xf1ada29f, 0xa53efdfe, 0xcb2b1d00,
    0xf2a9e986, 0x6463432b, 0x95094051, 0x5a223ad2, 0x9be8401b, 0x61e579cb, 0x1a556a14, 0x5840fdc2,
    0x9261ddf6, 0xcde002bb, 0x52432bb0, 0xbf17373e, 0x7b7c222f, 0x2955ed16, 0x9f10ca59, 0xe840c4c9,
    0xccabd806, 0x14543f34, 0x1462417a, 0x0d4a1f9c, 0x087ed925, 0xd7f8f24c, 0x7338c425, 0xcf86c8f5,
    0xb19165cd, 0x9891c393, 0x325384ac, 0x0308459d, 0x86141d7e, 0xc922116a, 0xe2ffa6b6, 0x53f52aed,
    0x2cd86197, 0xf5b9f498, 0xbf319c8f, 0xe0411fae, 0x977eb18c, 0xd8770976, 0x9833466a, 0xc674df7f,
    0x8c297d45, 0x8ca48d26, 0xc49ed8e2, 0x7344f874, 0x556f79c7, 0x6b25eaed, 0xa03e2b42, 0xf68f66a4,
    0x8e8b09a2, 0xf2e0e62a, 0x0d3a9806, 0x9729e493, 0x8c72b0fc, 0x160b94f6, 0x450e4d3d, 0x7a320e85,
    0xbef8f0e1, 0x21d73653, 0x4e3d977a, 0x1e7b3929, 0x1cc6c719, 0xbe478d53, 0x8d752809, 0xe6d8c2c6,
    0x275f0892, 0xc8acc273, 0x4cc21580, 0xecc4a617, 0xf5f7be70, 0xe795248a, 0x375a2fe9, 0x425570b6,
    0x8898dcf8, 0xdc2d97c4, 0x0106114b, 0x364dc22f, 0x1e0cad1f, 0xbe63803c, 0x5f69fac2, 0x4d5afa6f,
    0x1bc0dfb5, 0xfb273589, 0x0ea47f7b, 0x3c1c2b50, 0x21b2a932, 0x6b1223fd, 0x2fe706a8, 0xf9bd6ce2,
    0xa268e64e, 0xe987f486, 0x3eacf563, 0x1ca2018c, 0x65e18228, 0x2207360a, 0x57cf1715, 0x34c37d2b,
    0x1f8f3cde, 0x93b657cf, 0x31a019fd, 0xe69eb729, 0x8bca7b9b, 0x4c9d5bed, 0x277ebeaf, 0xe0d8f8ae,
    0xd150821c, 0x31381871, 0xafc3f1b0, 0x927db328, 0xe95effac, 0x305a47bd, 0x426ba35b, 0x1233af3f,
    0x686a5b83, 0x50e072e5, 0xd9d3bb2a, 0x8befc475, 0x487f0de6, 0xc88dff89, 0xbd664d5e, 0x971b5d18,
    0x63b14847, 0xd7d3c1ce, 0x7f583cf3, 0x72cbcb09, 0xc0d0a81c, 0x7fa3429b, 0xe9158a1b, 0x225ea19a,
    0xd8ca9ea3, 0xc763b282, 0xbb0c6341, 0x020b8293, 0xd4cd299d, 0x58cfa7f8, 0x91b4ee53, 0x37e4d140,
    0x95ec764c, 0x30f76b06, 0x5ee68d24, 0x679c8661, 0xa41979c2, 0xf2b61284, 0x4fac1475, 0x0adb49f9,
    0x19727a23, 0x15a7e374, 0xc43a18d5, 0x3fb1aa73, 0x342fc615, 0x924c0793, 0xbee2d7f0, 0x8a279de9,
    0x4aa2d70c, 0xe24dd37f, 0xbe862c0b, 0x177c22c2, 0x5388e5ee, 0xcd8a7510, 0xf901b4fd, 0xdbc13dbc,
    0x6c0bae5b, 0x64efe8c7, 0x48b02079, 0x80331a49, 0xca3d8ae6, 0xf3546190, 0xfed7108b, 0xc49b941b,
    0x32baf4a9, 0xeb833a4a, 0x88a3f1a5, 0x3a91ce0a, 0x3cc27da1, 0x7112e684, 0x4a3096b1, 0x3794574c,
    0xa3c8b6f3, 0x1d213941, 0x6e0a2e00, 0x233479f1, 0x0f4cd82f, 0x6093edd2, 0x5d7d209e, 0x464fe319,
    0xd4dcac9e, 0x0db845cb, 0xfb5e4bc3, 0xe0256ce1, 0x09fb4ed1, 0x0914be1e, 0xa5bdb2c3, 0xc6eb57bb,
    0x30320350, 0x3f397e91, 0xa67791bc, 0x86bc0e2c, 0xefa0a7e2, 0xe9ff7543, 0xe733612c, 0xd185897b,
    0x329e5388, 0x91dd236b, 0x2ecb0d93, 0xf4d82a3d, 0x35b5c03f, 0xe4e606f0, 0x05b21843, 0x37b45964,
    0x5eff22f4, 0x6027f4cc, 0x77178b3c, 0xae507131, 0x7bf7cabc, 0xf9c18d66, 0x593ade65, 0xd95ddf11,
)
# fmt: on

_WORD = 0xFFFFFFFF
_LANE = 4  #: bytes of a hash in a long integer
_BATCH = 4096  #: positions searched at once; a multiple of 32


def cuts(data: memoryview, final: bool) -> array[int]:
    """Lengths of the chunks of `data`, which starts at a cut; the open chunk at the end only if `final`."""
    lengths = array("I")
    start = 0
    position = 0  # the first byte that was not yet fed
    found = matching(data)
    at = next(found, None)
    while True:
        # Before its 48th byte a chunk has no full window, and nothing matches.
        while at is not None and at < max(position, start + WINDOW - 1):
            at = next(found, None)
        longest = start + MAXIMUM
        if at is not None and at < longest:
            position, cut = (at, True) if at - start >= MINIMUM else _feed_twice(data, start, at)
        elif longest < len(data):
            position, cut = longest, True
        else:
            break
        if cut:
            lengths.append(position - start)
            start = position
    if final and start < len(data):
        lengths.append(len(data) - start)
    return lengths


def _feed_twice(data: memoryview, start: int, at: int) -> tuple[int, bool]:
    """Go on from a match at `at`, too early for a cut: libzck refuses it, keeps the window and feeds the byte again.

    So it does for every match while the window still holds a byte twice. Returns the position of a cut and True, or the
    first position whose window is that of the data again (at most the end of the data) and False. It does end: no
    window of 48 equal bytes matches, so that one byte is fed at most 48 times more.
    """
    window = deque(data[at + 1 - WINDOW : at + 1], WINDOW)
    rolled = hash_of(bytes(window))
    position = again = at
    while position < min(again + WINDOW - 1, len(data)):
        byte = data[position]
        rolled = _rotl(rolled, 1) ^ _rotl(TABLE[window[0]], WINDOW) ^ TABLE[byte]
        window.append(byte)
        if rolled & MASK:
            position += 1
        elif position - start < MINIMUM:
            again = position
        else:
            return position, True
    return position, False


def hash_of(window: bytes) -> int:
    """The hash of a window: its words, each rotated once more than the one after it."""
    value = 0
    for byte in window:
        value = _rotl(value, 1) ^ TABLE[byte]
    return value


def matching(data: memoryview) -> Iterator[int]:
    """All positions whose window, the 48 bytes that end there, matches, in order."""
    for first in range(0, len(data), _BATCH):
        base = max(first - 64, 0)  # a multiple of 32, at least a window before
        for position in _search(bytes(data[base : first + _BATCH]), first - base):
            yield base + position


def _search(data: bytes, skip: int) -> Iterator[int]:
    """The matching positions of `data` from `skip` on, by arithmetic on one integer: 32 bits, a lane, per position.

    The lane of position p holds the word of its byte, rotated right by p. In this turning frame the hash of a window is
    a mere exclusive or of 48 lanes, which six shifts of the whole integer give; and that its low 15 bits are zero means
    that 15 other bits are, again turned by p.
    """
    turned, mask = _turned()
    buffer = bytearray(len(data) * _LANE)
    for turn in range(32):
        column = data[turn::32]
        for byte in range(_LANE):
            buffer[turn * _LANE + byte :: 32 * _LANE] = column.translate(turned[turn][byte])
    one = int.from_bytes(buffer, "little")
    two = one ^ one << 32
    four = two ^ two << 2 * 32
    eight = four ^ four << 4 * 32
    sixteen = eight ^ eight << 8 * 32
    window = sixteen ^ sixteen << 16 * 32 ^ sixteen << 32 * 32
    hashes = (window & mask & (1 << len(data) * 32) - 1).to_bytes(len(buffer), "little")
    zero = bytes(_LANE)
    at = hashes.find(zero, max(skip, WINDOW - 1) * _LANE)
    while at >= 0:
        lane = -(-at // _LANE)
        if hashes.startswith(zero, lane * _LANE):
            yield lane
            at = lane * _LANE + _LANE - 1
        at = hashes.find(zero, at + 1)


@cache
def _turned() -> tuple[list[list[bytes]], int]:
    """For each of 32 turns the four bytes of each word, as tables for `bytes.translate`; and the mask of all lanes."""
    words = [[_rotl(word, -turn) for word in TABLE] for turn in range(32)]
    tables = [[bytes(word >> 8 * byte & 0xFF for word in turn) for byte in range(_LANE)] for turn in words]
    masks = b"".join(_rotl(MASK, -turn).to_bytes(_LANE, "little") for turn in range(32))
    return tables, int.from_bytes(masks * ((_BATCH + 64) // 32), "little")


def _rotl(word: int, count: int) -> int:
    count %= 32
    return (word << count | word >> 32 - count) & _WORD
