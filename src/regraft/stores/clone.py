# SPDX-License-Identifier: Apache-2.0
"""The way out `store`: bring the chunks that a store lacks into it, then describe the image.

The missing chunks get their places in new packs before anything moves, so the engine's `Writer` executes the plan onto
those packs as it would onto a slot. What is recorded in an index stays; a clone that is run again goes on with that.
"""

from __future__ import annotations

import dataclasses
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
from regraft.model import Digest, DigestColumn, Recipe
from regraft.stores import names
from regraft.stores.arrivals import Arrivals
from regraft.stores.fill import fill
from regraft.stores.image import chunks_of, open_image
from regraft.stores.lookup import Lookup
from regraft.stores.packs import PackWriter, locate
from regraft.stores.store import Store
from regraft.stores.survey import OWN, Survey, survey


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
    task = _Task(store, name, _frame(recipe, "", {}), replace)
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
    task = _Task(store, name, _frame(recipe, source, metadata or {}), replace)
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


def _frame(recipe: Recipe, source: str, metadata: dict[str, bytes]) -> Description:
    """The description, but for the digests and which chunks are zeros."""
    table = recipe.table
    return Description(
        bounds=table.bounds,
        digests=DigestColumn(None),
        zero=bytearray(len(table)),
        chunker=recipe.chunker,
        digest=recipe.digest,
        source=source,
        identity=identity_of(recipe),
        metadata=metadata,
    )


@dataclass(frozen=True, slots=True)
class _Task:
    """The steps of a clone that change roots, or look at them. All are to be made under the store's lock."""

    store: Store
    name: str
    frame: Description
    replace: bool

    def existing(self) -> Description | None:
        """The image that has the name now. Raises StateError, BusyError if it is another one and has to stay."""
        found = self._described()
        if found is None or found.identity == self.frame.identity:
            return found
        if not self.replace:
            raise StateError(
                f"{self.store.path}/{self.name} is another image already",
                cure="give another name, or --replace this one",
            )
        self.store.check_unpinned(self.name)
        with self.store.claimed(self.name + names.IMAGE):
            return found

    def _described(self) -> Description | None:
        try:
            return self.store.description(self.name)
        except MissingError:
            return None
        except (StateError, FormatError):
            if not self.replace:
                raise
            self.store.check_unpinned(self.name)
            return None

    def present(self) -> int | None:
        """The bytes of its chunks, if the image is there already and complete."""
        found = self.existing()
        if found is None or found.identity != self.frame.identity:
            return None
        lookup = chunks_of(found).lookup
        return None if self._lacks(lookup) else sum(lookup.lengths)

    def _lacks(self, chunks: Lookup) -> int:
        """How many of these chunks are not in the store."""
        located = locate(self.store.directory, chunks, self.store.limits)
        located.close()
        return len(located.missing())

    def survey(self, recipe: Recipe, seeds: Sequence[Seed]) -> Survey:
        """What the store lacks."""
        known = self._twin() if recipe.matchable is None else None
        return survey(
            self.store.directory,
            recipe,
            seeds,
            known=known,
            description_size=image_description.size_of(self.frame, recipe.matchable or OWN),
            limits=self.store.limits,
        )

    def _twin(self) -> Description | None:
        """Any image that was cloned by the same recipe."""
        for name in self.store.images():
            with suppress(StateError, FormatError):
                found = self.store.description(name)
                if found.identity == self.frame.identity and found.bounds == self.frame.bounds:
                    return found
        return None

    def drop_intent(self) -> None:
        """An earlier clone of this image ended between its last two steps."""
        file = self.name + names.PARTIAL
        if self.store.directory.exists(file):
            with self.store.claimed(file):
                self.store.directory.remove(file)
                self.store.directory.sync_directory()

    def begin(self, looked: Survey, held: ExitStack) -> bool:
        """Make the intent durable and hold it; returns whether there was one for the same image."""
        file, resumed = self.name + names.PARTIAL, False
        if self.store.directory.exists(file):
            held.enter_context(self.store.claimed(file))
            with suppress(StateError, FormatError):
                resumed = self.store.description(self.name, names.PARTIAL).identity == self.frame.identity
        digests = looked.digests if looked.digests is not None else DigestColumn(None)
        intent = dataclasses.replace(self.frame, digests=digests, zero=looked.zero)
        save(self.store.directory, file, image_description.build(intent))
        held.enter_context(self.store.claimed(file))
        return resumed

    def finish(self, description: Description) -> None:
        """The last step: the description appears, the intent goes.

        Raises StateError if chunks that were there, or came from another clone, have proved damaged meanwhile.
        """
        if lost := self._lacks(chunks_of(description).lookup):
            raise StateError(
                f"{self.store.path}/{self.name}: {lost} chunks that were in the store proved damaged meanwhile",
                cure="run the same command again: it fetches them",
            )
        now = self.existing()
        if now is None or now.identity != description.identity:
            file = self.name + names.IMAGE
            with self.store.claimed(file):
                save(self.store.directory, file, image_description.build(description))
        self.store.directory.remove(self.name + names.PARTIAL)
        self.store.directory.sync_directory()


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
