# SPDX-License-Identifier: Apache-2.0
"""Indexing local bytes, so that a recipe's chunks can be found in them."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from regraft.engine.chunkers import cut_stream, named
from regraft.engine.files import open_source
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.state import state_of
from regraft.errors import SourceError
from regraft.formats import zchunk
from regraft.model import Algorithm, DigestColumn, Index

_SECTOR = 4096


@dataclass(frozen=True, slots=True)
class Seed:
    """A medium and what is (or was once) known to lie in it."""

    medium: Medium
    index: Index


def base_seed(medium: Medium) -> Seed:
    """The base of a delta, as the first seed: a delta tells by itself what lies where in it."""
    return Seed(medium, Index(array("Q", [0]), DigestColumn(None), ""))


def index_medium(
    medium: Medium,
    algorithm: Algorithm,
    chunker: str = zchunk.CHUNKER,
    *,
    size: int | None = None,
    progress: Progress = QUIET,
    threads: int = 0,
) -> Index:
    """Chunk and hash the first `size` bytes (default: all) by the rule with the label `chunker`, on all cores.

    An unreadable sector costs its chunk, not the index: what it promises for that chunk is never true, and found out
    when it is copied. Memory: the longest chunk and two batches. Raises UnsupportedError, LimitError for a rule that
    cannot be followed.
    """
    total = medium.size if size is None else min(size, medium.size)
    progress.phase("index", total)
    lengths = array("I")
    digests = DigestColumn(algorithm)
    for run, found, hashed in cut_stream(partial(_read, medium), total, named(chunker), algorithm, threads=threads):
        lengths.extend(found)
        digests.data += hashed
        progress.advance(len(run), Origin.SEED)
    return Index(array("Q", accumulate(lengths, initial=0)), digests, chunker)


def open_seed(
    path: str,
    algorithm: Algorithm,
    chunker: str = zchunk.CHUNKER,
    *,
    size: int | None = None,
    progress: Progress = QUIET,
) -> Seed:
    """Open the file or device at `path` and index it as `index_medium` does.

    The index kept by an earlier update is used if it still holds and was made by the same rule with the same algorithm.
    """
    medium = open_source(path)
    try:
        kept = state_of(path, create=False)
        index = kept.load_index() if kept is not None else None
        if (
            index is None
            or (index.digests.algorithm, index.chunker) != (algorithm, chunker)
            or not still_true(medium, index)
        ):
            index = index_medium(medium, algorithm, chunker, size=size, progress=progress)
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
