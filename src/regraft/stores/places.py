# SPDX-License-Identifier: Apache-2.0
"""STORE/NAME in the place of a file: an image of a chunk store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from regraft.engine import seeds
from regraft.engine.progress import QUIET, Progress
from regraft.engine.seeds import Seed, index_medium
from regraft.errors import StateError
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm
from regraft.stores import names
from regraft.stores.image import StoredImage
from regraft.stores.store import open_store


def stored(what: str) -> tuple[str, str] | None:
    """STORE/NAME -> (path of the store, name of the image); None if there is a file of this name, or no store."""
    if "://" in what or os.path.lexists(what):
        return None
    folder, name = os.path.split(what)
    folder = folder or "."
    return (folder, name) if name and os.path.isfile(os.path.join(folder, names.MARKER)) else None


@contextmanager
def open_stored(place: tuple[str, str], *, limits: Limits = DEFAULT) -> Iterator[StoredImage]:
    """Open what `stored` has found; it is in use until the end of the block, so that it cannot be removed.

    Raises UsageError for a name that no image can have, MissingError, StateError if it is not complete.
    """
    folder, name = place
    with open_store(folder, limits=limits) as store:
        file = names.check_name(name)
        if not store.directory.exists(file + names.IMAGE) and store.directory.exists(file + names.PARTIAL):
            raise StateError(
                f"{folder}/{name} is not complete yet",
                cure="clone it to the end, or serve its artifact with --keep",
            )
        with store.image(name) as image:
            if image.missing:
                raise image.incomplete()
            yield image


def open_seed(
    place: str,
    algorithm: Algorithm,
    chunker: str,
    held: ExitStack,
    *,
    size: int | None = None,
    progress: Progress = QUIET,
) -> Seed:
    """A seed until `held` ends: a file, a block device, or an image of a store, which need not be read to be known.

    Raises as `engine.seeds.open_seed` and `open_stored` do.
    """
    if (found := stored(place)) is None:
        seed = seeds.open_seed(place, algorithm, chunker, size=size, progress=progress)
        held.callback(seed.medium.close)
        return seed
    image = held.enter_context(open_stored(found))
    seed = image.seed()
    if (seed.index.digests.algorithm, seed.index.chunker) != (algorithm, chunker):
        seed = Seed(image.medium, index_medium(image.medium, algorithm, chunker, progress=progress))
    return seed
