# SPDX-License-Identifier: Apache-2.0
"""Bring back the chunks that an image lacks, from any artifact or store that has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from regraft.engine.blobs import LocalBlob
from regraft.engine.progress import QUIET, Progress
from regraft.engine.ranges import RangeSource
from regraft.engine.state import identity_of
from regraft.errors import StateError
from regraft.formats.image_description import Description
from regraft.limits import DEFAULT, Limits
from regraft.model import Blob, Codec, Kind, Op, OpTable, Recipe, Units
from regraft.stores.arrivals import Arrivals
from regraft.stores.fill import fill
from regraft.stores.image import chunks_of
from regraft.stores.lookup import Lookup
from regraft.stores.packs import PackWriter, locate
from regraft.stores.store import Store
from regraft.stores.survey import survey


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a repair did."""

    missing: int  #: different chunks, before
    repaired: int  #: of them
    fetched: int  #: stored bytes taken from the source


def missing_chunks(store: Store, name: str) -> Lookup:
    """The chunks of an image that are not in the store."""
    with store.locked(shared=True):
        return _missing(store, store.description(name))


def _missing(store: Store, description: Description) -> Lookup:
    chunks = chunks_of(description).lookup
    missing = Lookup(chunks.algorithm)
    found = locate(store.directory, chunks, store.limits)
    found.close()
    for chunk in found.missing():
        missing.add(chunks.digests[chunk], chunks.lengths[chunk])
    return missing


def repair(
    store: Store,
    name: str,
    recipe: Recipe,
    blobs: Sequence[RangeSource],
    *,
    workers: int = 0,
    limits: Limits = DEFAULT,
    progress: Progress = QUIET,
) -> Outcome:
    """Fetch the chunks that image `name` lacks and `recipe`, of whatever image, has.

    Raises StateError if chunks of the two cannot be compared; what a clone raises.
    """
    with ExitStack() as held:
        with store.locked():
            description = store.description(name)
            missing = _missing(store, description)
            if not len(missing):
                return Outcome(0, 0, 0)
            same = description.identity == identity_of(recipe) and description.bounds == recipe.table.bounds
            if recipe.matchable != missing.algorithm and not (same and recipe.matchable is None):
                raise StateError(
                    f"{store.path}/{name} knows its chunks by {missing.algorithm.label}, the source does not",
                    cure=f"give the artifact that it was cloned from: {description.source or 'not known'}",
                )
            looked = survey(
                store.directory, recipe, known=description if same else None, only=missing, limits=store.limits
            )
            looked.check_space(store.directory)
            writer = PackWriter(store.directory, looked.algorithm, len(looked.pack_sizes), limits=limits)
            held.callback(writer.close)
        arrivals = Arrivals(name, looked, writer)
        fetched, _ = fill(looked, arrivals, writer, [], blobs, workers=workers, limits=limits, progress=progress)
    return Outcome(len(missing), len(looked.wanted), fetched)


@contextmanager
def chunks_in(other: Store, wanted: Lookup) -> Iterator[tuple[Recipe, list[LocalBlob]]]:
    """What another store has of these chunks, as a recipe with a row for each of them, and its blobs."""
    with other.locked(shared=True):
        found = locate(other.directory, wanted, other.limits)
    try:
        table, units = OpTable(wanted.algorithm), Units(None)
        for chunk, pack in enumerate(found.places.pack):
            length = wanted.lengths[chunk]
            if pack >= 0:
                offset = found.places.offset[chunk]
                unit = units.add(blob=pack, codec=0, offset=offset, stored=length, length=length, digest=None)
                table.add(length, wanted.digests[chunk], Op(Kind.DATA, unit=unit))
        blobs = tuple(Blob(pack.name, pack.size) for pack in found.packs)
        yield Recipe(table, units, blobs, (Codec("none"),)), [LocalBlob(pack) for pack in found.packs]
    finally:
        found.close()
