# SPDX-License-Identifier: Apache-2.0
"""Verify a casync store: every file of a chunk against the digest that its name is made of; and mend it from another.

A store does not tell which digests it has: SHA-512/256 and SHA-256 both have 32 bytes. A file is whole if either fits.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from regraft.engine.chunkcache import Check
from regraft.engine.chunkstores import PruneStore, ReadStore, StoredFile
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.verify import default_workers
from regraft.errors import LimitError, SourceError, StatusError
from regraft.formats import caibx
from regraft.formats.codecs import most_stored
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm
from regraft.model.buffers import Buffer


@dataclass(frozen=True, slots=True)
class Report:
    """Files of chunks, their bytes, and the paths of those that were not as they should be, some of them repaired."""

    chunks: int
    bytes: int
    damaged: tuple[str, ...]
    repaired: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether all are as they should be, now."""
        return self.damaged == self.repaired


def verify_files(
    store: PruneStore,
    source: ReadStore | None = None,
    *,
    workers: int = 0,
    limits: Limits = DEFAULT,
    progress: Progress = QUIET,
) -> Report:
    """Read and hash all chunks; replace damaged ones by what `source` has, verified before it is written.

    Memory: `workers` times a chunk and its file. Raises MediumError, and TransportError when `source` is out of reach.
    """
    files = [file for file in store.files() if caibx.digest_of(file.path) is not None]
    progress.phase("verify", sum(file.size for file in files))
    path_of = checker(limits)
    most = most_stored(limits.chunk_size)

    def sound(file: StoredFile) -> bool:
        try:
            content = store.read([file.path], most)
        except (SourceError, LimitError):
            content = None
        progress.advance(file.size, Origin.NONE)
        return content is not None and path_of(file.path, content, most) == file.path

    with ThreadPoolExecutor(workers or default_workers()) as pool:
        damaged = [file.path for file, fine in zip(files, pool.map(sound, files), strict=True) if not fine]
    repaired = [path for path in damaged if source is not None and _repair(store, source, path, path_of, most)]
    if repaired:
        store.sync()
    return Report(len(files), sum(file.size for file in files), tuple(damaged), tuple(repaired))


def checker(limits: Limits = DEFAULT) -> Callable[[str, Buffer, int], str | None]:
    """What tells which of its chunk's paths a file's content belongs to, whichever digest it has; None: to none."""
    checks = [
        Check(algorithm, caibx.CODEC, caibx.digest_of, limits=limits)
        for algorithm in (Algorithm.SHA512_256, Algorithm.SHA256)
    ]

    def path_of(path: str, content: Buffer, most: int) -> str | None:
        paths = caibx.paths(caibx.digest_of(path) or b"")
        return next((found for check in checks if (found := check.path_of(paths, content, most)) is not None), None)

    return path_of


def _repair(
    store: PruneStore, source: ReadStore, path: str, path_of: Callable[[str, Buffer, int], str | None], most: int
) -> bool:
    paths = caibx.paths(caibx.digest_of(path) or b"")
    try:
        content = source.read(paths, most)
    except (SourceError, LimitError, StatusError):
        return False
    place = path_of(path, content, most) if content is not None else None
    if content is None or place is None:
        return False
    store.put(place, content, replace=True)
    if place != path:  # plain here, compressed there: one good file is enough
        store.remove(path)
    return True
