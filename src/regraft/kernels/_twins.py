# SPDX-License-Identifier: Apache-2.0
"""The kernels in Python: what the native ones are held against, and what runs where those are not built."""

from __future__ import annotations

import hashlib
from array import array
from typing import Any

from regraft.kernels._buzhash import cuts

NATIVE = False

#: Label to name in hashlib and bytes kept.
_ALGORITHMS = {"sha1": ("sha1", 20), "sha256": ("sha256", 32), "sha512": ("sha512", 64), "sha512_128": ("sha512", 16)}


def zck_index(data: memoryview, final: bool, algorithm: str, threads: int) -> tuple[array[int], bytes]:
    lengths = cuts(data, final)
    return lengths, digest_ranges(data, lengths, algorithm, threads)


def zck_cuts(data: memoryview, final: bool) -> array[int]:
    return cuts(data, final)


def digest_ranges(data: memoryview, lengths: array[int], algorithm: str, _threads: int) -> bytes:
    if algorithm not in _ALGORITHMS:
        raise ValueError(f"unknown digest algorithm {algorithm!r}")
    if sum(lengths) > len(data):
        raise ValueError("the ranges end behind the data")
    name, size = _ALGORITHMS[algorithm]
    digests, start = [], 0
    for length in lengths:
        digests.append(hashlib.new(name, data[start : start + length], usedforsecurity=False).digest()[:size])
        start += length
    return b"".join(digests)


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
