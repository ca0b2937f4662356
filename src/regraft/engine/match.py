# SPDX-License-Identifier: Apache-2.0
"""Match a recipe with the indexes of seeds: the plan. Pure."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence

from regraft.errors import UsageError
from regraft.model import Algorithm, DigestColumn, Index, Kind, Op, OpTable, Plan, Recipe
from regraft.model.table import ZERO


def match(recipe: Recipe, seeds: Sequence[tuple[str, Index]]) -> Plan:
    """Put what is cheaper in front of each row's own operations: ZERO, then COPY from the first seed with the chunk.

    A row whose chunk occurred before in the recipe gets the earlier unit too, so that equal chunks are fetched once.
    Seeds are (name, index), best first. The rule of identity is that of zchunk: equal digests and equal lengths. A
    recipe without digests, or with such short ones that they prove nothing (`Recipe.matchable`), is its own plan. The
    first seed of a delta is its base. Raises UsageError if a delta has none.
    """
    if not seeds and recipe.needs_base:
        raise UsageError("this is a delta: it needs its base", cure="give the image it was made from")
    rows = recipe.table
    algorithm = recipe.matchable
    names = tuple(name for name, _ in seeds)
    if algorithm is None:
        return Plan(recipe, rows, names)
    table = OpTable(algorithm)
    chunks = _Chunks(rows.digests)
    chunks.look_in(seeds)
    zeros = _zero_digests(recipe)
    for row, digest in enumerate(rows.digests):
        length = rows.length(row)
        own = list(rows.ops(row))
        better: list[Op] = []
        if zeros.get(length) == digest:
            better.append(ZERO)
        number = chunks.number[digest]
        source = chunks.seed[number]
        if source >= 0 and chunks.length[number] == length:
            better.append(Op(Kind.COPY, source=source, at=chunks.at[number]))
        if own[0].kind is Kind.DATA:
            first = chunks.first[number]
            if first < 0:
                chunks.first[number] = row
            elif rows.length(first) == length and (earlier := rows.op(rows.first[first])) != own[0]:
                better.append(earlier)
        table.add(length, digest, *better, *own)
    return Plan(recipe, table, names)


class _Chunks:
    """The different digests of a recipe, numbered, and what is known of each: columns, for a device has little memory.

    seed, at, length: where the chunk lies in a seed; seed is -1 if in none. first: the first row that has it, or -1.
    """

    def __init__(self, digests: DigestColumn) -> None:
        self.number: dict[bytes, int] = {}
        for digest in digests:
            self.number.setdefault(digest, len(self.number))
        count = len(self.number)
        self.seed = array("i", [-1]) * count
        self.at = array("Q", [0]) * count
        self.length = array("Q", [0]) * count
        self.first = array("i", [-1]) * count
        self._algorithm = digests.algorithm

    def look_in(self, seeds: Sequence[tuple[str, Index]]) -> None:
        """The first occurrence in the first seed wins."""
        for source, (_, index) in enumerate(seeds):
            if index.digests.algorithm != self._algorithm:
                continue
            for chunk, digest in enumerate(index.digests):
                number = self.number.get(digest, -1)
                if number >= 0 and self.seed[number] < 0:
                    self.seed[number] = source
                    self.at[number] = index.bounds[chunk]
                    self.length[number] = index.bounds[chunk + 1] - index.bounds[chunk]


def _zero_digests(recipe: Recipe) -> dict[int, bytes]:
    """Length -> digest of so many zeros, for the lengths that a zero chunk can have.

    A run of zeros is cut into chunks of the maximum length, which therefore occurs often, and a last one. Only a few
    lengths are tried: who makes up a recipe must not be able to make us hash for ever.
    """
    rows = recipe.table
    algorithm = rows.digests.algorithm
    if algorithm is None or not len(rows):
        return {}
    counts = Counter(rows.length(row) for row in range(len(rows)))
    lengths = {max(counts), rows.length(len(rows) - 1)} | {
        length for length, count in counts.most_common(16) if count > 7
    }
    return {length: digest_of_zeros(length, algorithm) for length in lengths}


def digest_of_zeros(length: int, algorithm: Algorithm) -> bytes:
    """The digest of `length` zeros, of which there are never many at once."""
    hasher, zeros = algorithm.hasher(), bytes(min(length, 1 << 16))
    for start in range(0, length, 1 << 16):
        hasher.update(zeros[: length - start])
    return hasher.digest()


def wanted_units(plan: Plan, rows: Iterator[int] | Sequence[int], level: Sequence[int]) -> dict[int, list[int]]:
    """unit -> the rows that want it, for those `rows` whose current operation (first + level) is DATA or PATCH."""
    table = plan.table
    wanted: dict[int, list[int]] = {}
    for row in rows:
        number = table.first[row] + level[row]
        if table.kind[number] in (Kind.DATA, Kind.PATCH):
            wanted.setdefault(table.unit[number], []).append(row)
    return wanted
