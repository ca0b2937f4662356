# SPDX-License-Identifier: Apache-2.0
"""The chunker's twin cuts as zchunk's loop is defined, and the native kernel as its twin."""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Callable
from functools import cache, partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tools import native_kernels

from regraft.kernels import _twins
from regraft.kernels._buzhash import TABLE, WINDOW, hash_of, matching

#: Of matching positions: below 47 one that was fed twice hides the next.
PERIODS = (5, 16, 23, 24, 31, 45, 46, 47)

Cuts = Callable[[memoryview, bool], "array[int]"]

BOUNDS = (0, 1, 46, 47, 48, 49, 8191, 8192, 8193, 131071, 131072, 131073)


def definition(data: bytes, final: bool, refused: list[int] | None = None) -> array[int]:
    """libzck's loop byte by byte: a window, a fill count, a ring position, a hash; all zero after a cut.

    `refused` gets the positions at which a cut was refused.
    """
    lengths = array("I")
    start = position = 0
    window, fill, ring, rolled = bytearray(48), 0, 0, 0
    while position < len(data):
        byte = data[position]
        if fill < 48:
            window[fill] = byte
            fill += 1
            rolled ^= rotl(TABLE[byte], 48 - fill)
            reported = rolled if fill == 48 else 1
        else:
            rolled = rotl(rolled, 1) ^ rotl(TABLE[window[ring]], 16) ^ TABLE[byte]
            window[ring] = byte
            ring = (ring + 1) % 48
            reported = rolled
        if reported & 0x7FFF == 0 or position - start >= 131072:
            if position - start >= 8192:
                lengths.append(position - start)
                start = position
                window, fill, ring, rolled = bytearray(48), 0, 0, 0
            elif refused is not None:
                refused.append(position)
            # If refused, the window stays as it is. In both cases the same byte is fed again.
        else:
            position += 1
    if final and start < len(data):
        lengths.append(len(data) - start)
    return lengths


def rotl(word: int, count: int) -> int:
    count %= 32
    return (word << count | word >> 32 - count) & 0xFFFFFFFF


@cache
def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


@cache
def matching_windows() -> list[bytes]:
    """Windows at which the chunker wants to cut."""
    data = noise(1 << 19, 48)
    return [data[at + 1 - WINDOW : at + 1] for at in matching(memoryview(data))][:8]


@cache
def dense(period: int) -> bytes:
    """Bytes that, repeated, match every `period` positions, first at the 48th."""
    for seed in range(1000):
        units = [noise(1 << 14, seed)[at : at + period] for at in range(0, 1 << 14, period)]
        width = WINDOW + period
        data = b"".join((unit * WINDOW)[:width] for unit in units)
        for at in matching(memoryview(data)):
            if at % width >= WINDOW - 1 and at // width < len(units) - 1:
                return data[at + 1 - WINDOW :][:period]
    raise AssertionError("2**15 tries find about one")


@cache
def refused_twice() -> tuple[bytes, int, int]:
    """Bytes with three matches, each only found if the one before was fed twice, or not found because it was.

    The first is at 47; the second only in the window that holds the first twice; the third is one of the data, which
    the second hides. Returns the bytes and the places of the second and third.
    """
    for seed in range(10_000):
        data = matching_windows()[0] + noise(46, seed)
        refused: list[int] = []
        definition(data, False, refused)
        if len(refused) > 1 and refused[1] > 60 and len(list(matching(memoryview(data)))) == 1:
            break
    start, second = data[: refused[1] + 1], refused[1]
    tries = [start + noise(46, seed) for seed in range(20_000)]
    width = len(tries[0])
    for at in matching(memoryview(b"".join(tries))):
        if 47 + 47 <= at % width <= second + 46:
            return tries[at // width], second, at % width
    raise AssertionError("2**15 tries find about one")


def pieces() -> st.SearchStrategy[bytes]:
    """Parts of an image: zeros, repeats, noise, and windows that match at places of all kinds."""
    sizes = st.one_of(st.sampled_from(BOUNDS), st.integers(0, 40_000))
    windows = st.integers(0, 7).map(lambda row: matching_windows()[row])
    return st.one_of(
        st.builds(lambda size, byte: bytes([byte]) * size, sizes, st.integers(0, 255)),
        st.builds(lambda size, seed: noise(size, seed), sizes, st.integers(0, 3)),
        st.builds(
            lambda unit, size: (unit * (size // len(unit) + 1))[:size], st.binary(min_size=1, max_size=99), sizes
        ),
        st.builds(
            lambda window, gap, count: (window + gap) * count, windows, st.binary(max_size=60), st.integers(1, 90)
        ),
        st.builds(lambda period, size: (dense(period) * 9000)[:size], st.sampled_from(PERIODS), sizes),
        st.integers(8000, 8200).map(lambda size: b"\1" * (size - 60) + refused_twice()[0]),
        st.builds(lambda window, cut: window[cut:] + window, windows, st.integers(0, 47)),
        st.binary(max_size=200),
    )


def images() -> st.SearchStrategy[bytes]:
    return st.lists(pieces(), max_size=7).map(lambda parts: b"".join(parts)[:200_000])


def early(end: int, *more: int) -> bytes:
    """Noise in which matching windows end at these positions, before the least length of a chunk."""
    data = bytearray(noise(30_000, 77))
    for row, at in enumerate((end, *more)):
        data[at - 47 : at + 1] = matching_windows()[row]
    return bytes(data)


@pytest.fixture(params=["twin", "native", "native in small segments"])
def cuts(request: pytest.FixtureRequest) -> Cuts:
    """An implementation that gives the lengths of chunks."""
    if request.param == "twin":
        return _twins.zck_cuts
    native = native_kernels().zck_cuts
    return partial(native, segment=3000) if "small" in request.param else native


def test_no_window_of_equal_bytes_matches() -> None:
    """Why feeding a byte again and again comes to an end."""
    assert all(hash_of(bytes([byte]) * WINDOW) & 0x7FFF for byte in range(256))


def test_the_table_is_the_published_one() -> None:
    digest = hashlib.sha256(b"".join(word.to_bytes(4, "big") for word in TABLE)).hexdigest()
    assert digest == "639c1ee8734feb1bf879927c7a174b6fec1aceb0b1ce56b3148a8f04b060c25e"


def test_matching_is_a_function_of_48_bytes() -> None:
    data = noise(150_000, 5) + b"".join(matching_windows())
    found = [at for at in range(47, len(data)) if hash_of(data[at - 47 : at + 1]) & 0x7FFF == 0]
    assert list(matching(memoryview(data))) == found
    assert len(found) > 8


@pytest.mark.parametrize("end", [47, 48, 94, 4000, 8100, 8144, 8145, 8146, 8147, 8170, 8190, 8191, 8192, 8193, 8239])
@pytest.mark.parametrize("final", [True, False])
def test_a_match_below_the_least_length_is_fed_twice(cuts: Cuts, end: int, final: bool) -> None:
    for data in (early(end), early(end, min(end + 60, 20_000)), matching_windows()[0] * 600, early(end) * 3):
        assert cuts(memoryview(data), final) == definition(data, final)


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("before", [0, 1, 20, 8000, 8145])
def test_feeding_twice_hides_what_matches_within_the_window(cuts: Cuts, period: int, before: int) -> None:
    data = b"\1" * before + dense(period) * (30_000 // period)
    expected = definition(data, True)
    assert cuts(memoryview(data), True) == expected
    assert cuts(memoryview(data), False) == expected[:-1]


def test_what_is_refused_while_a_byte_is_there_twice_is_fed_twice_too(cuts: Cuts) -> None:
    data, second, third = refused_twice()
    for before in range(8192 - third, 8192 - second):
        image = b"\1" * before + data + bytes(20_000)
        assert before + third in matching(memoryview(image))
        assert list(definition(image, True)) == [len(image)]
        assert list(cuts(memoryview(image), True)) == [len(image)]


def test_the_tests_above_have_something_to_find() -> None:
    """The plain rolling hash, without feeding twice, gives other cuts."""
    moved = []
    for period in PERIODS:
        data = dense(period) * (30_000 // period)
        positions = list(matching(memoryview(data)))
        assert positions[:2] == [47, 47 + period]
        if definition(data, True)[0] != next(at for at in positions if at >= 8192):
            moved.append(period)
    assert len(moved) >= 3
    assert 47 not in moved


@pytest.mark.parametrize("size", BOUNDS)
@pytest.mark.parametrize("final", [True, False])
def test_lengths_around_every_bound(cuts: Cuts, size: int, final: bool) -> None:
    for data in (bytes(size), noise(131073, 9)[:size], bytes(131072) + noise(131073, 9)[:size]):
        assert cuts(memoryview(data), final) == definition(data, final)


@settings(deadline=None, max_examples=40)
@given(data=images(), final=st.booleans())
@example(data=noise(280_000, 1), final=True)
def test_the_twin_cuts_as_defined(data: bytes, final: bool) -> None:
    assert _twins.zck_cuts(memoryview(data), final) == definition(data, final)


@settings(deadline=None)
@given(
    data=images(),
    final=st.booleans(),
    threads=st.integers(1, 4),
    segment=st.sampled_from([1, 47, 48, 1000, 4096, 8192, 65_537, 1 << 20]),
    algorithm=st.sampled_from(["sha1", "sha256", "sha512", "sha512_128"]),
)
def test_native_is_its_twin(data: bytes, final: bool, threads: int, segment: int, algorithm: str) -> None:
    if segment < 1000:
        data = data[: 500 * segment]
    native = native_kernels().zck_index(memoryview(data), final, algorithm, threads, segment=segment)
    assert native == _twins.zck_index(memoryview(data), final, algorithm, 1)


@settings(deadline=None)
@given(data=images(), split=st.integers(0, 280_000))
def test_a_stream_is_cut_as_the_whole(data: bytes, split: int) -> None:
    """What is not consumed comes back with more data after it, and the cuts are the same."""
    head = _twins.zck_cuts(memoryview(data[:split]), False)
    rest = data[sum(head) :]
    assert head + _twins.zck_cuts(memoryview(rest), True) == _twins.zck_cuts(memoryview(data), True)


@settings(deadline=None)
@given(data=images())
def test_chunks_tile_the_data_and_keep_their_bounds(data: bytes) -> None:
    lengths, digests = _twins.zck_index(memoryview(data), True, "sha256", 1)
    assert sum(lengths) == len(data)
    assert all(8192 <= length <= 131072 for length in lengths[:-1])
    start, joined = 0, b""
    for length in lengths:
        joined += hashlib.sha256(data[start : start + length]).digest()
        start += length
    assert digests == joined
