# SPDX-License-Identifier: Apache-2.0
"""The kernels in Python: what the native ones are held against, and what runs where those are not built."""

from __future__ import annotations

import hashlib
from array import array
from typing import Any

from regraft.errors import MissingError
from regraft.kernels import _casync, _rolling
from regraft.kernels._buzhash import cuts
from regraft.kernels._ordering import merge_check, merge_order

__all__ = [
    "NATIVE", "build_info", "data_runs", "digest_ranges", "merge_check", "merge_order", "rolling_index", "zck_cuts",
    "zck_index",
]  # fmt: skip

NATIVE = False

#: Label to name in hashlib and bytes kept.
_ALGORITHMS = {
    "sha1": ("sha1", 20), "sha256": ("sha256", 32), "sha512": ("sha512", 64), "sha512_128": ("sha512", 16),
    "sha512_256": ("sha512_256", 32),
}  # fmt: skip


def zck_index(data: memoryview, final: bool, algorithm: str, threads: int) -> tuple[array[int], bytes]:
    lengths = cuts(data, final)
    return lengths, digest_ranges(data, lengths, algorithm, threads)


def zck_cuts(data: memoryview, final: bool) -> array[int]:
    return cuts(data, final)


def rolling_index(
    data: memoryview,
    kind: str,
    parameters: tuple[int, int, int, int],
    place: tuple[int, int, int],
    final: bool,
    algorithm: str | None,
    threads: int,
) -> tuple[array[int], bytes, int]:
    bits, _, maximum, window = parameters
    if kind not in ("rollsum", "buzhash"):
        raise ValueError(f"unknown rolling hash {kind!r}")
    if not (1 <= bits <= 32 and 1 <= window <= _rolling.MAXIMUM_WINDOW and maximum > 0):
        raise ValueError("no chunker has these parameters")
    if place[0] + place[1] > len(data):
        raise ValueError("the place is outside of the data")
    lengths, carry = _rolling.cuts(data, kind, parameters, place, final)
    digests = b"" if algorithm is None else digest_ranges(data[place[0] :], lengths, algorithm, threads)
    return lengths, digests, carry


def casync_index(
    data: memoryview,
    parameters: tuple[int, int, int],
    searched: int,
    final: bool,
    algorithm: str | None,
    threads: int,
) -> tuple[array[int], bytes]:
    minimum, maximum, discriminator = parameters
    if not (1 <= minimum <= maximum < 1 << 32 and 1 <= discriminator < 1 << 32):
        raise ValueError("no chunker has these parameters")
    if searched > len(data):
        raise ValueError("the place is outside of the data")
    lengths = _casync.cuts(data, parameters, searched, final)
    return lengths, b"" if algorithm is None else digest_ranges(data, lengths, algorithm, threads)


def digest_ranges(data: memoryview, lengths: array[int], algorithm: str, _threads: int) -> bytes:
    name, size = _algorithm(algorithm)
    if sum(lengths) > len(data):
        raise ValueError("the ranges end behind the data")
    digests, start = [], 0
    for length in lengths:
        digests.append(hashlib.new(name, data[start : start + length], usedforsecurity=False).digest()[:size])
        start += length
    return b"".join(digests)


def _algorithm(label: str) -> tuple[str, int]:
    """Name in hashlib and bytes kept. Raises ValueError."""
    name, _, bits = label.partition("_")
    if name == "blake2b512":
        if label == name:
            return "blake2b", 64
        if bits.isdecimal() and int(bits) % 8 == 0 and 8 <= int(bits) < 512:
            return "blake2b", int(bits) // 8
    if label not in _ALGORITHMS:
        raise ValueError(f"unknown digest algorithm {label!r}")
    if label == "sha512_256" and label not in hashlib.algorithms_available:
        raise MissingError("this Python's OpenSSL has no SHA-512/256", cure="install OpenSSL 1.1.1 or later")
    return _ALGORITHMS[label]


def data_runs(data: memoryview, block: int) -> array[int]:
    runs = array("Q")
    zeros = bytes(block)
    for start in range(0, len(data), block):
        piece = bytes(data[start : start + block])
        end = start + len(piece)
        if piece == zeros[: len(piece)]:
            continue
        if runs and runs[-1] == start:
            runs[-1] = end
        else:
            runs.extend((start, end))
    return runs


def build_info() -> dict[str, Any]:
    return {}
