# SPDX-License-Identifier: Apache-2.0
"""What a clone has to do: which chunks of an image the store lacks, and what that takes. Writes nothing."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from regraft.engine.match import match
from regraft.engine.medium import Directory
from regraft.engine.seeds import Seed
from regraft.errors import SpaceError
from regraft.formats import pack_index
from regraft.formats.image_description import Description
from regraft.formats.pack_index import BLOCK, blocks_of
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, DigestColumn, Kind, Plan, Recipe
from regraft.stores.image import Chunks
from regraft.stores.lookup import Lookup
from regraft.stores.packs import lay_out, locate
from regraft.stores.scattered import ZEROS, Places

#: By what chunks are known whose artifact has no digests of them, or too short ones.
OWN = Algorithm.SHA256


@dataclass(frozen=True, slots=True)
class Survey:
    """What is there and what is not. Sizes in bytes."""

    plan: Plan
    digests: DigestColumn | None  #: of the rows; None if they are known only when the bytes arrive
    zero: bytearray  #: a flag per row
    of: array[int]  #: the number of each row's chunk, ZEROS for zeros
    wanted: list[int]  #: the first row of each chunk that the store lacks, in order
    places: Places  #: for the wanted, in new packs
    pack_sizes: list[int]
    present: int  #: different bytes of the image that the store has
    missing: int  #: ... and those that it lacks
    disk: int  #: bytes of disk that it takes, at most
    free: int  #: bytes of disk that are free

    @property
    def algorithm(self) -> Algorithm:
        """By what the chunks are known in the store."""
        return (self.digests.algorithm if self.digests is not None else None) or OWN

    @property
    def finished(self) -> bytearray:
        """A flag per row: 0 for those that are wanted."""
        flags = bytearray(b"\1") * len(self.of)
        for row in self.wanted:
            flags[row] = 0
        return flags

    def check_space(self, directory: Directory) -> None:
        """Raises SpaceError."""
        if self.disk > self.free:
            raise SpaceError(
                f"{directory.path}: {self.disk} bytes are needed, {self.free} are free",
                cure="make room: regraft store rm, then regraft store gc",
            )


def survey(
    directory: Directory,
    recipe: Recipe,
    seeds: Sequence[Seed] = (),
    *,
    known: Description | None = None,
    only: Lookup | None = None,
    description_size: int = 0,
    limits: Limits = DEFAULT,
) -> Survey:
    """Look at what the store has of `recipe`. To be called under the store's lock.

    known: the description of an image that was cloned by the same recipe; it tells the digests if that does not.
    only: nothing but these chunks is wanted. description_size: bytes of the description that is going to be written.
    """
    plan = match(recipe, [(seed.medium.name, seed.index) for seed in seeds])
    table, rows = plan.table, len(plan.table)
    zero = bytearray(table.kind[table.first[row]] == Kind.ZERO for row in range(rows))
    digests = table.digests if recipe.matchable else None
    if digests is None and known is not None:
        digests = known.digests
        zero = bytearray(a | b for a, b in zip(zero, known.zero, strict=True))
    if digests is not None:
        wanted, of, present = _by_digest(directory, plan, digests, zero, limits)
        if only is not None:
            wanted = [row for row in wanted if only.find(digests[row], table.length(row)) >= 0]
    else:
        wanted, of = _by_unit(plan, zero)
        present = 0
    lengths = [table.length(row) for row in wanted]
    places, sizes = lay_out(lengths, limits)
    disk = _disk(lengths, digests.algorithm if digests else OWN, len(sizes))
    return Survey(
        plan=plan,
        digests=digests,
        zero=zero,
        of=of,
        wanted=wanted,
        places=places,
        pack_sizes=sizes,
        present=present,
        missing=sum(lengths),
        disk=disk + 2 * BLOCK * blocks_of(description_size),  # the intent, and then the description beside it
        free=directory.free_space(),
    )


def _by_digest(
    directory: Directory, plan: Plan, digests: DigestColumn, zero: bytearray, limits: Limits
) -> tuple[list[int], array[int], int]:
    """(wanted rows, chunk of each row, bytes that are there)."""
    algorithm = digests.algorithm or OWN
    chunks = Chunks(Lookup(algorithm), array("i", [ZEROS]) * len(plan.table))
    for row, digest in enumerate(digests):
        if not zero[row]:
            chunks.of[row] = chunks.lookup.add(digest, plan.table.length(row))
    found = locate(directory, chunks.lookup, limits)
    found.close()
    first = chunks.first_rows()
    missing = found.missing()
    lengths = chunks.lookup.lengths
    return sorted(first[chunk] for chunk in missing), chunks.of, sum(lengths) - sum(lengths[chunk] for chunk in missing)


def _by_unit(plan: Plan, zero: bytearray) -> tuple[list[int], array[int]]:
    """The same when there are no digests: what comes from the same stored bytes is the same."""
    table = plan.table
    seen: dict[tuple[int, int, int], int] = {}
    wanted: list[int] = []
    of = array("i", [ZEROS]) * len(table)
    for row in range(len(table)):
        if zero[row]:
            continue
        number = table.first[row]
        unit = table.unit[number] if table.kind[number] == Kind.DATA else -1 - row
        of[row] = seen.setdefault((unit, table.within[number], table.length(row)), len(seen))
        if of[row] == len(wanted):
            wanted.append(row)
    return wanted, of


def _disk(lengths: Sequence[int], algorithm: Algorithm | None, packs: int) -> int:
    """Bytes of packs and their indexes; at worst each record is a group of its own."""
    algorithm = algorithm or OWN
    record = len(pack_index.build_group(0, [0], [0], bytes(algorithm.size)))
    header = len(pack_index.build_header(0, algorithm))
    return sum(BLOCK * blocks_of(length) for length in lengths) + packs * (header + BLOCK) + record * len(lengths)
