# SPDX-License-Identifier: Apache-2.0
"""Units of every codec are decoded to exactly their length, whatever their stored bytes say."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import sys
import tracemalloc
import types
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import brotli
import lz4.block
import pytest
import zstandard

from regraft.errors import FormatError, LimitError, MissingError, UnsupportedError
from regraft.formats.codecs import NAMES, Decoder
from regraft.limits import DEFAULT

PLAIN = b"what changed moves " * 400 + random.Random(1).randbytes(700)


def streamed(data: bytes) -> bytes:
    """A frame without its content's size, as bita writes them."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(data) + compressor.flush()


def deflated(data: bytes) -> bytes:
    """As the kernel's `deflate` reads it: no header, a window of 2 KiB."""
    compressor = zlib.compressobj(wbits=-11)
    return compressor.compress(data) + compressor.flush()


def block(data: bytes) -> bytes:
    return bytes(lz4.block.compress(data, store_size=False))


ENCODERS = {
    "zstd": streamed, "brotli": brotli.compress, "xz": lzma.compress, "none": bytes, "deflate": deflated,
    "zlib": zlib.compress, "gzip": gzip.compress, "cacnk": streamed, "bzip2": bz2.compress, "lz4": block,
}  # fmt: skip
COMPRESSED = [name for name in ENCODERS if name != "none"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 5000, len(PLAIN), 3_000_000])
def test_a_unit_is_decoded(name: str, size: int) -> None:
    plain = (PLAIN * (size // len(PLAIN) + 1))[:size]
    decoder = Decoder(name)
    for _ in range(2):
        assert bytes(decoder.decode(memoryview(ENCODERS[name](plain)), size)) == plain


@pytest.mark.parametrize("name", NAMES)
def test_another_length_is_an_error(name: str) -> None:
    stored, decoder = ENCODERS[name](PLAIN), Decoder(name)
    for length in (1, len(PLAIN) - 1, len(PLAIN) + 1, 2 * len(PLAIN)):
        with pytest.raises(FormatError):
            decoder.decode(stored, length)


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_unit_that_is_cut_off_is_an_error(name: str) -> None:
    stored, decoder = ENCODERS[name](PLAIN), Decoder(name)
    for size in range(0, len(stored), 7):
        with pytest.raises(FormatError):
            decoder.decode(stored[:size], len(PLAIN))


@pytest.mark.parametrize("name", ["brotli", "xz", "deflate", "zlib", "gzip", "bzip2"])
def test_bytes_behind_a_unit_are_an_error(name: str) -> None:
    with pytest.raises(FormatError):
        Decoder(name).decode(ENCODERS[name](PLAIN) + b"more", len(PLAIN))


@pytest.mark.parametrize("name", COMPRESSED)
def test_nothing_but_our_errors_comes_of_flipped_bits(name: str) -> None:
    stored, decoder = ENCODERS[name](PLAIN), Decoder(name)
    for at in range(len(stored)):
        flipped = bytearray(stored)
        flipped[at] ^= 1 << at % 8
        with suppress(FormatError, LimitError):
            assert len(decoder.decode(flipped, len(PLAIN))) == len(PLAIN)


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_bomb_is_not_blown_up(name: str) -> None:
    stored, decoder = ENCODERS[name](bytes(64 << 20)), Decoder(name)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            decoder.decode(stored, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20  # xz has a dictionary of 8 MiB
    finally:
        tracemalloc.stop()


def test_xz_may_not_take_more_memory_than_allowed() -> None:
    stored = lzma.compress(PLAIN, preset=6)
    with pytest.raises(LimitError, match="xz_memory"):
        Decoder("xz", limits=replace(DEFAULT, xz_memory=1 << 20)).decode(stored, len(PLAIN))
    assert Decoder("xz").decode(lzma.compress(PLAIN, preset=9), len(PLAIN)) == PLAIN


@pytest.mark.parametrize("module", [None, types.SimpleNamespace(__version__="1.1.0")])
def test_without_a_usable_brotli_the_cure_is_named(monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    monkeypatch.setitem(sys.modules, "brotli", module)
    with pytest.raises(MissingError, match="brotli") as caught:
        Decoder("brotli")
    assert "regraft[bita]" in caught.value.cure


@pytest.mark.parametrize("encode", [streamed, zstandard.compress, lzma.compress, gzip.compress, bytes])
def test_a_chunk_file_of_casync_is_known_by_its_content(encode: Callable[[bytes], bytes]) -> None:
    assert bytes(Decoder("cacnk").decode(encode(PLAIN), len(PLAIN))) == PLAIN


@pytest.mark.parametrize("encode", [streamed, lzma.compress, gzip.compress])
def test_a_plain_chunk_may_hold_a_compressed_file(encode: Callable[[bytes], bytes]) -> None:
    for plain in (encode(PLAIN), encode(PLAIN) + b"more", encode(PLAIN)[:100]):
        assert bytes(Decoder("cacnk").decode(plain, len(plain))) == plain
        for length in (len(plain) - 1, len(plain) + 1):
            with pytest.raises(FormatError):
                Decoder("cacnk").decode(plain, length)


@pytest.mark.parametrize("encode", [streamed, lzma.compress, gzip.compress])
def test_a_chunk_file_that_is_a_bomb_takes_no_memory(encode: Callable[[bytes], bytes]) -> None:
    bomb = encode(bytes(200 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            Decoder("cacnk").decode(bomb, 1 << 16)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20  # xz has a dictionary
    finally:
        tracemalloc.stop()


def test_other_codecs_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="lzo"):
        Decoder("lzo")
    with pytest.raises(UnsupportedError, match="dictionary"):
        Decoder("brotli", dictionary=b"words")


@pytest.mark.parametrize("name", NAMES)
def test_where_the_format_does_not_tell_the_length_a_unit_may_hold_more(name: str) -> None:
    stored, decoder = ENCODERS[name](PLAIN), Decoder(name)
    for length in (1, 5000, len(PLAIN) - 1, len(PLAIN)):
        for room in (len(PLAIN), 3 * len(PLAIN)):
            assert bytes(decoder.decode(stored, length, room=room)) == PLAIN[:length]
        with pytest.raises(FormatError):
            decoder.decode(stored, length, room=len(PLAIN) - 1) if length < len(PLAIN) else decoder.decode(stored, 5)
    with pytest.raises(FormatError):
        decoder.decode(stored, len(PLAIN) + 1, room=3 * len(PLAIN))


def test_without_lz4_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lz4.block", None)
    with pytest.raises(MissingError, match="LZ4") as caught:
        Decoder("lz4")
    assert "regraft[lz4]" in caught.value.cure
