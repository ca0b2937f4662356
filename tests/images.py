# SPDX-License-Identifier: Apache-2.0
"""Images and artifacts for tests, made on the spot and always the same."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from regraft.build import zchunk as packer
from regraft.engine.blobs import LocalBlob
from regraft.engine.ranges import Range
from regraft.engine.seeds import Seed, index_medium
from regraft.formats import zchunk
from regraft.model import Algorithm, Blob, Codec, Index, Kind, Op, OpTable, Recipe, Units
from regraft.model.buffers import Buffer
from regraft.testing.memory import MemoryMedium


@dataclass(frozen=True)
class Pair:
    old: bytes
    new: bytes


def make_pair(chance: random.Random, size: int = 2_000_000) -> Pair:
    """Two images that share most of their content, partly at other places; about 50 chunks each."""
    words = [chance.randbytes(chance.randint(4, 90)) for _ in range(20_000)]
    old = bytearray()
    while len(old) < size:
        old += chance.choice(words)
    old[1_200_000:1_200_000] = bytes(300_000)
    new = bytearray(old)
    new[900_000:900_004] = b"\0\1\2\3"
    new[950_000:950_000] = chance.randbytes(7777)
    del new[1_700_000:1_740_000]
    new += chance.randbytes(100_000)
    return Pair(bytes(old), bytes(new))


@dataclass
class Artifact:
    """A zchunk file in memory, with its recipe and a source that counts what is fetched."""

    content: bytes
    header: zchunk.Header
    recipe: Recipe


def pack(image: bytes, options: packer.Options | None = None) -> Artifact:
    out = MemoryMedium()
    header = packer.pack(MemoryMedium(image), out, options or packer.Options())
    content = bytes(out.content)
    return Artifact(content, header, zchunk.recipe(header, "memory.zck", size=len(content)))


@dataclass
class CountingSource:
    """A RangeSource over bytes: counts, and spoils the stored bytes of some offsets for some times."""

    content: bytes
    spoil: dict[int, int] = field(default_factory=dict)
    fetched: list[Range] = field(default_factory=list)

    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
        for position, data in LocalBlob(MemoryMedium(self.content)).fetch(ranges, ordered=ordered):
            self.fetched.append(ranges[position])
            if self.spoil.get(ranges[position].offset, 0):
                self.spoil[ranges[position].offset] -= 1
                data = bytes(len(data))
            yield position, data

    @property
    def total(self) -> int:
        return sum(length for _, length in self.fetched)


def seed_of(image: bytes, algorithm: Algorithm = Algorithm.SHA256) -> Seed:
    medium = MemoryMedium(image, name="seed")
    return Seed(medium, index_medium(medium, algorithm))


def small_recipe(image: bytes, chunk: int = 1000) -> Recipe:
    """Chunks of fixed size, stored as they are: many rows from few bytes."""
    table, units = OpTable(Algorithm.SHA256), Units(Algorithm.SHA256)
    for start in range(0, len(image), chunk):
        piece = image[start : start + chunk]
        digest = Algorithm.SHA256.of(piece)
        unit = units.add(blob=0, codec=0, offset=start, stored=len(piece), length=len(piece), digest=digest)
        table.add(len(piece), digest, Op(Kind.DATA, unit=unit))
    return Recipe(table, units, (Blob("memory", len(image)),), (Codec("none"),), chunker=f"fixed/{chunk}")


def small_seed(image: bytes, chunk: int = 1000) -> Seed:
    recipe = small_recipe(image, chunk)
    return Seed(MemoryMedium(image, name="seed"), Index(recipe.table.bounds, recipe.table.digests, recipe.chunker))
