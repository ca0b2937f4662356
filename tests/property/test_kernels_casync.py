# SPDX-License-Identifier: Apache-2.0
"""casync's chunker: the twin cuts as its loop is defined and as the vectors say, and native kernels as their twin."""

from __future__ import annotations

import hashlib
import random
from array import array
from functools import partial
from typing import Protocol

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shared_vectors import generated, vectors
from tools import native_kernels

from regraft import kernels
from regraft.kernels import _twins
from regraft.kernels._buzhash import TABLE, WINDOW, hash_of
from regraft.kernels._casync import hashes

Parameters = tuple[int, int, int]


class Index(Protocol):
    def __call__(
        self,
        data: memoryview,
        parameters: Parameters,
        searched: int,
        final: bool,
        algorithm: str | None,
        threads: int,
        /,
    ) -> tuple[array[int], bytes]: ...


@pytest.fixture(params=["twin", "native", "native in small segments"])
def index(request: pytest.FixtureRequest) -> Index:
    """An implementation."""
    if request.param == "twin":
        return _twins.casync_index
    native: Index = native_kernels().casync_index
    return partial(native, segment=3000) if "small" in request.param else native


def cuts(index: Index, data: bytes, parameters: Parameters, piece: int = 0) -> list[int]:
    """The lengths of all chunks, of data that arrives in pieces."""
    lengths: list[int] = []
    start = known = 0
    while True:
        arrived = min(known + (piece or len(data)), len(data))
        view = memoryview(data)[start:arrived]
        found, _ = index(view, parameters, known - start, arrived == len(data), None, 2)
        lengths += found
        start += sum(found)
        known = arrived
        if arrived == len(data):
            return lengths


def definition(data: bytes, parameters: Parameters) -> list[int]:
    """casync's loop: a window that is filled anew for each chunk, tested when full and after each further byte."""
    minimum, maximum, discriminator = parameters
    lengths: list[int] = []
    start = 0
    for end in range(1, len(data) + 1):
        length = end - start
        if length >= WINDOW:
            remainder = hash_of(data[end - WINDOW : end]) % discriminator
            if length >= maximum or (length >= minimum and remainder == discriminator - 1):
                lengths.append(length)
                start = end
    return lengths + ([len(data) - start] if start < len(data) else [])


def rules() -> st.SearchStrategy[Parameters]:
    sizes = st.tuples(st.integers(1, 700), st.integers(1, 700)).map(sorted)
    divisors = st.one_of(st.integers(1, 300), st.sampled_from([1, 2, 3075, 49535, 1 << 31, (1 << 32) - 1]))
    return st.builds(lambda pair, divisor: (*pair, divisor), sizes, divisors)


def images() -> st.SearchStrategy[bytes]:
    sizes = st.one_of(st.integers(0, 200), st.integers(0, 3000))
    part = st.one_of(
        st.builds(lambda size, seed: random.Random(seed).randbytes(size), sizes, st.integers(0, 9)),
        st.builds(lambda size, byte: bytes([byte]) * size, sizes, st.sampled_from([0, 0, 0xFF, 7])),
        st.binary(max_size=100),
    )
    return st.lists(part, max_size=4).map(b"".join)


def test_the_table_is_the_published_one() -> None:
    joined = b"".join(word.to_bytes(4, "little") for word in TABLE)
    assert hashlib.sha256(joined).hexdigest() == vectors("rolling-hash-tables.json")["casync_sha256_of_u32le"]


@pytest.mark.parametrize("size", [48, 49, 79, 80, 81, 200, 5000])
def test_many_hashes_at_once_are_those_of_one_window_at_a_time(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert hashes(data) == tuple(hash_of(data[end - WINDOW : end]) for end in range(WINDOW, size + 1))


@pytest.mark.parametrize("piece", [0, 99_991])
def test_all_cuts_are_those_of_the_vectors(index: Index, piece: int) -> None:
    for case in vectors("casync-chunker.json")["cases"]:
        if case["min"] == case["max"]:
            continue  # is of a fixed size
        data = generated(case.get("input") or [])
        lengths = cuts(index, data, (case["min"], case["max"], case["discriminator"]), piece)
        joined = b"".join(length.to_bytes(4, "little") for length in lengths)
        assert len(lengths) == case["chunks"], case["name"]
        assert hashlib.sha256(joined).hexdigest() == case["lengths_u32le_sha256"], case["name"]


@settings(max_examples=100)
@given(data=images(), parameters=rules(), piece=st.integers(1, 5000))
@example(data=bytes(9000), parameters=(1, 700, 1), piece=1000)
def test_the_twin_cuts_as_defined(data: bytes, parameters: Parameters, piece: int) -> None:
    piece = max(piece, len(data) // 40)
    expected = definition(data, parameters)
    assert cuts(_twins.casync_index, data, parameters) == expected
    assert cuts(_twins.casync_index, data, parameters, piece) == expected


@given(
    data=images(),
    parameters=rules(),
    searched=st.integers(0, 200),
    final=st.booleans(),
    threads=st.integers(1, 4),
    segment=st.sampled_from([1, 16, 1000, 4096, 1 << 20]),
    algorithm=st.sampled_from(["sha256", "sha512_256", "blake2b512_128", None]),
)
def test_native_is_its_twin(
    data: bytes, parameters: Parameters, searched: int, final: bool, threads: int, segment: int, algorithm: str | None
) -> None:
    arguments = (memoryview(data), parameters, min(searched, len(data)), final, algorithm)
    native = native_kernels().casync_index(*arguments, threads, segment=segment)
    assert native == _twins.casync_index(*arguments, 1)


def test_digests_are_those_of_the_chunks() -> None:
    data = random.Random(1).randbytes(30_000)
    lengths, digests = kernels.casync_index(data, 100, 900, 300, final=True, algorithm="sha512_256")
    start, joined = 0, b""
    for length in lengths:
        joined += hashlib.new("sha512_256", data[start : start + length]).digest()
        start += length
    assert digests == joined
    assert start == len(data)


@pytest.mark.parametrize("parameters", [(0, 9, 4), (9, 8, 4), (1, 9, 0), (1, 1 << 32, 4)])
def test_impossible_parameters_are_refused(index: Index, parameters: Parameters) -> None:
    with pytest.raises(ValueError):
        index(memoryview(b"abc"), parameters, 0, True, None, 1)


def test_a_place_outside_of_the_data_is_refused(index: Index) -> None:
    with pytest.raises(ValueError):
        index(memoryview(b"abc"), (1, 9, 4), 4, True, None, 1)
