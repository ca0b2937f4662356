# SPDX-License-Identifier: Apache-2.0
"""A set of chunks in little memory."""

from __future__ import annotations

import random

from regraft.model import Algorithm
from regraft.stores.lookup import Lookup


def test_it_is_a_dict_in_other_clothes() -> None:
    chance = random.Random(5)
    chunks = [(chance.randbytes(16), chance.choice((1, 2, 70000))) for _ in range(3000)]
    chunks += chance.sample(chunks, 500)
    lookup, model = Lookup(Algorithm.SHA512_128), dict[tuple[bytes, int], int]()
    for digest, length in chunks:
        assert lookup.find(digest, length) == model.get((digest, length), -1)
        assert lookup.add(digest, length) == model.setdefault((digest, length), len(model))
    assert len(lookup) == len(model)
    for (digest, length), number in model.items():
        assert lookup.find(digest, length) == number
        assert (lookup.digests[number], lookup.lengths[number]) == (digest, length)
    assert lookup.find(bytes(16), 1) == -1


def test_equal_digests_of_other_lengths_are_other_chunks() -> None:
    lookup = Lookup(Algorithm.SHA512_128)
    assert [lookup.add(bytes(16), length) for length in (5, 6, 5)] == [0, 1, 0]
