# SPDX-License-Identifier: Apache-2.0
"""The steps of bringing an image into a store that change roots, or look at them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from regraft.engine.medium import save
from regraft.engine.seeds import Seed
from regraft.engine.state import identity_of
from regraft.errors import FormatError, MissingError, StateError
from regraft.formats import image_description
from regraft.formats.image_description import Description
from regraft.model import DigestColumn, Recipe
from regraft.stores import names
from regraft.stores.image import chunks_of
from regraft.stores.lookup import Lookup
from regraft.stores.packs import locate
from regraft.stores.store import Store
from regraft.stores.survey import OWN, Survey, survey


def frame_of(recipe: Recipe, source: str, metadata: dict[str, bytes]) -> Description:
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
class Task:
    """An image on its way into a store. All steps are to be made under the store's lock."""

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
