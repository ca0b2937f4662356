# SPDX-License-Identifier: Apache-2.0
"""Descriptions of ihop's stores: what is read from them, and that nothing they claim is believed."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace

import pytest
from shared_vectors import generated, vectors

from regraft.engine.chunkers import named
from regraft.errors import DigestError, FormatError, LimitError, RegraftError, UnsupportedError
from regraft.formats import ihop
from regraft.formats.protobuf import bytes_field, number_field
from regraft.limits import DEFAULT
from regraft.model import Addressing, Algorithm, Digest

PARTS = [b"one" * 100, b"two" * 50]
IMAGE = PARTS[0] + PARTS[1] + PARTS[0]
ORDER = bytes([0, 1, 0])


def chunker(hash_length: int = 32) -> bytes:
    return bytes_field(
        6, number_field(1, 7) + number_field(3, 999) + number_field(4, 16) + number_field(5, hash_length)
    )


def chunk(content: bytes, size: int | None = None, hash_length: int = 32) -> bytes:
    inner = bytes_field(1, Algorithm.blake2b(hash_length).of(content))
    return bytes_field(5, inner + number_field(2, len(content) if size is None else size))


def dictionary(*, image_size: int = len(IMAGE), order: bytes = ORDER, digest: bytes | None = None) -> bytes:
    checksum = Algorithm.BLAKE2B.of(IMAGE) if digest is None else digest
    return (
        bytes_field(1, b"0.1.2") + bytes_field(2, checksum) + number_field(3, image_size) + bytes_field(4, order)
        + chunk(PARTS[0]) + chunk(PARTS[1]) + chunker()
    )  # fmt: skip


def around(content: bytes) -> bytes:
    lead = ihop.MAGIC + struct.pack("<Q", len(content)) + content
    return lead + Algorithm.BLAKE2B.of(lead)


def test_the_description_of_the_vectors_is_read() -> None:
    case = vectors("ihop-store.json")
    archive = vectors("cba-archives.json")["archives"][1]
    found = ihop.parse_header(bytes.fromhex(case["description_hex"]))
    assert [path for digest in found.digests for path in ihop.paths(digest)] == case["chunk_paths"]
    image = generated(archive["input"])
    assert list(found.order) == archive["rebuild_order"]
    assert found.digest is not None
    assert found.digest.matches(image)
    lengths, digests = named(found.parameters.label).session(found.digests.algorithm or Algorithm.BLAKE2B, 1)(
        memoryview(image), 0, 0, True
    )
    assert list(lengths) == [found.lengths[number] for number in found.order]
    assert digests == b"".join(found.digests[number] for number in found.order)


def test_a_description_is_a_recipe_over_its_chunks() -> None:
    found = ihop.parse_header(around(dictionary()))
    assert (found.writer, found.image_size, list(found.lengths)) == ("0.1.2", len(IMAGE), [300, 150])
    recipe = ihop.recipe(found, "store")
    assert recipe.digest == Digest.of(IMAGE, Algorithm.BLAKE2B)
    assert recipe.blobs[0].addressing is Addressing.FILES
    assert list(recipe.units.offset) == [0, 1]
    assert list(recipe.table.unit) == [0, 1, 0]
    assert ihop.parse_lead(around(dictionary())) == found.size == found.end


@pytest.mark.parametrize(
    "content",
    [
        dictionary(image_size=len(IMAGE) + 1),
        dictionary(order=bytes([0, 1, 2])),
        dictionary(order=bytes([0, 1])),
        dictionary(digest=bytes(63)),
        dictionary() + chunk(b"x", size=0),
        dictionary() + chunk(b"x", hash_length=16),
        dictionary() + chunker(),
        dictionary()[: -len(chunker())],
        dictionary() + b"\x32\0",
        b"\xff" * 20,
    ],
)
def test_lies_are_refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        ihop.parse_header(around(content))


def test_short_hashes_need_a_checksum_of_the_image() -> None:
    with pytest.raises(UnsupportedError, match="8 bytes"):
        ihop.parse_header(around(chunker(8)))


def test_limits_hold() -> None:
    content = around(dictionary())
    for limit in ({"chunk_size": 299}, {"image_size": len(IMAGE) - 1}, {"chunks": 1}, {"header_size": 50}):
        with pytest.raises((LimitError, FormatError)):
            ihop.parse_header(content, limits=replace(DEFAULT, **limit))
    with pytest.raises(LimitError):
        ihop.parse_lead(ihop.MAGIC + struct.pack("<Q", 1 << 60))


def test_a_description_that_is_cut_off_anywhere_is_refused() -> None:
    content = around(dictionary())
    for size in range(len(content)):
        with pytest.raises(FormatError):
            ihop.parse_header(content[:size])
    with pytest.raises(FormatError):
        ihop.parse_header(content + b"\0")


def test_a_flipped_bit_is_found_by_the_checksum() -> None:
    content = bytearray(around(dictionary()))
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        with pytest.raises((FormatError, DigestError, LimitError)):
            ihop.parse_header(content)
        content[bit // 8] ^= 1 << bit % 8


def test_a_flipped_bit_under_a_right_checksum_is_another_description_or_an_error() -> None:
    content = bytearray(dictionary())
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        with suppress(RegraftError):
            ihop.recipe(ihop.parse_header(around(bytes(content))), "store")
        content[bit // 8] ^= 1 << bit % 8
