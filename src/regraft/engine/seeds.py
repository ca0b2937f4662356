# SPDX-License-Identifier: Apache-2.0
"""Indexing local bytes, so that a recipe's chunks can be found in them."""

from __future__ import annotations

from array import array
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

from regraft import kernels
from regraft.engine.files import open_source
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.state import state_of
from regraft.errors import SourceError
from regraft.formats import zchunk
from regraft.model import Algorithm, DigestColumn, Index

#: New bytes given to the chunker at once: large enough to split over the cores, small enough to stay in their caches.
BATCH = 4 << 20

#: Longest chunk that may still be open when a batch ends.
_MARGIN = 131072

_SECTOR = 4096


@dataclass(frozen=True, slots=True)
class Seed:
    """A medium and what is (or was once) known to lie in it."""

    medium: Medium
    index: Index


def index_medium(
    medium: Medium, algorithm: Algorithm, *, size: int | None = None, progress: Progress = QUIET, threads: int = 0
) -> Index:
    """Chunk and hash the first `size` bytes (default: all) with zchunk's automatic chunker, on all cores.

    An unreadable sector costs its chunk, not the index: what it promises for that chunk is never true, and found out
    when it is copied. Memory: two batches.
    """
    total = medium.size if size is None else min(size, medium.size)
    progress.phase("index", total)
    lengths = array("I")
    digests = DigestColumn(algorithm)
    buffers = [bytearray(_MARGIN + min(BATCH, total)) for _ in range(2)]
    open_chunk = b""
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        reading = pool.submit(_read, medium, 0, memoryview(buffers[0])[_MARGIN : _MARGIN + min(BATCH, total)])
        for number, start in enumerate(range(0, total, BATCH)):
            count = min(BATCH, total - start)
            reading.result()
            following = start + count
            if following < total:
                view = memoryview(buffers[(number + 1) % 2])[_MARGIN : _MARGIN + min(BATCH, total - following)]
                reading = pool.submit(_read, medium, following, view)
            batch = memoryview(buffers[number % 2])[_MARGIN - len(open_chunk) : _MARGIN + count]
            batch[: len(open_chunk)] = open_chunk
            found, hashed = kernels.zck_index(
                batch, final=following == total, algorithm=algorithm.label, threads=threads
            )
            lengths.extend(found)
            digests.data += hashed
            open_chunk = bytes(batch[sum(found) :])
            progress.advance(count, Origin.SEED)
    return Index(array("Q", accumulate(lengths, initial=0)), digests, zchunk.CHUNKER)


def open_seed(path: str, algorithm: Algorithm, *, size: int | None = None, progress: Progress = QUIET) -> Seed:
    """Open and index the file or device at `path`; the index kept by an earlier update is used if it still holds."""
    medium = open_source(path)
    try:
        kept = state_of(path, create=False)
        index = kept.load_index() if kept is not None else None
        if index is None or index.digests.algorithm is not algorithm or not still_true(medium, index):
            index = index_medium(medium, algorithm, size=size, progress=progress)
    except BaseException:
        medium.close()
        raise
    return Seed(medium, index)


def _read(medium: Medium, offset: int, view: memoryview) -> None:
    try:
        count = medium.read_into(offset, view)
    except SourceError:
        count = len(view)
        for start in range(0, len(view), _SECTOR):
            sector = view[start : start + _SECTOR]
            try:
                medium.read_into(offset + start, sector)
            except SourceError:
                sector[:] = bytes(len(sector))
    if count < len(view):
        raise SourceError(f"{medium.name} ends at {offset + count}: it became shorter while it was read")


def still_true(medium: Medium, index: Index, *, samples: int = 32) -> bool:
    """Whether a kept index still describes the medium, judged by some chunks spread over it.

    A cheap look that avoids planning with a stale index. Correctness does not depend on it: copies are hashed.
    """
    algorithm = index.digests.algorithm
    if algorithm is None or index.size > medium.size:
        return False
    step = max(len(index) // samples, 1)
    for chunk in range(0, len(index), step):
        data = bytearray(index.bounds[chunk + 1] - index.bounds[chunk])
        try:
            medium.read_into(index.bounds[chunk], memoryview(data))
        except SourceError:
            continue
        if algorithm.of(data) != index.digests[chunk]:
            return False
    return True
