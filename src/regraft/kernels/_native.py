# SPDX-License-Identifier: Apache-2.0
"""The native kernels: bytes of columns made into arrays."""

from __future__ import annotations

from array import array
from typing import Any

import regraft_native

NATIVE = True


def zck_index(data: memoryview, final: bool, algorithm: str, threads: int, **segment: int) -> tuple[array[int], bytes]:
    """`segment` (bytes searched at a time) is for tests: it changes the way, never the result."""
    lengths, digests = regraft_native.zck_index(data, final, algorithm, max(threads, 0), **segment)
    return array("I", lengths), digests


def zck_cuts(data: memoryview, final: bool, threads: int = 0, **segment: int) -> array[int]:
    lengths, _none = regraft_native.zck_index(data, final, None, threads, **segment)
    return array("I", lengths)


def rolling_index(
    data: memoryview,
    kind: str,
    parameters: tuple[int, int, int, int],
    place: tuple[int, int, int],
    final: bool,
    algorithm: str | None,
    threads: int,
    **segment: int,
) -> tuple[array[int], bytes, int]:
    lengths, digests, carry = regraft_native.rolling_index(
        data, kind, parameters, place, final, algorithm, max(threads, 0), **segment
    )
    return array("I", lengths), digests, carry


def casync_index(
    data: memoryview,
    parameters: tuple[int, int, int],
    searched: int,
    final: bool,
    algorithm: str | None,
    threads: int,
    **segment: int,
) -> tuple[array[int], bytes]:
    lengths, digests = regraft_native.casync_index(
        data, parameters, searched, final, algorithm, max(threads, 0), **segment
    )
    return array("I", lengths), digests


def digest_ranges(data: memoryview, lengths: array[int], algorithm: str, threads: int) -> bytes:
    digests: bytes = regraft_native.digest_ranges(data, lengths.tobytes(), algorithm, max(threads, 0))
    return digests


def data_runs(data: memoryview, block: int) -> array[int]:
    return array("Q", regraft_native.data_runs(data, block))


def merge_order(
    bounds: array[int], at: array[int], role: bytes, cost: array[int], sizes: tuple[int, int, int], edges: int
) -> tuple[array[int], array[int], bytes, array[int], int]:
    order, starts, journaled, converted, needed = regraft_native.merge_order(bounds, at, role, cost, sizes, edges)
    return array("I", order), array("I", starts), journaled, array("I", converted), needed


def merge_check(
    bounds: array[int], at: array[int], role: bytes, columns: tuple[array[int], array[int], bytes], window: int
) -> int:
    position: int | None = regraft_native.merge_check(bounds, at, role, columns, window)
    return -1 if position is None else position


def build_info() -> dict[str, Any]:
    info: dict[str, Any] = regraft_native.build_info()
    return info
