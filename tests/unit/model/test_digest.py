# SPDX-License-Identifier: Apache-2.0
"""Algorithms are values; BLAKE2b comes in every size that bita knows."""

from __future__ import annotations

import hashlib
from array import array

import pytest

from regraft import kernels
from regraft.formats import kept_index
from regraft.kernels import fixed_index
from regraft.model import Algorithm, Digest, DigestColumn, Index

ALL = [Algorithm.SHA1, Algorithm.SHA256, Algorithm.SHA512, Algorithm.SHA512_128, *map(Algorithm.blake2b, range(4, 65))]


@pytest.mark.parametrize("algorithm", ALL, ids=lambda algorithm: algorithm.label)
def test_an_algorithm_is_known_by_its_label_in_the_kernels_and_in_kept_indexes(algorithm: Algorithm) -> None:
    assert Algorithm.named(algorithm.label) == algorithm
    assert len(algorithm.of(b"abc")) == algorithm.size
    lengths, digests = fixed_index(b"abc", 3, final=True, algorithm=algorithm.label)
    assert digests == algorithm.of(b"abc")
    assert kernels.digest_ranges(b"abc", lengths, algorithm=algorithm.label) == digests
    index = Index(array("Q", [0, 3]), DigestColumn(algorithm, digests), "fixed/3")
    assert kept_index.parse(kept_index.build(index)) == index


def test_a_short_blake2b_is_the_start_of_the_long_one() -> None:
    whole = hashlib.blake2b(b"abc").digest()
    assert Algorithm.BLAKE2B.of(b"abc") == whole
    assert Algorithm.blake2b(20).of(b"abc") == whole[:20] != hashlib.blake2b(b"abc", digest_size=20).digest()
    assert Digest(Algorithm.blake2b(4), whole[:4]).matches(b"abc")


@pytest.mark.parametrize("size", [-1, 0, 3, 65])
def test_a_size_that_bita_does_not_have_is_none(size: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        Algorithm.blake2b(size)


def test_another_label_is_none() -> None:
    with pytest.raises(KeyError):
        Algorithm.named("md5")
