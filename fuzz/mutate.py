# SPDX-License-Identifier: Apache-2.0
"""A small mutator: from some inputs, others like them. The same generator state gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

#: No input grows beyond this, in bytes.
LONGEST = 1 << 16

#: Numbers at which code that counts goes wrong.
NUMBERS = (
    0,
    1,
    9,
    10,
    47,
    48,
    100,
    4096,
    *((1 << power) + step for power in (7, 8, 15, 16, 31, 32, 63, 64) for step in (-1, 0, 1)),
)

#: Text that formats give a meaning.
TOKENS = (
    *(bytes([byte]) for byte in b"\0\n/;:,=(){}[]\"'\\#\xff"),
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"--",
        b"..",
        b"../",
        b"/*",
        b"*/",
        b"-1",
        b"0x",
        b"1e999",
        b"\xc3\x28",
        b"bytes ",
        b"0-0/*",
    ),
    *(b"\0ZCK1", b"\0ZHR1", b"070701", b"070702", b"TRAILER!!!", b"\x28\xb5\x2f\xfd"),
)


def mutate(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """`data`, changed in one to several places; some changes take a part of one of the `others`."""
    changed = bytearray(data)
    for _ in range(1 << random.choice((0, 0, 0, 1, 1, 2, 3))):
        random.choice(CHANGES)(changed, others, random)
    return bytes(changed[:LONGEST])


def _somewhere(data: bytearray, random: Random) -> int:
    """A place; headers are near the start, so every second time one there."""
    end = len(data) if random.random() < 0.5 else min(len(data), 256)
    return random.randint(0, end)


def _flip(data: bytearray, _others: Sequence[bytes], random: Random) -> None:
    at = _somewhere(data, random)
    if at < len(data):
        data[at] ^= 1 << random.randrange(8)


def _set(data: bytearray, _others: Sequence[bytes], random: Random) -> None:
    at = _somewhere(data, random)
    data[at : at + 1] = bytes([random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))])


def _truncate(data: bytearray, _others: Sequence[bytes], random: Random) -> None:
    del data[_somewhere(data, random) :]


def _remove(data: bytearray, _others: Sequence[bytes], random: Random) -> None:
    at = _somewhere(data, random)
    del data[at : at + random.choice((1, 1, 2, 4, 8, random.randint(1, 512)))]


def _insert(data: bytearray, _others: Sequence[bytes], random: Random) -> None:
    at = _somewhere(data, random)
    data[at:at] = random.choice((random.randbytes(random.randint(1, 16)), bytes(random.randint(1, 64))))


def _repeat(data: bytearray, _others: Sequence[bytes], random: Random) -> None:
    at = _somewhere(data, random)
    data[at:at] = data[at : at + random.randint(1, 64)] * random.choice((1, 2, 3, 100))


def _token(data: bytearray, _others: Sequence[bytes], random: Random) -> None:
    at, token = _somewhere(data, random), random.choice(TOKENS)
    data[at : at + random.choice((0, len(token)))] = token


def _number(data: bytearray, _others: Sequence[bytes], random: Random) -> None:
    at, number, size = _somewhere(data, random), random.choice(NUMBERS), random.choice((1, 2, 4, 8))
    form = random.randrange(4)
    if form == 0:
        word = b"%d" % number
    elif form == 1:
        word = b"%08x" % (number % (1 << 32))
    else:
        word = (number % (1 << 8 * size)).to_bytes(size, "big" if form == 2 else "little")
    data[at : at + random.choice((0, len(word)))] = word


def _splice(data: bytearray, others: Sequence[bytes], random: Random) -> None:
    other = random.choice(others) if others else b""
    start = random.randint(0, len(other))
    part = other[start : start + random.choice((8, 64, 1024, LONGEST))]
    at = _somewhere(data, random)
    data[at : at + random.choice((0, len(part), len(data)))] = part


CHANGES: tuple[Callable[[bytearray, Sequence[bytes], Random], None], ...] = (
    _flip, _flip, _set, _truncate, _remove, _insert, _repeat, _token, _number, _number, _splice,
)  # fmt: skip
