# SPDX-License-Identifier: Apache-2.0
"""Digests and columns of digests."""

from __future__ import annotations

import hashlib

import pytest

from regraft.model import Algorithm, Digest, DigestColumn


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (Algorithm.SHA1, hashlib.sha1(b"abc").digest()),
        (Algorithm.SHA256, hashlib.sha256(b"abc").digest()),
        (Algorithm.SHA512, hashlib.sha512(b"abc").digest()),
        (Algorithm.SHA512_128, hashlib.sha512(b"abc").digest()[:16]),
    ],
)
def test_algorithms(algorithm: Algorithm, expected: bytes) -> None:
    assert algorithm.of(b"abc") == expected
    assert algorithm.size == len(expected)
    assert Algorithm.named(algorithm.label) is algorithm
    hasher = algorithm.hasher()
    hasher.update(b"a")
    hasher.update(memoryview(b"bc"))
    assert hasher.digest() == expected


def test_a_name_that_is_no_algorithm() -> None:
    with pytest.raises(KeyError):
        Algorithm.named("md5")


def test_a_digest_matches_its_bytes_only() -> None:
    digest = Digest.of(b"abc")
    assert digest.matches(b"abc")
    assert not digest.matches(b"abd")
    assert str(digest) == f"sha256:{hashlib.sha256(b'abc').hexdigest()}"
    with pytest.raises(ValueError, match="32 bytes, not 3"):
        Digest(Algorithm.SHA256, b"abc")


def test_a_column_is_a_sequence() -> None:
    column = DigestColumn(Algorithm.SHA512_128)
    for number in range(3):
        column.append(bytes([number]) * 16)
    assert len(column) == 3
    assert column[1] == b"\1" * 16
    assert column[1:3] == b"\1" * 16 + b"\2" * 16
    assert list(column) == [bytes([number]) * 16 for number in range(3)]
    assert column == DigestColumn(Algorithm.SHA512_128, column.data)
    assert column != DigestColumn(Algorithm.SHA1)
    assert column != "something else"
    for row in (3, -1):
        with pytest.raises(IndexError):
            column[row]
    with pytest.raises(ValueError, match="step"):
        column[::2]


def test_a_column_holds_whole_digests_of_one_kind() -> None:
    with pytest.raises(ValueError, match="whole"):
        DigestColumn(Algorithm.SHA256, bytes(33))
    with pytest.raises(ValueError, match="whole"):
        DigestColumn(None, b"x")
    with pytest.raises(ValueError, match="another size"):
        DigestColumn(Algorithm.SHA256).append(bytes(20))
    with pytest.raises(ValueError, match="another size"):
        DigestColumn(None).append(b"")
    assert len(DigestColumn(None)) == 0
