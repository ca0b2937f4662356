# SPDX-License-Identifier: Apache-2.0
"""Match a recipe with the indexes of seeds: the plan. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from regraft.model import Algorithm, Index, Kind, Op, OpTable, Plan, Recipe
from regraft.model.table import ZERO


def match(recipe: Recipe, seeds: Sequence[tuple[str, Index]]) -> Plan:
    """Put what is cheaper in front of each row's own operations: ZERO, then COPY from the first seed with the chunk.

    A row whose chunk occurred before in the recipe gets the earlier unit too, so that equal chunks are fetched once.
    Seeds are (name, index), best first. The rule of identity is that of zchunk: equal digests and equal lengths. A
    recipe without digests, or with such short ones that they prove nothing (`Recipe.matchable`), is its own plan.
    """
    rows = recipe.table
    algorithm = recipe.matchable
    names = tuple(name for name, _ in seeds)
    if algorithm is None:
        return Plan(recipe, rows, names)
    table = OpTable(algorithm)
    known = _lookup(seeds, algorithm, set(rows.digests))
    zeros = _zero_digests(recipe)
    first_unit: dict[bytes, Op] = {}
    for row, digest in enumerate(rows.digests):
        length = rows.length(row)
        own = list(rows.ops(row))
        better: list[Op] = []
        if zeros.get(length) == digest:
            better.append(ZERO)
        found = known.get(digest)
        if found is not None and found[2] == length:
            better.append(Op(Kind.COPY, source=found[0], at=found[1]))
        if own[0].kind is Kind.DATA:
            earlier = first_unit.setdefault(digest, own[0])
            if earlier is not own[0]:
                better.append(earlier)
        table.add(length, digest, *better, *own)
    return Plan(recipe, table, names)


def _lookup(
    seeds: Sequence[tuple[str, Index]], algorithm: Algorithm, wanted: set[bytes]
) -> dict[bytes, tuple[int, int, int]]:
    """digest -> (seed, offset, length), for wanted digests only; the first occurrence in the first seed wins."""
    known: dict[bytes, tuple[int, int, int]] = {}
    for number, (_, index) in enumerate(seeds):
        if index.digests.algorithm != algorithm:
            continue
        for chunk, digest in enumerate(index.digests):
            if digest in wanted and digest not in known:
                start = index.bounds[chunk]
                known[digest] = (number, start, index.bounds[chunk + 1] - start)
    return known


def _zero_digests(recipe: Recipe) -> dict[int, bytes]:
    """Length -> digest of so many zeros, for the lengths that a zero chunk can have.

    A run of zeros is cut into chunks of the maximum length, which therefore occurs more than once, and a last one.
    """
    rows = recipe.table
    algorithm = rows.digests.algorithm
    if algorithm is None or not len(rows):
        return {}
    counts = Counter(rows.length(row) for row in range(len(rows)))
    lengths = {max(counts), rows.length(len(rows) - 1)} | {length for length, count in counts.items() if count > 7}
    return {length: _of_zeros(length, algorithm) for length in lengths}


def _of_zeros(length: int, algorithm: Algorithm) -> bytes:
    """The digest of `length` zeros, of which there are never many at once."""
    hasher, zeros = algorithm.hasher(), bytes(min(length, 1 << 16))
    for start in range(0, length, 1 << 16):
        hasher.update(zeros[: length - start])
    return hasher.digest()


def wanted_units(plan: Plan, rows: Iterator[int] | Sequence[int], level: Sequence[int]) -> dict[int, list[int]]:
    """unit -> the rows that want it, for those `rows` whose current operation (first + level) is DATA."""
    table = plan.table
    wanted: dict[int, list[int]] = {}
    for row in rows:
        number = table.first[row] + level[row]
        if table.kind[number] == Kind.DATA:
            wanted.setdefault(table.unit[number], []).append(row)
    return wanted
