# SPDX-License-Identifier: Apache-2.0
"""Kernels: any bytes are cut into chunks that tile them, and native kernels give what their twins give."""

from __future__ import annotations

import importlib.util
from random import Random

from regraft.kernels import _twins

if importlib.util.find_spec("regraft_native"):
    from regraft.kernels import _native
else:
    _native = None


def target(data: bytes) -> None:
    # Sixteen times the bytes: a chunk has 8192 at least.
    view = memoryview(data * 16)
    index = _twins.zck_index(view, True, "sha256", 1)
    assert sum(index[0]) == len(view)
    runs = _twins.data_runs(view, 512)
    kind = "buzhash" if data[:1] < b"\x80" else "rollsum"
    parameters = (1 + data.count(1) % 12, data.count(2), 1 + 9 * data.count(3), 1 + data.count(4) % 40)
    rolled = _twins.rolling_index(memoryview(data), kind, parameters, (0, 0, 0), True, "blake2b512_128", 1)
    assert sum(rolled[0]) == len(data)
    sizes = (1 + data.count(5), 1 + data.count(5) + 99 * data.count(6), 1 + data.count(7))
    cut = _twins.casync_index(memoryview(data), sizes, 0, True, "sha256", 1)
    assert sum(cut[0]) == len(data)
    if _native is not None:
        assert _native.casync_index(memoryview(data), sizes, 0, True, "sha256", 2, segment=999) == cut
        assert _native.zck_index(view, True, "sha256", 2, segment=5000) == index
        assert _native.data_runs(view, 512) == runs
        arguments = (memoryview(data), kind, parameters, (0, 0, 0), True, "blake2b512_128")
        assert _native.rolling_index(*arguments, 2, segment=999) == rolled


def seeds() -> list[bytes]:
    return [b"", bytes(9000), Random(1).randbytes(20_000), b"regraft" * 800]
