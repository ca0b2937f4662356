# SPDX-License-Identifier: Apache-2.0
"""Digests of ranges and runs of data: native against twin, and both against what they mean."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import native_kernels

from regraft.kernels import _twins

ALGORITHMS = ["sha1", "sha256", "sha512", "sha512_128"]


@settings(deadline=None)
@given(
    data=st.binary(max_size=3000),
    lengths=st.lists(st.integers(0, 400), max_size=20),
    algorithm=st.sampled_from(ALGORITHMS),
    threads=st.integers(0, 3),
)
def test_digests_of_ranges(data: bytes, lengths: list[int], algorithm: str, threads: int) -> None:
    arguments = (memoryview(data), array("I", lengths), algorithm, threads)
    if sum(lengths) > len(data):
        for kernels in (_twins, native_kernels()):
            with pytest.raises(ValueError, match="end behind the data"):
                kernels.digest_ranges(*arguments)
    else:
        assert native_kernels().digest_ranges(*arguments) == _twins.digest_ranges(*arguments)


def sparse() -> st.SearchStrategy[bytes]:
    zeros = st.integers(0, 5000).map(bytes)
    return st.lists(st.one_of(zeros, st.binary(max_size=64)), max_size=12).map(b"".join)


@settings(deadline=None)
@given(data=sparse(), block=st.sampled_from([1, 2, 63, 64, 65, 512, 4096, 1 << 20]))
def test_runs_of_data(data: bytes, block: int) -> None:
    runs = _twins.data_runs(memoryview(data), block)
    assert native_kernels().data_runs(memoryview(data), block) == runs
    assert list(runs) == sorted(set(runs)), "runs are apart, else they were one"
    inside = {byte for start, end in zip(runs[::2], runs[1::2], strict=True) for byte in range(start, end)}
    for start in range(0, len(data), block):
        positions = range(start, min(start + block, len(data)))
        assert any(data[start : start + block]) == (start in inside)
        assert (positions[-1] in inside) == (start in inside)
