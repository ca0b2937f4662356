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
    if _native is not None:
        assert _native.zck_index(view, True, "sha256", 2, segment=5000) == index
        assert _native.data_runs(view, 512) == runs


def seeds() -> list[bytes]:
    return [b"", bytes(9000), Random(1).randbytes(20_000), b"regraft" * 800]
