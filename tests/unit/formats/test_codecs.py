# SPDX-License-Identifier: Apache-2.0
"""Units decode to exactly what they should, or not at all."""

from __future__ import annotations

import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import zstandard

from regraft.errors import FormatError, UnsupportedError
from regraft.formats.codecs import Decoder

DATA = b"".join(random.Random(1).choices([b"alpha ", b"beta ", b"gamma "], k=2000))


def zstd(data: bytes, *, size: bool = True, **settings: object) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(write_content_size=size, **settings)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def test_stored_as_it_is() -> None:
    assert Decoder("none").decode(DATA, len(DATA)) == DATA
    with pytest.raises(FormatError):
        Decoder("none").decode(DATA, len(DATA) + 1)


@pytest.mark.parametrize("size", [True, False])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_zstd_with_and_without_a_size_in_the_frame(size: bool, kind: type) -> None:
    assert Decoder("zstd").decode(kind(zstd(DATA, size=size)), len(DATA)) == DATA


@pytest.mark.parametrize("size", [True, False])
@pytest.mark.parametrize("difference", [-1, 1, 1 << 20])
def test_another_length_than_announced(size: bool, difference: int) -> None:
    with pytest.raises(FormatError, match="a unit of"):
        Decoder("zstd").decode(zstd(DATA, size=size), len(DATA) + difference)


@pytest.mark.parametrize("size", [True, False])
def test_every_truncation_and_flip_is_typed(size: bool) -> None:
    stored, decoder = zstd(DATA[:500], size=size), Decoder("zstd")
    for end in range(len(stored)):
        with pytest.raises(FormatError):
            decoder.decode(stored[:end], 500)
    for bit in range(8 * len(stored)):
        data = bytearray(stored)
        data[bit // 8] ^= 1 << bit % 8
        with suppress(FormatError):
            assert len(decoder.decode(data, 500)) == 500
    assert decoder.decode(stored, 500) == DATA[:500]


def test_bytes_after_the_frame_are_refused() -> None:
    with pytest.raises(FormatError):
        Decoder("zstd").decode(zstd(DATA) + b"more", len(DATA))


@pytest.mark.parametrize("size", [True, False])
def test_a_bomb_takes_no_more_room_than_announced(size: bool) -> None:
    bomb = zstd(bytes(200 << 20), size=size, window_log=20)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            Decoder("zstd").decode(bomb, 10_000)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_window_larger_than_any_chunk_is_refused() -> None:
    stream = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    ).compressobj()
    stored = stream.compress(DATA) + stream.flush()
    with pytest.raises(FormatError, match=r"memory|window"):
        Decoder("zstd").decode(stored, len(DATA))


def test_a_dictionary_is_needed_and_used() -> None:
    words = zstandard.ZstdCompressionDict(DATA[:3000], dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    stored = zstandard.ZstdCompressor(dict_data=words).compress(DATA[1000:2500])
    assert Decoder("zstd", dictionary=DATA[:3000]).decode(stored, 1500) == DATA[1000:2500]
    with pytest.raises(FormatError):
        Decoder("zstd").decode(stored, 1500)


def test_a_dictionary_that_is_none_is_a_format_error() -> None:
    with pytest.raises(FormatError):
        Decoder("zstd", dictionary=b"\x37\xa4\x30\xec" + bytes(100)).decode(zstd(DATA), len(DATA))


def test_threads_share_a_decoder() -> None:
    decoder, stored = Decoder("zstd"), zstd(DATA)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: decoder.decode(stored, len(DATA)) == DATA, range(200)))


def test_a_codec_that_regraft_does_not_have() -> None:
    with pytest.raises(UnsupportedError, match="lzma"):
        Decoder("lzma")
