# SPDX-License-Identifier: Apache-2.0
"""What the verbs of chunk stores share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import click

from regraft.errors import StateError

if TYPE_CHECKING:
    from regraft.engine.progress import Progress
    from regraft.engine.seeds import Seed
    from regraft.model import Algorithm
    from regraft.stores.store import Store

store_argument = click.argument("store", type=click.Path(file_okay=False))


@contextmanager
def opened(path: str, *, create: bool = False) -> Iterator[Store]:
    """The store in a folder."""
    from regraft.stores.store import open_store

    with open_store(path, create=create) as store:
        yield store


def without_secrets(location: str) -> str:
    """A path as an absolute one, a URL without user, password and query: it is kept, and shown to whoever asks."""
    if "://" not in location:
        return os.path.abspath(location)
    parts = urlsplit(location)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def open_seeds(
    places: tuple[str, ...], algorithm: Algorithm | None, chunker: str, held: ExitStack, progress: Progress
) -> list[Seed]:
    """Seeds: files, block devices, and images of stores as STORE/NAME, which need not be read to be known."""
    from regraft.engine.seeds import Seed, index_medium, open_seed

    if algorithm is None:
        return []
    seeds = []
    for place in places:
        if not os.path.exists(place) and (store := _store_of(place)) is not None:
            held.callback(store.close)
            image = held.enter_context(store.image(os.path.basename(place)))
            seed = image.seed()
            if (seed.index.digests.algorithm, seed.index.chunker) != (algorithm, chunker):
                seed = Seed(image.medium, index_medium(image.medium, algorithm, chunker, progress=progress))
        else:
            seed = open_seed(place, algorithm, chunker, progress=progress)
            held.callback(seed.medium.close)
        seeds.append(seed)
    return seeds


def _store_of(place: str) -> Store | None:
    from regraft.stores.store import open_store

    try:
        return open_store(os.path.dirname(place) or ".")
    except StateError:
        return None
