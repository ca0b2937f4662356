# SPDX-License-Identifier: Apache-2.0
"""bita archives: what is read from them, and that nothing they claim is believed."""

from __future__ import annotations

import random
from array import array
from contextlib import suppress
from dataclasses import replace

import pytest
from archives import SMALL, Archive, around, changed, pack, read
from images import CountingSource
from shared_vectors import generated, vectors

from regraft.engine.apply import apply
from regraft.errors import DigestError, FormatError, LimitError, RegraftError, UnsupportedError
from regraft.formats import cba
from regraft.formats.protobuf import bytes_field, number_field
from regraft.limits import DEFAULT
from regraft.model import Algorithm, Digest, DigestColumn
from regraft.testing.memory import MemoryMedium

CHUNKER = bytes_field(4, number_field(1, 7) + number_field(3, 99) + number_field(4, 16) + number_field(5, 64))
NO_COMPRESSION = b"\x2a\0"


@pytest.fixture(scope="module")
def archive() -> Archive:
    words = random.Random(5)
    image = b"".join(words.choice([b"regraft ", b"moves ", b"what ", b"changed "]) for _ in range(900))
    return pack(image + words.randbytes(3000) + bytes(9000) + image)


def rebuilt(archive: Archive) -> bytes:
    target = MemoryMedium()
    apply(archive.recipe, [], [CountingSource(archive.content)], target)
    return bytes(target.content)


def test_every_archive_of_the_vectors_is_read() -> None:
    for case in vectors("cba-archives.json")["archives"]:
        content = bytes.fromhex(case["archive_hex"])
        image = generated(case.get("input") or [])
        found = read(content)
        header = found.header
        assert rebuilt(found) == image, case["name"]
        assert (header.size, header.image_size) == (case["header_size"], case["source_size"])
        assert header.checksum.hex() == case["header_blake2b512"]
        assert header.digest == Digest(Algorithm.BLAKE2B, bytes.fromhex(case["source_blake2b512"]))
        assert list(header.order) == case["rebuild_order"]
        for number, descriptor in enumerate(case["descriptors"]):
            assert header.digests[number].hex() == descriptor["hash"]
            assert header.stored[number] == descriptor["archive_size"]
            assert header.offsets[number] == descriptor["archive_offset"]
            assert header.lengths[number] == descriptor["source_size"]
        assert {key: value.hex() for key, value in header.metadata} == (case.get("metadata") or {})


def test_every_header_of_the_vectors_is_written_byte_for_byte() -> None:
    for case in vectors("cba-archives.json")["archives"]:
        content = bytes.fromhex(case["archive_hex"])
        assert cba.build_header(read(content).header) == content[: case["header_size"]], case["name"]


def test_a_header_comes_back(archive: Archive) -> None:
    for fields in (
        {},
        {"legacy": True},
        {"metadata": (("a", b"1"), ("b", b""), ("é", bytes(range(256))))},
        {"writer": "", "digest": None},
    ):
        header = replace(archive.header, **fields)  # type: ignore[arg-type]
        assert cba.parse_header(cba.build_header(header)) == header


def test_a_header_needs_no_body_and_says_where_the_body_ends(archive: Archive) -> None:
    header = cba.parse_header(archive.content[: archive.header.size])
    assert header.end == len(archive.content)
    assert cba.parse_lead(archive.content[: cba.LEAD_SIZE]) == header.size


def test_equal_chunks_are_one_unit(archive: Archive) -> None:
    assert len(archive.recipe.units) == len(archive.header) < len(archive.header.order) == len(archive.recipe.table)


def test_the_chunk_data_may_begin_later(archive: Archive) -> None:
    body = archive.content[archive.header.size :]
    dictionary = archive.content[cba.LEAD_SIZE : archive.header.size - 72]
    moved = around(dictionary, data_offset=archive.header.size + 1000) + bytes(1000) + body
    assert rebuilt(read(moved)) == rebuilt(archive)
    with pytest.raises(FormatError, match="chunk data at"):
        read(around(dictionary, data_offset=archive.header.size - 1) + body)


def test_descriptors_may_stand_in_any_order_or_be_of_no_use(archive: Archive) -> None:
    header, count = archive.header, len(archive.header)
    turned = changed(
        archive,
        order=array("I", [count - 1 - number for number in header.order]),
        digests=DigestColumn(Algorithm.BLAKE2B, b"".join(reversed(list(header.digests)))),
        stored=header.stored[::-1],
        offsets=header.offsets[::-1],
        lengths=header.lengths[::-1],
    )
    assert rebuilt(read(turned)) == rebuilt(archive)
    twice = changed(
        archive,
        digests=DigestColumn(Algorithm.BLAKE2B, header.digests.data * 2),
        stored=header.stored * 2,
        offsets=header.offsets * 2,
        lengths=header.lengths * 2,
    )
    assert rebuilt(read(twice)) == rebuilt(archive)


def replaced(column: array[int], value: int) -> array[int]:
    other = array(column.typecode, column)
    other[1] = value
    return other


def test_an_archive_that_lies_about_its_chunks_is_refused(archive: Archive) -> None:
    header = archive.header
    lies: list[dict[str, object]] = [
        {"lengths": replaced(header.lengths, header.lengths[1] + 1)},
        {"image_size": header.image_size + 1},
        {"order": header.order[:-1]},
        {"order": header.order + array("I", [0])},
        {"order": replaced(header.order, len(header))},
        {"order": replaced(header.order, 0xFFFFFFFF)},
        {"stored": replaced(header.stored, header.lengths[1] + 1)},
        {"stored": replaced(header.stored, 0)},
        {"lengths": replaced(header.lengths, 0), "stored": replaced(header.stored, 0)},
        {"offsets": replaced(header.offsets, len(archive.content))},
        {"offsets": replaced(header.offsets, (1 << 64) - 1)},
        {"compression": "none"},
    ]
    for lie in lies:
        with pytest.raises(FormatError):
            read(changed(archive, **lie))


def test_swapped_or_overlapping_stored_bytes_do_not_pass(archive: Archive) -> None:
    header = archive.header
    for offsets in (replaced(header.offsets, header.offsets[0]), replaced(header.offsets, header.offsets[1] + 1)):
        with pytest.raises((DigestError, FormatError)):
            rebuilt(read(changed(archive, offsets=offsets)))


def test_sizes_have_limits(archive: Archive) -> None:
    header, content = archive.header, archive.content
    for limits, words in (
        (replace(DEFAULT, header_size=header.size - 87), "header_size"),
        (replace(DEFAULT, chunk_size=max(header.lengths) - 1), "chunk_size"),
        (replace(DEFAULT, stored_size=max(header.stored) - 1), "stored_size"),
        (replace(DEFAULT, chunks=len(header) - 1), "chunks|numbers"),
        (replace(DEFAULT, image_size=header.image_size - 1), "image_size"),
    ):
        with pytest.raises((LimitError, FormatError), match=words):
            read(content, limits)
    many = changed(archive, metadata=tuple((str(number), b"") for number in range(DEFAULT.metadata + 1)))
    with pytest.raises(LimitError, match="metadata"):
        read(many)


@pytest.mark.parametrize("size", [1 << 62, (1 << 64) - 1, DEFAULT.header_size + 1])
def test_a_dictionary_of_gigabytes_is_refused_by_its_size(size: int) -> None:
    with pytest.raises(LimitError, match="dictionary"):
        cba.parse_lead(cba.MAGIC + size.to_bytes(8, "little"))


@pytest.mark.parametrize(
    ("dictionary", "error", "words"),
    [
        (b"", FormatError, "does not say"),
        (CHUNKER, FormatError, "does not say"),
        (NO_COMPRESSION, FormatError, "does not say"),
        (CHUNKER + CHUNKER + NO_COMPRESSION, FormatError, "field 4 is there twice"),
        (b"\x22\0" + NO_COMPRESSION, FormatError, "hashes of 0 bytes"),
        (bytes_field(4, number_field(5, 65)) + NO_COMPRESSION, FormatError, "hashes of 65 bytes"),
        (bytes_field(4, number_field(5, 64) + number_field(6, 3)) + NO_COMPRESSION, UnsupportedError, "algorithm 3"),
        (CHUNKER + bytes_field(5, number_field(2, 4)), UnsupportedError, "compression 4"),
        (bytes_field(2, b"x") + CHUNKER + NO_COMPRESSION, FormatError, "checksum of 1 bytes"),
        (bytes_field(4, number_field(5, 15)) + NO_COMPRESSION, UnsupportedError, "no checksum"),
        (CHUNKER + NO_COMPRESSION + bytes_field(7, bytes_field(1, b"short")), FormatError, "hash of 5 bytes"),
        (CHUNKER + NO_COMPRESSION + bytes_field(8, b"\x0a\x01a") * 2, FormatError, "'a' is there twice"),
        (bytes_field(1, b"\xff") + CHUNKER + NO_COMPRESSION, FormatError, "UTF-8"),
        (CHUNKER + NO_COMPRESSION + number_field(3, 1), FormatError, "its chunks have 0"),
    ],
)
def test_a_dictionary_that_makes_no_sense_is_refused(dictionary: bytes, error: type[RegraftError], words: str) -> None:
    with pytest.raises(error, match=words):
        cba.parse_header(around(dictionary))


def test_unknown_fields_are_passed_over() -> None:
    header = cba.parse_header(around(CHUNKER + NO_COMPRESSION + bytes_field(99, b"news") + number_field(98, 5)))
    assert (header.image_size, header.parameters.label) == (0, "bita-buzhash/16/7/0/99")


def test_another_file_is_not_an_archive() -> None:
    for content in (b"\0ZCK1" + bytes(20), b"BITA2\0" + bytes(20), b"BITA1"):
        with pytest.raises(FormatError):
            cba.parse_lead(content)


@pytest.mark.slow
@pytest.mark.parametrize("options", [SMALL, replace(SMALL, compression="lzma"), replace(SMALL, compression="zstd")])
def test_no_cut_or_flipped_archive_gives_another_image(options: object) -> None:
    image = b"what changed " * 60 + random.Random(2).randbytes(700)
    archive = pack(image, options)  # type: ignore[arg-type]
    content = archive.content
    assert rebuilt(archive) == image
    for size in range(len(content)):
        with pytest.raises(RegraftError):
            rebuilt(read(content[:size]))
    for bit in range(8 * archive.header.size):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RegraftError):
            cba.parse_header(flipped)
    for at in range(archive.header.size, len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 0x10
        with suppress(RegraftError):
            assert rebuilt(read(bytes(flipped))) == image  # padding and the like


def test_the_dictionary_survives_every_flip_and_cut_behind_a_right_checksum(archive: Archive) -> None:
    dictionary = archive.content[cba.LEAD_SIZE : archive.header.size - 72][:2500]
    for bit in range(8 * len(dictionary)):
        flipped = bytearray(dictionary)
        flipped[bit // 8] ^= 1 << bit % 8
        with suppress(RegraftError):
            header = cba.parse_header(around(bytes(flipped)))
            cba.recipe(header, "x").check()
    for size in range(len(dictionary)):
        with pytest.raises(RegraftError):
            cba.parse_header(around(dictionary[:size]))


@pytest.mark.parametrize("length", [4, 8, 15])
def test_with_short_hashes_the_image_is_verified_and_no_seed_believed(length: int) -> None:
    image = random.Random(1).randbytes(20_000)
    archive = pack(image, replace(SMALL, hash_length=length))
    assert archive.recipe.matchable is None
    assert rebuilt(archive) == image
    header = archive.header
    wrong = DigestColumn(Algorithm.blake2b(length), header.digests.data)
    other = read(changed(archive, digests=wrong, digest=Digest(Algorithm.BLAKE2B, bytes(64))))
    with pytest.raises(DigestError):  # each chunk is as its short hash says, but the image is not
        rebuilt(other)
