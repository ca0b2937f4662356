# SPDX-License-Identifier: Apache-2.0
"""What a target consists of."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from enum import Enum

from regraft.model.digest import Algorithm, Digest, DigestColumn
from regraft.model.table import Kind, OpTable

#: Bytes of the shortest digest by which two chunks are taken for equal. It is zchunk's SHA-512/128.
SHORTEST_IDENTITY = 16


class Addressing(Enum):
    """What the positions in a blob count.

    BYTES: those of one file. FILES: the chunk files of a store, by a numbering that the format defines. A unit then
    starts at its number and is stored in 1 position; how many bytes that is, only the store knows. A RangeSource for
    such a blob gives the whole chunk file for each range, which has the length 1.
    """

    BYTES = "bytes"
    FILES = "files"


@dataclass(frozen=True, slots=True)
class Blob:
    """Where stored bytes lie: `location` is a path or a URL, `size` in positions if the format tells it."""

    location: str
    size: int | None = None
    addressing: Addressing = Addressing.BYTES


@dataclass(frozen=True, slots=True)
class Codec:
    """How a unit is stored. `dictionary` is the unit that must be decoded first and primes this codec.

    room: bytes to which a unit may decode, where the format does not tell: only the first `Units.length` count.
    patch: how PATCH operations join the decoded bytes with those of the base; one of `engine.patch.NAMES`.
    """

    name: str
    dictionary: int | None = None
    room: int = 0
    patch: str = ""


@dataclass(frozen=True, slots=True)
class Base:
    """The one image that a delta turns into its target: `size` in bytes; `digest` None if nothing tells it."""

    size: int
    digest: Digest | None = None


class Units:
    """Ranges of stored bytes in blobs that are decoded as a whole. 25 bytes and a digest each."""

    __slots__ = ("blob", "codec", "digests", "length", "offset", "stored")

    def __init__(self, algorithm: Algorithm | None) -> None:
        self.blob = array("H")
        self.codec = array("B")
        self.offset = array("Q")  #: of the stored bytes in the blob: a position as its `Addressing` has it
        self.stored = array("I")  #: stored length, in positions
        self.length = array("I")  #: decoded length
        self.digests = DigestColumn(algorithm)  #: of the stored bytes; absent if the format has none

    def add(self, *, blob: int, codec: int, offset: int, stored: int, length: int, digest: bytes | None) -> int:
        """Append a unit and return its number."""
        if (digest is None) != (self.digests.algorithm is None):
            raise ValueError("all units have a stored digest, or none has")
        if digest is not None:
            self.digests.append(digest)
        self.blob.append(blob)
        self.codec.append(codec)
        self.offset.append(offset)
        self.stored.append(stored)
        self.length.append(length)
        return len(self.blob) - 1

    def __len__(self) -> int:
        return len(self.blob)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A target image as a table of operations.

    In a recipe, COPY and PATCH refer to seed 0, the one base of a delta; chunked formats have only DATA (and ZERO).
    `base` is what is known of that base, None if there is none.
    `digest` is that of the whole target; None says that the format has none: then the rows' digests must cover every
    byte, or the release metadata must bring one.
    """

    table: OpTable
    units: Units
    blobs: tuple[Blob, ...]
    codecs: tuple[Codec, ...]
    digest: Digest | None = None
    chunker: str = ""  #: the rule that made the cuts, as in `Index.chunker`; empty if unknown
    identity: bytes = field(default=b"")  #: digest of the artifact's description: two recipes with it are the same
    base: Base | None = None

    @property
    def size(self) -> int:
        """Bytes of the target."""
        return self.table.size

    @property
    def matchable(self) -> Algorithm | None:
        """The algorithm by which equal chunks are known: of the rows' digests.

        None if there are no such digests, or if they are too short to stand for a chunk: bita keeps as few bytes as
        asked for. They still show damage; but what lies elsewhere is then not taken for a chunk on their word alone.
        """
        algorithm = self.table.digests.algorithm
        return algorithm if algorithm is not None and algorithm.size >= SHORTEST_IDENTITY else None

    @property
    def needs_base(self) -> bool:
        """Whether operations refer to seed 0."""
        return Kind.COPY in self.table.kind or Kind.PATCH in self.table.kind

    def verifiable(self) -> bool:
        """Whether every byte of the target is covered by a digest: of the image, of each row, or of each unit."""
        if self.digest is not None or self.table.digests.algorithm is not None:
            return True
        covered = (Kind.DATA, Kind.ZERO) if self.units.digests.algorithm is not None else (Kind.ZERO,)
        return all(kind in covered for kind in self.table.kind)

    def check(self) -> None:
        """Raise ValueError if an operation refers outside of its unit, codec or blob.

        A parser calls this last; ways out rely on it.
        """
        table, units = self.table, self.units
        base_size = self.base.size if self.base is not None else 1 << 64
        for row in range(len(table)):
            for number in range(table.first[row], table.first[row + 1]):
                if table.kind[number] in (Kind.DATA, Kind.PATCH):
                    unit = table.unit[number]
                    if unit >= len(units) or table.within[number] + table.length(row) > units.length[unit]:
                        raise ValueError(f"row {row} refers outside of its unit")
                if table.kind[number] in (Kind.COPY, Kind.PATCH) and table.at[number] + table.length(row) > base_size:
                    raise ValueError(f"row {row} refers outside of its base")
        for unit in range(len(units)):
            if units.blob[unit] >= len(self.blobs) or units.codec[unit] >= len(self.codecs):
                raise ValueError(f"unit {unit} refers to a blob or codec that is not there")
