# SPDX-License-Identifier: Apache-2.0
"""What the verbs of chunk stores share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import click

if TYPE_CHECKING:
    from regraft.cli._artifact import Artifact
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


def metadata_of(artifact: Artifact) -> dict[str, bytes]:
    """What the artifact's author added to it."""
    return dict(getattr(artifact.header, "metadata", ()))


def open_seeds(
    places: Sequence[str], algorithm: Algorithm | None, chunker: str, held: ExitStack, progress: Progress
) -> list[Seed]:
    """Seeds: files, block devices, and images of stores as STORE/NAME, which need not be read to be known."""
    from regraft.stores.places import open_seed

    if algorithm is None:
        return []  # nothing could be found in them
    return [open_seed(place, algorithm, chunker, held, progress=progress) for place in places]
