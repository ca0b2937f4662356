# SPDX-License-Identifier: Apache-2.0
"""The way out `store`: bring the chunks that a store lacks into it, then describe the image.

The missing chunks get their places in new packs before anything moves, so the engine's `Writer` executes the plan onto
those packs as it would onto a slot. What is recorded in an index stays; a clone that is run again goes on with that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from regraft.engine.progress import QUIET, Progress
from regraft.engine.ranges import RangeSource
from regraft.engine.seeds import Seed
from regraft.engine.verify import digest_of
from regraft.errors import DigestError, VerificationError
from regraft.formats.image_description import Description
from regraft.limits import DEFAULT, Limits
from regraft.model import Digest, Recipe
from regraft.stores.arrivals import Arrivals
from regraft.stores.fill import fill
from regraft.stores.image import open_image
from regraft.stores.packs import PackWriter
from regraft.stores.store import Store
from regraft.stores.survey import Survey
from regraft.stores.task import Task, frame_of


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a clone did. Sizes in bytes."""

    size: int  #: of the image
    written: int  #: chunks that came into the store
    present: int  #: chunks that were there
    fetched: int  #: stored bytes taken from blobs
    replaced: int  #: chunks whose first source failed and another one had them
    resumed: bool  #: whether an interrupted clone was continued
    unchanged: bool  #: whether the image was there already, complete


def plan(store: Store, name: str, recipe: Recipe, seeds: Sequence[Seed] = (), *, replace: bool = False) -> Survey:
    """What `clone` would do. Writes nothing; raises what it would raise before it writes, but SpaceError."""
    task = Task(store, name, frame_of(recipe, "", {}), replace)
    with store.locked():
        task.existing()
        return task.survey(recipe, seeds)


def clone(
    store: Store,
    name: str,
    recipe: Recipe,
    blobs: Sequence[RangeSource],
    *,
    seeds: Sequence[Seed] = (),
    source: str = "",
    metadata: dict[str, bytes] | None = None,
    replace: bool = False,
    workers: int = 0,
    limits: Limits = DEFAULT,
    progress: Progress = QUIET,
) -> Outcome:
    """Make `name` the image that `recipe` describes, fetching only chunks that neither store nor seeds have.

    Interrupted at any point, the same call continues. Every chunk is hashed before it is stored and after it was read
    back; the digest of the whole image is checked where no digests of chunks prove it already.

    replace: `name` may be another image now. Raises SpaceError before anything is written; StateError, BusyError if
    `name` must not change; VerificationError; TransportError, DigestError, MediumError with all finished chunks kept.
    """
    if recipe.matchable is None and recipe.digest is None and recipe.units.digests.algorithm is None:
        raise VerificationError("nothing covers the bytes of this image", cure="use an artifact that has digests")
    task = Task(store, name, frame_of(recipe, source, metadata or {}), replace)
    with ExitStack() as held:
        with store.locked():
            present = task.present()
            if present is not None:
                task.drop_intent()
                return Outcome(recipe.size, 0, present, 0, 0, False, True)
            looked = task.survey(recipe, seeds)
            looked.check_space(store.directory)
            resumed = task.begin(looked, held)
            writer = PackWriter(store.directory, looked.algorithm, len(looked.pack_sizes), limits=limits)
            held.callback(writer.close)
        arrivals = Arrivals(name, looked, writer)
        fetched, again = fill(looked, arrivals, writer, seeds, blobs, workers=workers, limits=limits, progress=progress)
        description = dataclasses.replace(task.frame, digests=arrivals.all_digests(), zero=arrivals.all_zeros())
        if recipe.matchable is None and recipe.digest is not None:
            _check_image(store, name, description, recipe.digest, progress)
        with store.locked():
            task.finish(description)
    written = sum(recipe.table.length(row) for row in looked.wanted if not arrivals.zeros[row])
    return Outcome(recipe.size, written, looked.present, fetched, again, resumed, False)


def _check_image(store: Store, name: str, description: Description, digest: Digest, progress: Progress) -> None:
    """Short digests of chunks prove nothing: the whole has to be right."""
    with store.locked(shared=True):
        image = open_image(store.directory, name, description, store.limits)
    try:
        progress.phase("verify", image.size)
        if not digest_of(image.medium, image.size, digest, progress=progress):
            raise DigestError(f"{name}: the image differs from the digest that its artifact gives")
    finally:
        image.close()
