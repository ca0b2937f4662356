# SPDX-License-Identifier: Apache-2.0
"""An open image of a store: a recipe whose stored bytes are ranges of packs, for every way out."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace

from regraft.engine.blobs import LocalBlob
from regraft.engine.medium import Directory, Medium
from regraft.engine.seeds import Seed
from regraft.errors import StateError
from regraft.formats.image_description import Description
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, Blob, Codec, Index, Kind, OpTable, Recipe, Units
from regraft.stores.lookup import Lookup
from regraft.stores.packs import Found, locate
from regraft.stores.scattered import ZEROS, Places, Scattered


@dataclass(frozen=True, slots=True)
class Chunks:
    """The different chunks of an image. `of` has the number of each row's chunk, `ZEROS` for a row of zeros."""

    lookup: Lookup
    of: array[int]

    def places(self, found: Places) -> Places:
        """Where each row lies, from where each chunk does."""
        rows = Places(len(self.of))
        for row, chunk in enumerate(self.of):
            if chunk == ZEROS:
                rows.pack[row] = ZEROS
            else:
                rows.pack[row], rows.offset[row] = found.pack[chunk], found.offset[chunk]
        return rows

    def first_rows(self) -> array[int]:
        """The first row of each chunk."""
        first = array("q", [-1]) * len(self.lookup)
        for row in range(len(self.of) - 1, -1, -1):
            if self.of[row] >= 0:
                first[self.of[row]] = row
        return first


def chunks_of(description: Description) -> Chunks:
    """The different chunks of a description that has digests."""
    algorithm = description.digests.algorithm
    if algorithm is None:
        return Chunks(Lookup(Algorithm.SHA256), array("i"))
    lookup, of = Lookup(algorithm), array("i", [ZEROS]) * len(description)
    for row, digest in enumerate(description.digests):
        if not description.zero[row]:
            of[row] = lookup.add(digest, description.length(row))
    return Chunks(lookup, of)


class StoredImage:
    """An image of a store, opened by `Store.image`.

    packs: open media, which `Recipe.blobs` count; real ones have a `fileno`. medium: the image as one run of bytes,
    read as it lies in the packs, unverified.
    """

    def __init__(self, name: str, description: Description, chunks: Chunks, found: Found) -> None:
        self.name, self.description, self.chunks = name, description, chunks
        self.packs: list[Medium] = found.packs
        self._found = found
        self.places = chunks.places(found.places)
        self.medium = Scattered(name, description.bounds, self.places, found.packs)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.description.size

    @property
    def missing(self) -> int:
        """Different chunks that are not in the store."""
        return len(self._found.missing())

    @property
    def blobs(self) -> list[LocalBlob]:
        """A source for each blob of the recipe."""
        return [LocalBlob(pack) for pack in self.packs]

    def at(self, row: int) -> tuple[int, int] | None:
        """(position in `packs`, byte offset in that pack) of a row's bytes; None for a row of zeros.

        Raises StateError if the chunk is not in the store.
        """
        pack = self.places.pack[row]
        if pack == ZEROS:
            return None
        if pack < 0:
            raise self.incomplete()
        return pack, self.places.offset[row]

    def recipe(self) -> Recipe:
        """Rows of zeros, and rows of data in units that lie in the packs as they are.

        Raises StateError if chunks are missing.
        """
        if self.missing:
            raise self.incomplete()
        description, lookup, places = self.description, self.chunks.lookup, self._found.places
        units = Units(None)
        units.blob = array("H", places.pack)
        units.codec = array("B", bytes(len(lookup)))
        units.offset, units.stored, units.length = places.offset[:], lookup.lengths[:], lookup.lengths[:]
        table = OpTable(description.digests.algorithm)
        count = len(description)
        table.bounds, table.digests = description.bounds, description.digests
        table.first = array("I", range(count + 1))
        table.kind = array("B", [Kind.ZERO if chunk == ZEROS else Kind.DATA for chunk in self.chunks.of])
        table.unit = array("I", [max(chunk, 0) for chunk in self.chunks.of])
        table.source, table.at, table.within = (
            array("H", bytes(2 * count)),
            array("Q", bytes(8 * count)),
            array("I", bytes(4 * count)),
        )
        blobs = tuple(Blob(pack.name, pack.size) for pack in self.packs)
        return Recipe(
            table,
            units,
            blobs,
            (Codec("none"),),
            digest=description.digest,
            chunker=description.chunker,
            identity=description.identity,
        )

    def seed(self) -> Seed:
        """The image as a seed: what is in the store need not be cut and hashed again."""
        description = self.description
        return Seed(self.medium, Index(description.bounds, description.digests, description.chunker))

    def as_one(self) -> Recipe:
        """As `recipe`, but for units that lie in a single blob: the image's medium."""
        recipe, bounds = self.recipe(), self.description.bounds
        units = recipe.units
        units.blob = array("H", bytes(2 * len(units)))
        units.offset = array("Q", [bounds[row] for row in self.chunks.first_rows()])
        return replace(recipe, blobs=(Blob(self.name, self.size),))

    def incomplete(self) -> StateError:
        """What to raise when chunks are missing."""
        return StateError(
            f"{self.missing} chunks of {self.name} are not in the store",
            cure="fetch them again: regraft store repair STORE NAME URL",
        )

    def close(self) -> None:
        self._found.close()


def open_image(directory: Directory, name: str, description: Description, limits: Limits = DEFAULT) -> StoredImage:
    """Find the chunks of an image. To be called under the store's lock."""
    chunks = chunks_of(description)
    return StoredImage(name, description, chunks, locate(directory, chunks.lookup, limits))
