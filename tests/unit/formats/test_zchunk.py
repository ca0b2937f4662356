# SPDX-License-Identifier: Apache-2.0
"""The header of a zchunk file, byte by byte."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from golden_files import EMPTY_SHA256, IMAGE_SHA256, PATHS
from images import pack

from regraft.engine.apply import apply
from regraft.engine.blobs import LocalBlob
from regraft.errors import DigestError, FormatError, LimitError, RegraftError, UnsupportedError
from regraft.formats import zchunk
from regraft.formats.cursor import Cursor
from regraft.limits import DEFAULT
from regraft.model import Algorithm, DigestColumn, Kind
from regraft.testing.memory import MemoryMedium


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "80"), (1, "81"), (127, "ff"), (128, "0081"), (300, "2c82"), (2**64 - 1, "7f" * 9 + "81")],
)
def test_compressed_integers_end_with_bit_7(value: int, encoded: str) -> None:
    assert zchunk.varint(value).hex() == encoded
    assert zchunk.read_varint(Cursor(bytes.fromhex(encoded), "it")) == value


def test_a_compressed_integer_may_be_padded() -> None:
    assert zchunk.read_varint(Cursor(bytes.fromhex("050080"), "it")) == 5


@pytest.mark.parametrize("encoded", ["", "00", "7f" * 9 + "82", "00" * 10, "7f" * 10 + "81"])
def test_a_compressed_integer_ends_and_has_64_bits(encoded: str) -> None:
    with pytest.raises(FormatError):
        zchunk.read_varint(Cursor(bytes.fromhex(encoded), "it"))


def test_the_header_of_an_empty_image_is_this() -> None:
    """As `zck -u` writes it: 143 bytes, chunk 0 for the dictionary that is not there."""
    content = pack(b"").content
    index = b"\x81\x81" + bytes(64) + b"\x80\x80"
    rest = bytes(32) + b"\x84\x82" + zchunk.varint(len(index)) + index + b"\x80"
    lead = b"\0ZCK1\x81" + zchunk.varint(len(rest))
    assert content == lead + hashlib.sha256(lead + rest).digest() + rest
    assert len(content) == 143


def test_a_detached_header_has_another_magic_and_the_same_digest() -> None:
    header = pack(b"some bytes" * 3000).header
    plain, detached = zchunk.build_header(header), zchunk.build_header(header, detached=True)
    assert detached == b"\0ZHR1" + plain[5:]
    parsed = zchunk.parse_header(detached)
    assert parsed.detached
    assert replace(parsed, detached=False) == header
    assert parsed.digest == header.digest


def test_what_follows_the_header_is_ignored() -> None:
    content = pack(b"abc" * 5000).content
    assert zchunk.parse_header(content) == zchunk.parse_header(content + b"anything")


def header(**changes: object) -> zchunk.Header:
    return replace(pack(bytes(range(256)) * 300).header, **changes)  # type: ignore[arg-type]


def test_optional_elements_survive() -> None:
    made = header(flags=6, elements=((7, b"seven"), (0, b"")))
    assert zchunk.parse_header(zchunk.build_header(made)).elements == ((7, b"seven"), (0, b""))


@pytest.mark.parametrize(
    ("flags", "error"),
    [(1, UnsupportedError), (8, UnsupportedError), (1 << 40, UnsupportedError), (5, UnsupportedError)],
)
def test_flags_that_nobody_knows(flags: int, error: type[RegraftError]) -> None:
    with pytest.raises(error, match=r"streams|flags"):
        zchunk.parse_header(zchunk.build_header(header(flags=flags)))


def resealed(content: bytes) -> bytes:
    """The header again with a right digest of its own."""
    lead = zchunk.parse_lead(content)
    start = lead.size - lead.algorithm.size
    rest = content[lead.size : lead.total]
    return content[:start] + lead.algorithm.of(content[:start] + rest) + content[lead.size :]


def position(what: str) -> int:
    """Offset of a one-byte field in the header of the empty image."""
    return {"type": 5, "flags": 71, "compression": 72, "chunk type": 74, "count": 75, "signatures": 142}[what]


@pytest.mark.parametrize(
    ("what", "byte", "error"),
    [
        ("type", 0x84, UnsupportedError),
        ("compression", 0x81, UnsupportedError),
        ("compression", 0x83, UnsupportedError),
        ("chunk type", 0x84, UnsupportedError),
        ("chunk type", 0x80, UnsupportedError),
        ("count", 0x80, RegraftError),
        ("count", 0x82, FormatError),
        ("signatures", 0x81, RegraftError),
        ("flags", 0x80, FormatError),
    ],
)
def test_fields_that_cannot_be(what: str, byte: int, error: type[RegraftError]) -> None:
    content = bytearray(pack(b"").content)
    content[position(what)] = byte
    with pytest.raises(error) as caught:
        zchunk.parse_header(resealed(bytes(content)) if what != "type" else bytes(content))
    assert not isinstance(caught.value, DigestError)


def test_the_headers_own_digest_counts() -> None:
    content = bytearray(pack(b"abc" * 5000).content)
    content[-1 - 5000 : -5000] = b""
    content[60] ^= 1
    with pytest.raises(DigestError):
        zchunk.parse_header(content)


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (replace(DEFAULT, header_size=100), "header"),
        (replace(DEFAULT, chunks=1), "chunks"),
        (replace(DEFAULT, chunk_size=70_000), "chunk"),
        (replace(DEFAULT, stored_size=10), "stored"),
        (replace(DEFAULT, image_size=76_799), "image"),
    ],
)
def test_limits_are_reachable(limits: object, word: str) -> None:
    with pytest.raises(LimitError, match=word):
        zchunk.parse_header(zchunk.build_header(header()), limits=limits)  # type: ignore[arg-type]
    assert zchunk.parse_header(zchunk.build_header(header())).image_size == 76_800


def test_a_header_larger_than_memory_is_refused_before_it_is_read() -> None:
    lead = b"\0ZCK1\x81" + zchunk.varint(1 << 40) + bytes(32)
    with pytest.raises(LimitError):
        zchunk.parse_lead(lead)


def test_a_count_of_chunks_without_chunks_takes_no_memory() -> None:
    index = b"\x81" + zchunk.varint(3_999_999) + b"\x80"
    rest = bytes(32) + b"\x84\x82" + zchunk.varint(len(index)) + index + b"\x80"
    lead = b"\0ZCK1\x81" + zchunk.varint(len(rest))
    with pytest.raises(FormatError):
        zchunk.parse_header(lead + hashlib.sha256(lead + rest).digest() + rest)


def test_the_recipe_names_a_unit_for_each_chunk() -> None:
    artifact = pack(bytes(range(256)) * 1500)
    recipe = zchunk.recipe(artifact.header, "where.zck", size=len(artifact.content))
    assert recipe.size == 384_000
    assert len(recipe.table) == len(recipe.units) == len(artifact.header) - 1
    assert recipe.units.offset[0] == artifact.header.size
    assert set(recipe.table.kind) == {Kind.DATA}
    assert recipe.blobs[0].location == "where.zck"
    assert recipe.blobs[0].size == len(artifact.content)
    assert recipe.verifiable()


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_file_of_another_size_than_its_header_says(difference: int) -> None:
    artifact = pack(b"abc" * 5000)
    with pytest.raises(FormatError, match="header and chunks take"):
        zchunk.recipe(artifact.header, "x", size=len(artifact.content) + difference)


def test_a_dictionary_is_a_unit_and_no_row() -> None:
    (path,) = (path for path in PATHS if path.stem == "zstd-u-dict")
    recipe = zchunk.recipe(zchunk.parse_header(path.read_bytes()), "x")
    assert len(recipe.units) == len(recipe.table) + 1
    assert recipe.codecs[recipe.units.codec[1]].dictionary == 0
    assert recipe.codecs[recipe.units.codec[0]].dictionary is None


def test_sha1_digests_do_not_describe_an_uncompressed_source() -> None:
    made = header()
    column = DigestColumn(Algorithm.SHA1, bytes(20 * len(made)))
    bad = replace(made, chunk_algorithm=Algorithm.SHA1, stored_digests=column, digests=column)
    with pytest.raises(UnsupportedError, match="SHA-1"):
        zchunk.parse_header(zchunk.build_header(bad))


# golden files


def test_there_are_golden_files() -> None:
    assert len(PATHS) >= 7


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_golden_file_still_gives_its_image(path: Path) -> None:
    content = path.read_bytes()
    found = zchunk.parse_header(content)
    assert zchunk.build_header(found) == content[: found.size]
    target = MemoryMedium()
    apply(zchunk.recipe(found, path.name, size=len(content)), [], [LocalBlob(MemoryMedium(content))], target)
    expected = EMPTY_SHA256 if path.stem.endswith("empty") else IMAGE_SHA256
    assert hashlib.sha256(target.content).hexdigest() == expected


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_truncation_of_a_golden_header_is_a_format_error(path: Path) -> None:
    content = path.read_bytes()
    for length in range(zchunk.parse_lead(content).total):
        with pytest.raises(FormatError):
            zchunk.parse_header(content[:length])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_flipped_bit_of_a_golden_header_is_found(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for bit in range(8 * zchunk.parse_lead(content).total):
        content[bit // 8] ^= 1 << bit % 8
        if bit // 8 < 5 and content[:5] == zchunk.MAGIC_DETACHED:
            continue
        with pytest.raises(RegraftError):
            zchunk.parse_header(content)
        content[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_flipped_bit_behind_a_right_digest_is_typed(path: Path) -> None:
    """Somebody signed nonsense: the parser is not protected by the header's digest."""
    content = path.read_bytes()
    lead = zchunk.parse_lead(content)
    for bit in range(8 * lead.size, 8 * lead.total):
        bad = bytearray(content[: lead.total])
        bad[bit // 8] ^= 1 << bit % 8
        with suppress(RegraftError):
            zchunk.recipe(zchunk.parse_header(resealed(bytes(bad))), "x", size=len(content))
