# SPDX-License-Identifier: Apache-2.0
"""casync indexes: what is read from them and written, and that nothing they claim is believed."""

from __future__ import annotations

import hashlib
import struct
from array import array
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate

import pytest
from shared_vectors import generated, vectors

from regraft.engine.chunkers import named
from regraft.errors import FormatError, LimitError, RegraftError, UnsupportedError
from regraft.formats import caibx
from regraft.formats.caibx import Header, Sizes, build_header, parse_header
from regraft.limits import DEFAULT
from regraft.model import Addressing, Algorithm, DigestColumn, Kind

SIZES = Sizes(1000, 4000, 16000)


def header(*lengths: int, algorithm: Algorithm = Algorithm.SHA256, sizes: Sizes = SIZES) -> Header:
    digests = DigestColumn(algorithm, b"".join(algorithm.of(bytes([n])) for n in range(len(lengths))))
    return Header(sizes, array("Q", accumulate(lengths, initial=0)), digests)


def with_ends(*ends: int) -> bytes:
    """An index with these ends of chunks, whatever they are."""
    content = bytearray(build_header(header(*([1] * len(ends)))))
    for number, end in enumerate(ends):
        struct.pack_into("<Q", content, 64 + 40 * number, end)
    return bytes(content)


def test_every_index_of_the_vectors_is_made_and_read() -> None:
    whole = 0
    for case in vectors("casync-chunker.json")["cases"]:
        data = generated(case.get("input") or [])
        sizes = Sizes(case["min"], case["avg"], case["max"])
        if not sizes.fixed:
            assert sizes.discriminator == case["discriminator"], case["name"]
        algorithm = Algorithm.SHA512_256 if int(case["feature_flags"], 16) & 1 << 61 else Algorithm.SHA256
        lengths, digests = named(sizes.label).session(algorithm, 0)(memoryview(data), 0, 0, True)
        made = Header(sizes, array("Q", accumulate(lengths, initial=0)), DigestColumn(algorithm, digests))
        content = build_header(made)
        assert hashlib.sha256(content).hexdigest() == case["index_sha256"], case["name"]
        assert len(content) == case["index_size"] == made.size
        assert parse_header(content) == made
        assert algorithm.of(data).hex() == case["digest_printed"]
        if "index_hex" in case:
            assert content.hex() == case["index_hex"]
            whole += 1
    assert whole


@pytest.mark.parametrize("algorithm", [Algorithm.SHA256, Algorithm.SHA512_256], ids=str)
@pytest.mark.parametrize("lengths", [(), (1,), (16000, 1000, 1000, 7)])
def test_an_index_comes_back(lengths: tuple[int, ...], algorithm: Algorithm) -> None:
    made = header(*lengths, algorithm=algorithm)
    found = parse_header(build_header(made))
    assert found == made
    assert (found.image_size, len(found)) == (sum(lengths), len(lengths))
    assert found.digest == Algorithm.SHA256.of(build_header(made))


def test_the_discriminator_stays_between_the_sizes() -> None:
    assert Sizes(1, 4096, 9000).discriminator == 3075
    assert Sizes(4000, 4096, 9000).discriminator == 4000
    assert Sizes(1, 8 << 20, 16 << 20).discriminator == 16 << 20
    assert Sizes(1, 12 << 20, 16 << 20).discriminator == 16 << 20  # casync's fit is negative there


def test_a_recipe_counts_chunks_and_not_bytes() -> None:
    made = header(1000, 2000, 3)
    found = caibx.recipe(made, "there.castr")
    assert found.blobs[0].addressing is Addressing.FILES
    assert list(found.units.offset) == [0, 1, 2]
    assert list(found.units.stored) == [1, 1, 1]
    assert list(found.units.length) == [1000, 2000, 3]
    assert set(found.table.kind) == {Kind.DATA}
    assert (found.digest, found.matchable) == (None, Algorithm.SHA256)
    assert found.verifiable()
    assert found.chunker == "casync/1000/4000/16000"


def test_a_chunk_is_named_by_its_digest() -> None:
    digest = bytes(range(32))
    assert caibx.paths(digest) == (f"0001/{digest.hex()}.cacnk", f"0001/{digest.hex()}")


@pytest.mark.parametrize("flags", [0, 0x2000000000000000, 0xA000000000000000, 0xF000000000000000])
def test_of_the_flags_only_that_of_the_digest_is_needed(flags: int) -> None:
    content = bytearray(build_header(header(1000)))
    struct.pack_into("<Q", content, 16, flags)
    found = parse_header(content)
    assert found.algorithm == (Algorithm.SHA512_256 if flags & 1 << 61 else Algorithm.SHA256)
    assert found.flags == flags


@pytest.mark.parametrize("flags", [0xB0000001FFEFFE26, 1, 1 << 59])
def test_the_index_of_a_directory_is_named_as_such(flags: int) -> None:
    content = bytearray(build_header(header(1000)))
    struct.pack_into("<Q", content, 16, flags)
    with pytest.raises(UnsupportedError, match=r"directory archive \(\.caidx"):
        parse_header(content)


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (0, 47, "not a casync index"),
        (8, 0x96824D9C7B129FF8, "not a casync index"),
        (24, 0, "chunk sizes"),
        (24, 4001, "chunk sizes"),
        (32, 16001, "chunk sizes"),
        (40, (128 << 20) + 1, "chunk sizes"),
        (40, 3999, "chunk sizes"),
        (48, 96, "a table"),
        (56, 0, "a table"),
        (64, 0, "it ends with"),
        (104, 1, "bytes"),  # an end instead of the tail's zero
        (112, 1, "it ends with"),
        (120, 47, "it ends with"),
        (128, 97, "it ends with"),
        (136, 0, "it ends with"),
    ],
)
def test_each_field_is_checked(offset: int, value: int, words: str) -> None:
    content = bytearray(build_header(header(1000)))
    struct.pack_into("<Q", content, offset, value)
    with pytest.raises(FormatError, match=words):
        parse_header(content)


@pytest.mark.parametrize("ends", [(5, 5), (5, 4), (16001,), (9, 16010), ((1 << 64) - 1,), (100, 50, 200)], ids=str)
def test_ends_rise_by_at_most_the_greatest_size(ends: tuple[int, ...]) -> None:
    with pytest.raises(FormatError, match="chunks have 1 to 16000 bytes"):
        parse_header(with_ends(*ends))


def test_limits_hold() -> None:
    content = build_header(header(3000, 3000, sizes=Sizes(1, 2, 128 << 20)))
    for limit in ({"chunk_size": 2999}, {"image_size": 5999}, {"chunks": 1}, {"header_size": len(content) - 1}):
        with pytest.raises(LimitError):
            parse_header(content, limits=replace(DEFAULT, **limit))
    assert len(parse_header(content, limits=replace(DEFAULT, chunks=2, chunk_size=3000, image_size=6000))) == 2


def test_nothing_may_follow() -> None:
    with pytest.raises(FormatError, match="too many"):
        parse_header(build_header(header(1000)) + b"\0")


def test_an_index_that_is_cut_off_anywhere_is_refused() -> None:
    content = build_header(header(1000, 2000, 3000))
    for size in range(len(content)):
        with pytest.raises(FormatError):
            parse_header(content[:size])


def test_any_flipped_bit_is_another_index_or_an_error() -> None:
    good = header(1000, 2000, 3000)
    content = bytearray(build_header(good))
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        with suppress(RegraftError):
            found = parse_header(content)
            # Those of the digests are found when the chunks come; the excluding flags mean nothing for an image.
            assert found != good or bit // 8 == 23
            caibx.recipe(found, "store")
        content[bit // 8] ^= 1 << bit % 8
