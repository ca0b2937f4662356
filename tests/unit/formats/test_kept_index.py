# SPDX-License-Identifier: Apache-2.0
"""The kept index as bytes."""

from __future__ import annotations

import hashlib
import struct
from array import array
from dataclasses import replace
from itertools import accumulate

import pytest

from regraft.errors import FormatError, RegraftError, StateError
from regraft.formats import kept_index, zchunk
from regraft.limits import DEFAULT
from regraft.model import Algorithm, DigestColumn, Index


def index(*lengths: int, algorithm: Algorithm = Algorithm.SHA256) -> Index:
    digests = DigestColumn(algorithm, b"".join(algorithm.of(bytes([n])) for n in range(len(lengths))))
    return Index(array("Q", accumulate(lengths, initial=0)), digests, "some/chunker")


def sealed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize("algorithm", [*zchunk.ALGORITHMS, Algorithm.SHA512_256, Algorithm.blake2b(16)])
@pytest.mark.parametrize("lengths", [(), (1,), (8192, 131072, 5)])
def test_round_trip(lengths: tuple[int, ...], algorithm: Algorithm) -> None:
    made = index(*lengths, algorithm=algorithm)
    found = kept_index.parse(kept_index.build(made))
    assert (found.bounds, found.digests, found.chunker) == (made.bounds, made.digests, made.chunker)


def test_the_layout_is_this() -> None:
    body = b"RGINDEX\x01\x01\x0csome/chunker" + struct.pack("<III", 2, 10, 20)
    body += Algorithm.SHA256.of(b"\0") + Algorithm.SHA256.of(b"\1")
    assert kept_index.build(index(10, 20)) == sealed(body)


def test_any_damage_is_found() -> None:
    content = kept_index.build(index(10, 20))
    for length in range(len(content)):
        with pytest.raises(StateError):
            kept_index.parse(content[:length])
    for bit in range(8 * len(content)):
        data = bytearray(content)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StateError, match="own digest"):
            kept_index.parse(data)


def test_nonsense_behind_a_right_digest_is_typed() -> None:
    body = kept_index.build(index(10, 20))[:-32]
    for bit in range(8 * len(body)):
        data = bytearray(body)
        data[bit // 8] ^= 1 << bit % 8
        try:
            found = kept_index.parse(sealed(bytes(data)))
        except RegraftError:
            continue
        assert found.size == sum(b - a for a, b in zip(found.bounds, found.bounds[1:], strict=False))
    for length in range(len(body)):
        with pytest.raises(RegraftError):
            kept_index.parse(sealed(body[:length]))


def test_limits() -> None:
    with pytest.raises(FormatError, match="chunks"):
        kept_index.parse(kept_index.build(index(10, 20)), limits=replace(DEFAULT, chunks=1))
    with pytest.raises(FormatError, match="chunk of"):  # nobody should make room for it
        kept_index.parse(kept_index.build(index(10, DEFAULT.chunk_size + 1)))


def test_a_chunker_has_a_plain_name() -> None:
    with pytest.raises(FormatError, match="ASCII"):
        kept_index.parse(sealed(kept_index.build(index(10))[:-32].replace(b"some/", b"som\xc3/")))


def test_an_index_without_digests_is_not_kept() -> None:
    with pytest.raises(ValueError, match="digests"):
        kept_index.build(Index(array("Q", [0]), DigestColumn(None), ""))
