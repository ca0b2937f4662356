# SPDX-License-Identifier: Apache-2.0
"""Plans over their own base for tests, with the image that they must make."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from regraft.engine.blobs import LocalBlob
from regraft.engine.merge import Merge
from regraft.engine.merge_journal import open_journal
from regraft.engine.throttle import Throttle
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, Blob, Codec, Digest, Kind, Op, OpTable, Plan, Recipe, Units
from regraft.model.table import ZERO
from regraft.testing.crash import MemoryDirectory
from regraft.testing.memory import MemoryMedium

JOURNAL = "slot.merge"


@dataclass
class Job:
    """A base, a plan over it, the stored bytes that it needs, and the image it must become."""

    old: bytes
    new: bytes
    plan: Plan
    stored: bytes

    @property
    def blobs(self) -> list[LocalBlob]:
        return [LocalBlob(MemoryMedium(self.stored, name="stored"))]

    def merge(self, base, directory, *, limits: Limits = DEFAULT, **options) -> Merge:  # type: ignore[no-untyped-def]
        """A merge of this job, as a run of the command makes it."""
        journal = open_journal(directory, JOURNAL, limits=limits)
        options.setdefault("base_digest", Digest.of(self.old))
        return Merge(
            self.plan, base, self.blobs, journal, base_size=len(self.old), limits=limits, throttle=Throttle(), **options
        )

    def medium(self, *, device: bool = True) -> MemoryMedium:
        """The base, as large as a device must be."""
        content = self.old if not device else self.old + bytes(max(len(self.new) - len(self.old), 0))
        return MemoryMedium(content, name="slot", device=device)


@dataclass
class Builder:
    """Rows in target order. A row made from the base has stored bytes as an alternative if `alternatives` says so."""

    old: bytes
    alternatives: bool = True
    digests: bool = True
    new: bytearray = field(default_factory=bytearray)
    stored: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        algorithm = Algorithm.SHA256 if self.digests else None
        self._table, self._units = OpTable(algorithm), Units(Algorithm.SHA256)

    def _unit(self, data: bytes, codec: int = 0) -> int:
        self.stored += data
        return self._units.add(
            blob=0, codec=codec, offset=len(self.stored) - len(data), stored=len(data), length=len(data),
            digest=Algorithm.SHA256.of(data),
        )  # fmt: skip

    def _row(self, data: bytes, *ops: Op) -> None:
        self.new += data
        self._table.add(len(data), Algorithm.SHA256.of(data) if self.digests else None, *ops)

    def _other(self, data: bytes) -> list[Op]:
        return [Op(Kind.DATA, unit=self._unit(data))] if self.alternatives else []

    def zero(self, length: int) -> None:
        self._row(bytes(length), ZERO)

    def data(self, data: bytes) -> None:
        self._row(data, Op(Kind.DATA, unit=self._unit(data)))

    def copy(self, at: int, length: int) -> None:
        data = self.old[at : at + length]
        self._row(data, Op(Kind.COPY, at=at), *self._other(data))

    def xor(self, at: int, mask: bytes) -> None:
        data = bytes(a ^ b for a, b in zip(self.old[at : at + len(mask)], mask, strict=True))
        self._row(data, Op(Kind.PATCH, at=at, unit=self._unit(mask, codec=1)), *self._other(data))

    def add(self, at: int, change: bytes) -> None:
        data = bytes((a + b) % 256 for a, b in zip(self.old[at : at + len(change)], change, strict=True))
        self._row(data, Op(Kind.PATCH, at=at, unit=self._unit(change, codec=2)), *self._other(data))

    def job(self) -> Job:
        blobs = (Blob("stored", len(self.stored)),)
        codecs = (Codec("none"), Codec("none", patch="xor"), Codec("none", patch="add"))
        recipe = Recipe(self._table, self._units, blobs, codecs, Digest.of(self.new))
        recipe.check()
        return Job(self.old, bytes(self.new), Plan(recipe, self._table, ("slot",)), bytes(self.stored))


def blocks_job(old: bytes, source: list[int], block: int, **options: bool) -> Job:
    """Each block copied from the block that `source` names."""
    builder = Builder(old, **options)
    for number in source:
        builder.copy(number * block, block)
    return builder.job()


def mixed_job(chance: random.Random, blocks: int, block: int, *, xor: bool = True, alternatives: bool = True) -> Job:
    """Rows of all kinds at random, in a base of as many blocks."""
    old = chance.randbytes(blocks * block)
    builder = Builder(old, alternatives=alternatives)
    left = blocks
    while left:
        count = min(chance.choice((1, 1, 1, 2, 3)), left)
        length = count * block
        what = chance.random()
        if what < 0.1:
            builder.zero(length)
        elif what < 0.25:
            builder.data(chance.randbytes(length))
        elif what < 0.45 and xor:
            at = chance.randrange(len(old) - length + 1)
            builder.xor(at, chance.randbytes(length))
        elif what < 0.55:
            builder.copy(len(builder.new), length)
        else:
            builder.copy(chance.randrange((len(old) - length) // block + 1) * block, length)
        left -= count
    return builder.job()


def state() -> MemoryDirectory:
    return MemoryDirectory()
