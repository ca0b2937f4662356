# SPDX-License-Identifier: Apache-2.0
"""casync indexes and stores for tests, made on the spot."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from regraft.build import caibx as packer
from regraft.build.caibx import Options
from regraft.engine.chunkfiles import ChunkSource
from regraft.engine.chunkstores import LocalStore
from regraft.engine.medium import Directory, Lock
from regraft.errors import RegraftError, SourceError
from regraft.formats import caibx
from regraft.formats.caibx import Header, Sizes
from regraft.limits import DEFAULT, Limits
from regraft.model import Recipe
from regraft.model.buffers import Buffer
from regraft.testing.crash import MemoryDirectory
from regraft.testing.memory import MemoryMedium

#: Small chunks, so that few bytes make many.
SMALL = Options(sizes=Sizes(256, 1024, 8192))


@dataclass
class Packed:
    content: bytes
    header: Header
    recipe: Recipe
    digest: bytes
    store: packer.Store | None


def pack(image: bytes, folder: Path | None, options: Options = SMALL) -> Packed:
    """The index of an image, its chunks in a store at `folder`."""
    store = packer.Store(LocalStore(str(folder)), options) if folder else None
    return packed(image, store, options)


def packed(image: bytes, store: packer.Store | None, options: Options = SMALL) -> Packed:
    out = MemoryMedium()
    made = packer.pack(MemoryMedium(image), out, store, options)
    return Packed(bytes(out.content), made.header, caibx.recipe(made.header, "memory.castr"), made.digest, store)


def source(header: Header, *folders: Path, threads: int = 3, limits: Limits = DEFAULT) -> ChunkSource:
    stores = [LocalStore(str(folder)) for folder in folders]
    return ChunkSource(stores, header.digests, caibx.paths, header.lengths, threads=threads, limits=limits)


def chunk_file(folder: Path, header: Header, number: int) -> Path:
    """The file of a chunk in a store, under whichever name it is there."""
    (found,) = (folder / path for path in caibx.paths(header.digests[number]) if (folder / path).exists())
    return found


@dataclass
class MemoryFolders:
    """The folders of a store in memory, and how often their names were made durable."""

    folders: dict[str, MemoryDirectory] = field(default_factory=dict)
    synced: int = 0
    ages: dict[str, float] = field(default_factory=dict)
    whole: MemoryDirectory = field(default_factory=lambda: MemoryDirectory({"whole": MemoryMedium()}))
    guard: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def open(self, name: str) -> Iterator[Directory]:
        with self.guard:
            folder = self.folders.setdefault(name, MemoryDirectory())
        yield folder

    def sync(self) -> None:
        self.synced += 1

    def lock(self, *, shared: bool = False, wait: bool = True) -> Lock:
        return self.whole.lock("whole", shared=shared, wait=wait)

    def files(self) -> Iterator[tuple[str, int, float]]:
        for path, content in self.contents().items():
            yield path, len(content), self.ages.get(path, 0.0)

    def contents(self) -> dict[str, bytes]:
        return {
            f"{folder}/{name}": bytes(medium.content)
            for folder, directory in self.folders.items()
            for name, medium in directory.files.items()
        }


@dataclass
class MemoryStore:
    """A ReadStore with these files. stuck: where a read of one of `waiting` waits until it is set or aborted."""

    files: dict[str, bytes]
    location: str = "memory"
    waiting: frozenset[str] = frozenset()
    stuck: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)
    aborted: int = 0

    def read(self, paths: Sequence[str], maximum: int) -> Buffer | None:
        self.asked.append(paths[0])
        if paths[0] in self.waiting:
            self.stuck.wait(20)
        return next((self.files[path] for path in paths if path in self.files), None)

    def absent(self, paths: Sequence[str]) -> RegraftError:
        return SourceError(f"{self.location} has no {paths[0]}")

    def abort(self) -> None:
        self.aborted += 1
        self.stuck.set()
