# SPDX-License-Identifier: Apache-2.0
"""Chunk stores in memory, and small images to put into them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from images import CountingSource, small_recipe

from regraft.engine.medium import Directory
from regraft.engine.verify import digest_of
from regraft.limits import Limits
from regraft.model import Digest, Recipe
from regraft.stores.clone import Outcome, clone
from regraft.stores.store import Store, open_store
from regraft.testing.memory import MemoryDirectory

CHUNK = 700

#: Packs of few chunks, recorded often: many files and many events from small images.
SMALL = Limits(pack_size=5 * 4096, journal_bytes=3 * CHUNK, journal_interval=1e9)


@dataclass(frozen=True)
class Image:
    """An image in chunks of fixed size, with its recipe; stored as it is."""

    content: bytes
    recipe: Recipe

    def source(self) -> CountingSource:
        return CountingSource(self.content)


def image(*chunks: int, tail: int = 0) -> Image:
    """An image whose chunks are numbered: equal numbers are equal chunks, 0 is zeros; `tail` more bytes at the end."""
    parts = [bytes(CHUNK) if number == 0 else random.Random(number).randbytes(CHUNK) for number in chunks]
    content = b"".join(parts) + random.Random(tail).randbytes(tail)
    return Image(content, small_recipe(content, CHUNK))


def new_store(limits: Limits = SMALL) -> Store:
    return open_store(MemoryDirectory(), create=True, limits=limits)


def put(store: Store | Directory, name: str, wanted: Image, *, replace: bool = False) -> Outcome:
    """Clone `wanted` into the store, by one thread."""
    if not isinstance(store, Store):
        store = open_store(store, create=True, limits=SMALL)
    return clone(store, name, wanted.recipe, [wanted.source()], replace=replace, workers=1, limits=store.limits)


def content_of(store: Store, name: str) -> bytes:
    """The bytes of an image, all of them."""
    with store.image(name) as opened:
        data = bytearray(opened.size)
        assert opened.medium.read_into(0, memoryview(data)) == opened.size
        assert digest_of(opened.medium, opened.size, Digest.of(data))
        return bytes(data)


def files(store: Store) -> dict[str, bytes]:
    """What is in the folder of a store in memory."""
    assert isinstance(store.directory, MemoryDirectory)
    return {name: bytes(medium.content) for name, medium in store.directory.files.items()}
