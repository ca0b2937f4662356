# SPDX-License-Identifier: Apache-2.0
"""Random plans read at random against a naive model: every row the bytes of its first operation that is right."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from images import CountingSource

from regraft.engine.keep import KeepFile
from regraft.engine.state import State
from regraft.engine.view import View, Whence
from regraft.errors import RegraftError
from regraft.limits import Limits
from regraft.model import Algorithm, Blob, Codec, Kind, Op, OpTable, Plan, Recipe, Units
from regraft.testing.crash import MemoryDirectory
from regraft.testing.memory import MemoryMedium


@dataclass
class Made:
    """A plan, what it reads from, and for each byte of the image the right one, or None if no operation gives it."""

    plan: Plan
    seeds: list[MemoryMedium]
    stored: list[bytes]
    image: list[int | None]


def make(chance: random.Random, *, damaged: bool) -> Made:
    """Rows of random lengths, units that several rows share, some operations that give wrong bytes."""
    table, units = OpTable(Algorithm.SHA256), Units(Algorithm.SHA256)
    seeds = [MemoryMedium(chance.randbytes(5000), name=f"seed{row}") for row in range(2)]
    stored = [bytearray(), bytearray()]
    for _ in range(chance.randint(1, 6)):
        blob, content = chance.randrange(2), chance.randbytes(chance.randint(1, 3000))
        stored[blob] += bytes(chance.choice((0, 0, 7)))
        digest = Algorithm.SHA256.of(content)
        offset, length = len(stored[blob]), len(content)
        units.add(blob=blob, codec=0, offset=offset, stored=length, length=length, digest=digest)
        stored[blob] += content
    image: list[int | None] = []
    for _ in range(chance.randint(1, 25)):
        ops: list[Op] = []
        length = chance.choice((1, 17, 512, 1500))
        kind = chance.choice((Kind.ZERO, Kind.COPY, Kind.DATA))
        data = bytes(length)
        if kind == Kind.COPY:
            source, at = chance.randrange(2), chance.randrange(5000 - length)
            ops.append(Op(kind, source=source, at=at))
            data = bytes(seeds[source].content[at : at + length])
        elif kind == Kind.DATA:
            unit = chance.randrange(len(units))
            length = min(length, units.length[unit])
            within = chance.randrange(units.length[unit] - length + 1)
            ops.append(Op(kind, unit=unit, within=within))
            start = units.offset[unit] + within
            data = bytes(stored[units.blob[unit]][start : start + length])
        else:
            ops.append(Op(kind))
        good = True
        if kind != Kind.ZERO and damaged and chance.random() < 0.4:
            wrong = [Op(Kind.COPY, source=chance.randrange(2), at=chance.randrange(6000)) for _ in range(2)]
            if chance.random() < 0.5:
                ops = wrong
                good = False
            else:
                ops = wrong + ops
        table.add(length, Algorithm.SHA256.of(data), *ops)
        image += data if good else [None] * length
    recipe = Recipe(table, units, (Blob("a"), Blob("b")), (Codec("none"),))
    return Made(Plan(recipe, table, ("seed0", "seed1")), seeds, [bytes(part) for part in stored], image)


def check(view: View, made: Made, chance: random.Random, reads: int) -> None:
    for _ in range(reads):
        offset = chance.randrange(len(made.image))
        length = chance.randint(0, len(made.image) - offset)
        buffer = bytearray(b"\xee" * length)
        expected = made.image[offset : offset + length]
        try:
            view.read_into(offset, memoryview(buffer))
        except RegraftError:
            assert None in expected
        else:
            assert list(buffer) == expected


@given(st.integers(0, 1 << 32), st.booleans(), st.sampled_from([0, 3000, 1 << 20]), st.booleans())
@settings(max_examples=150)
def test_a_view_reads_as_the_model_does(seed: int, damaged: bool, cache: int, local: bool) -> None:
    chance = random.Random(seed)
    made = make(chance, damaged=damaged)
    sources = [CountingSource(part) for part in made.stored]
    limits = Limits(view_cache=cache, batch=chance.choice((1, 2000, 1 << 20)))
    view = View(made.plan, made.seeds, sources, local=(0, 1) if local else (), limits=limits)
    try:
        check(view, made, chance, 12)
        runs = list(view.runs(0, len(made.image)))
        assert sum(run.length for run in runs) == len(made.image)
        position = 0
        for run in runs:
            if run.whence is Whence.ZERO:
                assert made.image[position : position + run.length] == [0] * run.length
            position += run.length
    finally:
        view.close()


@given(st.integers(0, 1 << 32))
@settings(max_examples=25)
def test_several_readers_and_a_keep_read_as_the_model_does(seed: int) -> None:
    chance = random.Random(seed)
    made = make(chance, damaged=True)
    file, directory = MemoryMedium(name="kept"), MemoryDirectory()
    for _ in range(2):
        keep = KeepFile(made.plan.recipe, file, State(directory, "kept"))
        sources = [CountingSource(part) for part in made.stored]
        view = View(made.plan, made.seeds, sources, keep=keep, limits=Limits(view_cache=2000))
        with ThreadPoolExecutor(3) as pool:
            jobs = [pool.submit(check, view, made, random.Random(seed + row), 6) for row in range(3)]
            for job in jobs:
                job.result()
        keep.flush()
        view.close()
