# SPDX-License-Identifier: Apache-2.0
"""The description of an image in a chunk store."""

from __future__ import annotations

import hashlib
import resource
import time
from array import array
from dataclasses import replace

import pytest

from regraft.errors import LimitError, RegraftError, StateError, UsageError
from regraft.formats import image_description
from regraft.formats.image_description import Description
from regraft.limits import DEFAULT
from regraft.model import Algorithm, Digest, DigestColumn

SMALL = Description(
    bounds=array("Q", [0, 10, 4106, 4107]),
    digests=DigestColumn(Algorithm.SHA256, bytes(range(96))),
    zero=bytearray([0, 1, 0]),
    chunker="fixed/4096",
    digest=Digest.of(b"image", Algorithm.BLAKE2B),
    source="https://host/größe.cba",
    identity=bytes(range(32)),
    metadata={"verity": b"\0\1", "a": b""},
)
BYTES = image_description.build(SMALL)


def sealed(content: bytes) -> bytes:
    """The same with the digest that belongs to it."""
    return content[:-32] + hashlib.sha256(content[:-32]).digest()


def test_what_was_written_is_read() -> None:
    assert image_description.parse(BYTES) == SMALL
    assert image_description.build(replace(SMALL, metadata=dict(reversed(SMALL.metadata.items())))) == BYTES


def test_an_image_may_be_empty_and_unknown() -> None:
    empty = Description(array("Q", [0]), DigestColumn(None), bytearray())
    assert image_description.parse(image_description.build(empty)) == empty


def test_an_intent_has_no_digests_as_long_as_none_are_known() -> None:
    intent = replace(SMALL, digests=DigestColumn(None))
    assert image_description.parse(image_description.build(intent)) == intent


def test_every_truncation_and_flip_is_found() -> None:
    for end in range(len(BYTES)):
        with pytest.raises(StateError):
            image_description.parse(BYTES[:end])
    for bit in range(8 * len(BYTES)):
        data = bytearray(BYTES)
        data[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(StateError):
            image_description.parse(data)


def test_what_somebody_sealed_is_still_checked() -> None:
    for end in range(32, len(BYTES)):
        with pytest.raises(RegraftError):
            image_description.parse(sealed(BYTES[:end]))
    for bit in range(8 * (len(BYTES) - 32)):
        data = bytearray(BYTES)
        data[bit // 8] ^= 1 << (bit % 8)
        try:
            found = image_description.parse(sealed(bytes(data)))
        except RegraftError:
            continue
        assert found.size == SMALL.size


@pytest.mark.parametrize("limit", [{"chunks": 2}, {"image_size": 4106}, {"chunk_size": 4095}, {"metadata": 1}])
def test_what_is_too_much_is_refused(limit: dict[str, int]) -> None:
    with pytest.raises(LimitError):
        image_description.parse(BYTES, limits=replace(DEFAULT, **limit))


def test_a_text_that_finds_no_room_is_refused_rather_than_cut() -> None:
    longest = replace(SMALL, source="ö" * 32767 + "x")
    assert image_description.parse(image_description.build(longest)) == longest
    with pytest.raises(LimitError, match="65536 bytes"):
        image_description.build(replace(SMALL, source="ö" * 32768))


def test_short_digests_and_empty_chunks_are_refused() -> None:
    short = replace(SMALL, digests=DigestColumn(Algorithm.blake2b(8), bytes(24)))
    empty = replace(SMALL, bounds=array("Q", [0, 10, 10, 4107]))
    for bad in (short, empty):
        with pytest.raises(RegraftError):
            image_description.parse(image_description.build(bad))


@pytest.mark.slow
def test_four_million_chunks_are_columns() -> None:
    count = 4_000_000
    large = Description(
        array("Q", range(0, 4096 * count + 1, 4096)),
        DigestColumn(Algorithm.SHA256, bytes(32 * count)),
        bytearray(count),
    )
    data = image_description.build(large)
    assert len(data) <= DEFAULT.description_file
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    assert image_description.parse(data) == large
    assert time.monotonic() - start < 60
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 5 * len(data)


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        image_description.build(replace(SMALL, source="caf\udce9.cba"))
