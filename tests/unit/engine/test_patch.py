# SPDX-License-Identifier: Apache-2.0
"""PATCH operations: what they give, and that every way out executes and verifies them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import CountingSource

from regraft.engine.apply import apply
from regraft.engine.match import match
from regraft.engine.patch import patched, xor
from regraft.engine.seeds import base_seed
from regraft.engine.stream import Streamer
from regraft.errors import DigestError, RegraftError, SourceError, UnsupportedError, UsageError
from regraft.model import Algorithm, Base, Blob, Codec, Digest, Kind, Op, OpTable, Recipe, Units
from regraft.testing.memory import MemoryMedium

OLD = random.Random(1).randbytes(10_000)
NEW = random.Random(2).randbytes(4000) + OLD[4000:8000]
LITERAL = random.Random(3).randbytes(500)


@given(st.binary(max_size=300), st.integers(0, 1 << 30))
def test_xor_is_that_of_each_byte(data: bytes, seed: int) -> None:
    other = random.Random(seed).randbytes(len(data))
    assert xor(memoryview(data), other) == bytes(a ^ b for a, b in zip(data, other, strict=True))


def test_unequal_lengths_and_unknown_functions_are_refused() -> None:
    with pytest.raises(ValueError, match="3 bytes"):
        xor(b"abc", b"ab")
    with pytest.raises(UnsupportedError, match="rot13"):
        patched("rot13", b"a", b"b")


def recipe(*, digests: bool = True, fallback: bool = False) -> tuple[Recipe, bytes]:
    """PATCHes of 1000 bytes at odd offsets, two of them from one unit, then copies, then a literal."""
    content = bytearray()
    algorithm = Algorithm.SHA256 if digests else None
    table, units = OpTable(algorithm), Units(algorithm)

    def unit(data: bytes, codec: int) -> int:
        content.extend(data)
        digest = algorithm.of(data) if algorithm else None
        size, at = len(data), len(content) - len(data)
        return units.add(blob=0, codec=codec, offset=at, stored=size, length=size, digest=digest)

    whole = unit(NEW[:4000], 0) if fallback else 0
    both = unit(xor(OLD[777:2777], NEW[:2000]), 1)
    for row in range(4):
        start = row * 1000
        if row < 2:
            op = Op(Kind.PATCH, at=777 + start, unit=both, within=start)
        else:
            made = unit(xor(OLD[8501 + row : 9501 + row], NEW[start : start + 1000]), 1)
            op = Op(Kind.PATCH, at=8501 + row, unit=made)
        ops = (op, Op(Kind.DATA, unit=whole, within=start)) if fallback else (op,)
        table.add(1000, algorithm.of(NEW[start : start + 1000]) if algorithm else None, *ops)
    table.add(4000, algorithm.of(NEW[4000:]) if algorithm else None, Op(Kind.COPY, at=4000))
    table.add(500, algorithm.of(LITERAL) if algorithm else None, Op(Kind.DATA, unit=unit(LITERAL, 0)))
    image = NEW + LITERAL
    base = Base(len(OLD), Digest.of(OLD))
    codecs = (Codec("none"), Codec("none", patch="xor"))
    made_of = Recipe(table, units, (Blob("blob"),), codecs, digest=Digest.of(image), base=base)
    made_of.check()
    return made_of, bytes(content)


def written(made: Recipe, content: bytes, old: MemoryMedium) -> bytes:
    target = MemoryMedium()
    apply(made, [base_seed(old)], [CountingSource(content)], target, workers=2)
    return bytes(target.content)


def streamed(made: Recipe, content: bytes, old: MemoryMedium) -> bytes:
    plan = match(made, [("base", base_seed(old).index)])
    streamer = Streamer(plan, [old], [CountingSource(content)], workers=2)
    return b"".join(bytes(piece) for piece in streamer.pieces())


@pytest.mark.parametrize("way", [written, streamed])
@pytest.mark.parametrize("digests", [True, False])
def test_every_way_out_executes_patches(way: object, digests: bool) -> None:
    made, content = recipe(digests=digests)
    assert way(made, content, MemoryMedium(OLD)) == NEW + LITERAL  # type: ignore[operator]


@pytest.mark.parametrize("way", [written, streamed])
def test_a_base_that_cannot_be_read_ends_it(way: object) -> None:
    made, content = recipe()
    old = MemoryMedium(OLD)
    old.bad.append((1000, 1100))
    with pytest.raises((SourceError, DigestError)):
        way(made, content, old)  # type: ignore[operator]


def test_bytes_of_the_base_that_became_others_are_found() -> None:
    made, content = recipe()
    with pytest.raises(DigestError, match="image bytes at"):
        streamed(made, content, MemoryMedium(OLD[:900] + b"?" + OLD[901:]))


def test_a_damaged_base_costs_the_alternative_of_one_row() -> None:
    made, content = recipe(fallback=True)
    old = MemoryMedium(OLD[:900] + b"?" + OLD[901:])
    old.bad.append((9000, 9001))
    assert streamed(made, content, old) == NEW + LITERAL
    from dataclasses import replace

    target = MemoryMedium()
    outcome = apply(replace(made, base=None), [base_seed(old)], [CountingSource(content)], target, workers=2)
    assert target.content == NEW + LITERAL
    assert outcome.replaced == 4  # of a unit with a wrong row, all rows are done the other way


def test_a_spoilt_unit_is_fetched_once_more() -> None:
    made, content = recipe()
    source = CountingSource(content, spoil={0: 1})
    target = MemoryMedium()
    apply(made, [base_seed(MemoryMedium(OLD))], [source], target, workers=2)
    assert target.content == NEW + LITERAL
    assert len(source.fetched) == 5


def test_a_delta_needs_its_base() -> None:
    made, content = recipe()
    with pytest.raises(UsageError, match="needs its base"):
        apply(made, [], [CountingSource(content)], MemoryMedium())
    with pytest.raises(UsageError, match="needs its base"):
        match(made, [])


def test_a_recipe_that_reads_behind_its_base_is_refused() -> None:
    made, _ = recipe()
    for number in (0, 4):
        at = made.table.at[number]
        made.table.at[number] = len(OLD) - 999
        with pytest.raises(ValueError, match="outside of its base"):
            made.check()
        made.table.at[number] = at


def test_the_wrong_base_is_found_before_the_first_write() -> None:
    made, content = recipe()
    target = MemoryMedium(b"untouched")
    source = CountingSource(content)
    with pytest.raises(RegraftError, match="not the base"):
        apply(made, [base_seed(MemoryMedium(OLD[:-1] + b"?"))], [source], target)
    assert target.content == b"untouched"
    assert not source.fetched
