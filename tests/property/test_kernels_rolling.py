# SPDX-License-Identifier: Apache-2.0
"""bita's chunkers: the twin cuts as bita's loop is defined and as the vectors say, and native kernels as their twin."""

from __future__ import annotations

import hashlib
import random
from array import array
from functools import partial
from typing import Any, Protocol

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shared_vectors import generated, vectors
from tools import native_kernels

from regraft import kernels
from regraft.kernels import Rolling, _twins
from regraft.kernels._rolling import TABLE, hash_of


class Index(Protocol):
    def __call__(
        self, data: memoryview, kind: str, parameters: Any, place: Any, final: bool, algorithm: str | None,
        threads: int, /,
    ) -> tuple[array[int], bytes, int]: ...  # fmt: skip


@pytest.fixture(params=["twin", "native", "native in small segments"])
def index(request: pytest.FixtureRequest) -> Index:
    """An implementation."""
    if request.param == "twin":
        return _twins.rolling_index
    native: Index = native_kernels().rolling_index
    return partial(native, segment=3000) if "small" in request.param else native


def cuts(index: Index, data: bytes, chunker: Rolling, piece: int = 0) -> list[int]:
    """The lengths of the chunks of a stream that arrives in pieces; 0: at once."""
    parameters = (chunker.bits, chunker.minimum, chunker.maximum, chunker.window)
    lengths: list[int] = []
    start = known = carry = 0
    while True:
        arrived = min(len(data), known + (piece or len(data)))
        before = min(start, chunker.window - 1)
        found, _, carry = index(
            memoryview(data)[start - before : arrived], chunker.kind, parameters, (before, known - start, carry),
            arrived == len(data), None, 1,
        )  # fmt: skip
        lengths += found
        start += sum(found)
        known = arrived
        if arrived == len(data):
            return lengths


def definition(data: bytes, chunker: Rolling, *, counting: bool = True) -> list[int]:
    """bita's loop byte by byte. Without `counting` BuzHash feeds repeated bytes like any other."""
    window, mask = chunker.window, (1 << chunker.bits) - 1
    lengths: list[int] = []
    start = length = 0
    ring, oldest = bytearray(window), 0
    one, two = (31 * window, 31 * window * (window - 1)) if chunker.kind == "rollsum" else (0, 0)
    last = repeats = 0

    def feed(byte: int) -> int:
        nonlocal oldest, one, two, last, repeats
        repeats = repeats + 1 if byte == last else 0
        last = byte
        if chunker.kind == "buzhash" and counting and repeats >= window:
            return one
        gone, ring[oldest] = ring[oldest], byte
        oldest = (oldest + 1) % window
        if chunker.kind == "rollsum":
            one += byte - gone
            two += one - window * (gone + 31)
            return (one << 16 | two & 0xFFFF) & 0xFFFFFFFF
        one = rotl(one, 1) ^ rotl(TABLE[gone], window) ^ TABLE[byte]
        return one

    if chunker.kind == "buzhash":
        for byte in data[:window]:
            one ^= rotl(TABLE[byte], window - 1 - length)
            ring[length] = byte
            length += 1
    skipped = chunker.minimum - window
    while start + length < len(data):
        if length < skipped:
            length = min(skipped - 1, len(data) - start)
        while length < chunker.minimum - 1 and start + length < len(data):
            feed(data[start + length])
            length += 1
        while start + length < len(data):
            value = feed(data[start + length])
            length += 1
            if value & mask == mask or length >= chunker.maximum:
                lengths.append(length)
                start, length = start + length, 0
                break
    if start < len(data):
        lengths.append(len(data) - start)
    return lengths


def rotl(word: int, count: int) -> int:
    count %= 32
    return (word << count | word >> 32 - count) & 0xFFFFFFFF


def chunkers() -> st.SearchStrategy[Rolling]:
    return st.builds(
        Rolling,
        st.sampled_from(["rollsum", "buzhash"]),
        st.one_of(st.integers(1, 12), st.integers(13, 32)),
        st.one_of(st.integers(0, 80), st.integers(0, 3000)),
        st.one_of(st.integers(1, 100), st.integers(1, 6000)),
        st.one_of(st.sampled_from([1, 2, 16, 31, 32, 33, 64]), st.integers(1, 200)),
    )


def images() -> st.SearchStrategy[bytes]:
    sizes = st.one_of(st.integers(0, 200), st.integers(0, 6000))
    part = st.one_of(
        st.builds(lambda size, seed: random.Random(seed).randbytes(size), sizes, st.integers(0, 9)),
        st.builds(lambda size, byte: bytes([byte]) * size, sizes, st.sampled_from([0, 0, 0xFF, 7])),
        st.binary(max_size=100),
    )
    return st.lists(part, max_size=6).map(b"".join)


def after_init(stale: int, run: int, window: int = 16) -> bytes:
    """Zeros directly behind the first window, and noise."""
    return b"\1" * (window - 1) + bytes([stale]) + bytes(run) + random.Random(stale).randbytes(400)


def test_the_table_is_the_published_one() -> None:
    unseeded = b"".join((word ^ 0x10324195).to_bytes(4, "little") for word in TABLE)
    assert hashlib.sha256(unseeded).hexdigest().startswith("ab69ba5ee51896cd")
    assert len(set(TABLE)) == 255


def test_the_hash_of_a_window_has_its_known_value() -> None:
    assert hash_of(bytes([1, 2, 3, 4, 5])) == 1406929643


@pytest.mark.parametrize("piece", [0, 99_991])
def test_all_cuts_are_those_of_the_vectors(index: Index, piece: int) -> None:
    for case in vectors("bita-chunker.json")["cases"]:
        data = generated(case.get("input") or [])
        assert hashlib.blake2b(data).hexdigest().startswith(case["input_blake2b512_16"])
        chunker = Rolling(case["algorithm"], case["filter_bits"], case["min"], case["max"], case["window"])
        lengths = cuts(index, data, chunker, piece)
        joined = b"".join(length.to_bytes(4, "little") for length in lengths)
        assert len(lengths) == case["chunks"], case["name"]
        assert hashlib.sha256(joined).hexdigest() == case["lengths_u32le_sha256"], case["name"]


def test_digests_are_those_of_the_vectors() -> None:
    seen = 0
    for case in vectors("bita-chunker.json")["cases"]:
        if "chunk_blake2b512" not in case:
            continue
        chunker = Rolling(case["algorithm"], case["filter_bits"], case["min"], case["max"], case["window"])
        data = generated(case.get("input") or [])
        _, digests, _ = kernels.rolling_index(data, chunker, final=True, algorithm="blake2b512_128")
        assert digests.hex() == "".join(case["chunk_blake2b512"])
        seen += 1
    assert seen


@pytest.mark.parametrize("minimum", [0, 17, 32, 33, 34, 40, 120])
@pytest.mark.parametrize("run", [1, 14, 15, 16, 17, 18, 40, 700])
def test_zeros_behind_the_first_window_keep_its_last_byte(index: Index, minimum: int, run: int) -> None:
    for stale in range(0, 256, 5):
        for bits in (1, 3):
            chunker, data = Rolling("buzhash", bits, minimum, 400, 16), after_init(stale, run)
            assert cuts(index, data, chunker) == definition(data, chunker)
            assert cuts(index, data, chunker, 50) == definition(data, chunker)


def test_the_test_above_has_something_to_find() -> None:
    """Without the rule of repeats the cuts are others."""
    chunker, data = Rolling("buzhash", 3, 40, 400, 16), [after_init(stale, 700) for stale in range(0, 256, 5)]
    assert sum(definition(each, chunker) != definition(each, chunker, counting=False) for each in data) > 3


@settings(max_examples=150)
@given(data=images(), chunker=chunkers(), piece=st.integers(1, 5000))
@example(data=bytes(9000) + b"\1", chunker=Rolling("buzhash", 15, 0, 100, 16), piece=1000)
@example(data=random.Random(4).randbytes(9000), chunker=Rolling("rollsum", 17, 0, 9000, 4096), piece=4000)
def test_the_twin_cuts_as_defined(data: bytes, chunker: Rolling, piece: int) -> None:
    piece = max(piece, len(data) // 40)
    expected = definition(data, chunker)
    assert cuts(_twins.rolling_index, data, chunker) == expected
    assert cuts(_twins.rolling_index, data, chunker, piece) == expected


@given(
    data=images(),
    chunker=chunkers(),
    place=st.tuples(st.integers(0, 100), st.integers(0, 100), st.sampled_from([0, 1, 14, 0x1234])),
    final=st.booleans(),
    threads=st.integers(1, 4),
    segment=st.sampled_from([1, 16, 1000, 4096, 1 << 20]),
    algorithm=st.sampled_from(["sha256", "blake2b512", "blake2b512_128", "blake2b512_32", None]),
)
def test_native_is_its_twin(
    data: bytes, chunker: Rolling, place: tuple[int, int, int], final: bool, threads: int, segment: int,
    algorithm: str | None,
) -> None:  # fmt: skip
    if place[0] + place[1] > len(data):
        place = (0, 0, place[2])
    if place[2] > 1:  # more zeros fed than a window has cannot be
        place = (*place[:2], 14 | min(place[2] >> 9, chunker.window) << 9)
    parameters = (chunker.bits, chunker.minimum, chunker.maximum, chunker.window)
    arguments = (memoryview(data), chunker.kind, parameters, place, final, algorithm)
    native = native_kernels().rolling_index(*arguments, threads, segment=segment)
    assert native == _twins.rolling_index(*arguments, 1)


@given(data=images(), chunker=chunkers())
def test_chunks_tile_the_data_and_keep_their_bounds(data: bytes, chunker: Rolling) -> None:
    lengths, digests, _ = kernels.rolling_index(data, chunker, final=True, algorithm="blake2b512")
    assert sum(lengths) == len(data)
    longest = max(chunker.maximum, chunker.minimum, chunker.window + 1)
    assert all(chunker.minimum <= length <= longest for length in lengths[:-1])
    start, joined = 0, b""
    for length in lengths:
        joined += hashlib.blake2b(data[start : start + length]).digest()
        start += length
    assert digests == joined


def test_fixed_chunks_end_every_so_many_bytes() -> None:
    lengths, digests = kernels.fixed_index(b"abcdefg", 3, final=True, algorithm="sha256")
    assert list(lengths) == [3, 3, 1]
    assert digests == b"".join(hashlib.sha256(part).digest() for part in (b"abc", b"def", b"g"))
    assert list(kernels.fixed_index(b"abcdefg", 3, final=False, algorithm="sha256")[0]) == [3, 3]
    assert list(kernels.fixed_index(b"abcdef", 3, final=True, algorithm="sha256")[0]) == [3, 3]
    assert list(kernels.fixed_index(b"", 3, final=True, algorithm="sha256")[0]) == []
    with pytest.raises(ValueError, match="byte"):
        kernels.fixed_index(b"", 0, final=True, algorithm="sha256")


@pytest.mark.parametrize(
    "parameters",
    [("adler", 8, 1, 9, 4), ("rollsum", 0, 1, 9, 4), ("rollsum", 33, 1, 9, 4), ("buzhash", 8, 1, 0, 4),
     ("buzhash", 8, 1, 9, 0), ("buzhash", 8, 1, 9, 4097)],
)  # fmt: skip
def test_impossible_parameters_are_refused(index: Index, parameters: tuple[str, int, int, int, int]) -> None:
    with pytest.raises(ValueError):
        index(memoryview(b"abc"), parameters[0], parameters[1:], (0, 0, 0), True, None, 1)


def test_a_place_outside_of_the_data_is_refused(index: Index) -> None:
    with pytest.raises(ValueError):
        index(memoryview(b"abc"), "rollsum", (8, 1, 9, 4), (2, 2, 0), True, None, 1)


@pytest.mark.parametrize("label", ["blake2b512_", "blake2b512_0", "blake2b512_12", "blake2b512_512", "blake2b512_x"])
def test_digests_are_truncated_to_whole_bytes(index: Index, label: str) -> None:
    with pytest.raises(ValueError, match="blake2b512_"):
        index(memoryview(b"abc"), "rollsum", (8, 1, 9, 4), (0, 0, 0), True, label, 1)
