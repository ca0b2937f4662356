# SPDX-License-Identifier: Apache-2.0
"""The way out `store`: bring the chunks that a store lacks into it, then describe the image.

The missing chunks get their places in new packs before anything moves, so the engine's `Writer` executes the plan onto
those packs as it would onto a slot. What is recorded in an index stays; a clone that is run again goes on with that.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from regraft.engine.medium import save
from regraft.engine.progress import QUIET, Progress
from regraft.engine.ranges import RangeSource
from regraft.engine.seeds import Seed
from regraft.engine.state import identity_of
from regraft.engine.verify import digest_of
from regraft.errors import DigestError, FormatError, MissingError, StateError, VerificationError
from regraft.formats import image_description
from regraft.formats.image_description import Description
from regraft.limits import DEFAULT, Limits
from regraft.model import Recipe
from regraft.stores import names
from regraft.stores.arrivals import Arrivals
from regraft.stores.fill import fill
from regraft.stores.image import open_image
from regraft.stores.packs import PackWriter
from regraft.stores.store import Store
from regraft.stores.survey import Survey, survey


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
    """What `clone` would do. Writes nothing; raises what it would raise before it writes."""
    with store.locked():
        _, looked = _look(store, name, recipe, seeds, "", {}, replace)
    return looked


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
    _check_covered(recipe)
    with ExitStack() as held:
        with store.locked():
            existing, looked = _look(store, name, recipe, seeds, source, metadata or {}, replace)
            if existing is not None and existing.identity == identity_of(recipe) and not looked.wanted:
                _drop_intent(store, name)
                return Outcome(recipe.size, 0, looked.present, 0, 0, False, True)
            looked.check_space(store.directory)
            resumed = _begin(store, name, recipe, looked, held)
            writer = PackWriter(store.directory, looked.algorithm, len(looked.pack_sizes), limits=limits)
            held.callback(writer.close)
        arrivals = Arrivals(name, looked, writer)
        fetched, replaced = fill(
            looked, arrivals, writer, seeds, blobs, workers=workers, limits=limits, progress=progress
        )
        description = _describe(recipe, looked, arrivals, source, metadata or {})
        if recipe.matchable is None and recipe.digest is not None:
            _check_image(store, name, description, recipe, progress)
        with store.locked():
            _finish(store, name, existing, description, replace)
    written = sum(recipe.table.length(row) for row in looked.wanted if not arrivals.zeros[row])
    return Outcome(recipe.size, written, looked.present, fetched, replaced, resumed, False)


def _check_covered(recipe: Recipe) -> None:
    if recipe.matchable is None and recipe.digest is None and recipe.units.digests.algorithm is None:
        raise VerificationError("nothing covers the bytes of this image", cure="use an artifact that has digests")


def _look(
    store: Store,
    name: str,
    recipe: Recipe,
    seeds: Sequence[Seed],
    source: str,
    metadata: dict[str, bytes],
    replace: bool,
) -> tuple[Description | None, Survey]:
    identity = identity_of(recipe)
    existing = _existing(store, name, replace)
    if existing is not None and existing.identity != identity:
        if not replace:
            raise StateError(
                f"{store.path}/{name} is another image already", cure="give another name, or --replace this one"
            )
        store.check_unpinned(name)
        with store.claimed(name + names.IMAGE):
            pass
    known = None
    if recipe.matchable is None:
        known = next((found for found in _sound(store) if found.identity == identity), None)
    looked = survey(store.directory, recipe, seeds, known=known, source=source, metadata=metadata, limits=store.limits)
    return existing, looked


def _existing(store: Store, name: str, replace: bool) -> Description | None:
    try:
        return store.description(name)
    except MissingError:
        return None
    except (StateError, FormatError):
        if not replace:
            raise
        store.check_unpinned(name)
        return None


def _sound(store: Store) -> list[Description]:
    found = []
    for name in store.images():
        with suppress(StateError, FormatError):
            found.append(store.description(name))
    return found


def _drop_intent(store: Store, name: str) -> None:
    """An earlier clone of this image ended between its last two steps."""
    if store.directory.exists(name + names.PARTIAL):
        with store.claimed(name + names.PARTIAL):
            store.directory.remove(name + names.PARTIAL)
            store.directory.sync_directory()


def _begin(store: Store, name: str, recipe: Recipe, looked: Survey, held: ExitStack) -> bool:
    """Make the intent durable and hold it; returns whether it was there before."""
    file, resumed = name + names.PARTIAL, False
    if store.directory.exists(file):
        held.enter_context(store.claimed(file))
        with suppress(StateError, FormatError):
            resumed = store.description(name, names.PARTIAL).identity == identity_of(recipe)
    save(store.directory, file, looked.intent)
    held.enter_context(store.claimed(file))
    return resumed


def _describe(
    recipe: Recipe, looked: Survey, arrivals: Arrivals, source: str, metadata: dict[str, bytes]
) -> Description:
    digests, zero = arrivals.all_digests(), arrivals.all_zeros()
    return Description(
        recipe.table.bounds, digests, zero, recipe.chunker, recipe.digest, source, identity_of(recipe), metadata
    )


def _check_image(store: Store, name: str, description: Description, recipe: Recipe, progress: Progress) -> None:
    """Short digests of chunks prove nothing: the whole has to be right."""
    assert recipe.digest is not None  # noqa: S101 - the caller has looked
    with store.locked(shared=True):
        image = open_image(store.directory, name, description, store.limits)
    try:
        progress.phase("verify", image.size)
        if not digest_of(image.medium, image.size, recipe.digest, progress=progress):
            raise DigestError(f"{name}: the image differs from the digest that its artifact gives")
    finally:
        image.close()


def _finish(store: Store, name: str, existing: Description | None, description: Description, replace: bool) -> None:
    """The last step: the description appears, the intent goes."""
    file = name + names.IMAGE
    now = _existing(store, name, replace)
    if now is None or now.identity != description.identity:
        if now is not None and (not replace or existing is None):
            raise StateError(f"{store.path}/{name} has become another image meanwhile")
        if now is not None:
            store.check_unpinned(name)
        with store.claimed(file):
            save(store.directory, file, image_description.build(description))
    store.directory.remove(name + names.PARTIAL)
    store.directory.sync_directory()
