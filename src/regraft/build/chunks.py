# SPDX-License-Identifier: Apache-2.0
"""The chunks that a builder makes an artifact of, wherever they come from: an image that is cut, or a recipe."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Protocol, TypeVar

from regraft.engine.chunkers import cut_stream, named
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.errors import ChangedError, LimitError
from regraft.formats.chunk_rules import Placement
from regraft.formats.filesystems import Layout, layout
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm
from regraft.model.buffers import Buffer

_COPY = 1 << 20

Feed = Callable[[Buffer], object]


@dataclass(frozen=True, slots=True)
class Chunk:
    """data: its bytes, good until the next chunk. digest: theirs. stored: how its source stores it, if it may stay."""

    data: Buffer
    digest: bytes
    stored: bytes | None = None


class Source(Protocol):
    """Where chunks come from."""

    @property
    def size(self) -> int:
        """Of the image, in bytes."""

    @property
    def label(self) -> str:
        """Of the rule that makes the cuts."""

    def chunks(self, algorithm: Algorithm, whole: Feed | None = None) -> Iterator[Chunk]:
        """Every chunk, in order, with its digest; all bytes of the image pass through `whole`, too, in order."""


class Cutter:
    """Cuts an image by a rule. Raises ChangedError if the image becomes shorter meanwhile."""

    def __init__(self, image: Medium, label: str, *, threads: int = 0, progress: Progress = QUIET) -> None:
        self._image, self._threads, self._progress = image, threads, progress
        self.size, self.label = image.size, label

    def chunks(self, algorithm: Algorithm, whole: Feed | None = None) -> Iterator[Chunk]:
        self._progress.phase("pack", self.size)
        found = cut_stream(
            partial(_filled, self._image), self.size, named(self.label), algorithm, threads=self._threads
        )
        with ThreadPoolExecutor(1, "hash") as pool:
            for run, lengths, digests in found:
                hashing = pool.submit(whole, run) if whole is not None else None
                offset = 0
                for number, length in enumerate(lengths):
                    digest = digests[number * algorithm.size : (number + 1) * algorithm.size]
                    yield Chunk(run[offset : offset + length], digest)
                    offset += length
                    self._progress.advance(length, Origin.SEED)
                if hashing is not None:
                    hashing.result()


def layout_of(image: Medium, *, limits: Limits = DEFAULT) -> Layout:
    """Where the files of an image begin and end."""
    return layout(partial(_filled, image), image.size, limits=limits)


def placed(image: Medium, rule: str, placement: Placement, *, limits: Limits = DEFAULT) -> str:
    """The label for cutting `image` by `rule` with a placement. Without any place to cut at, the plain rule remains."""
    if placement.files and not layout_of(image, limits=limits).cuts:
        placement = Placement(placement.align)
    return placement.label(rule)


def _filled(image: Medium, offset: int, view: memoryview) -> None:
    if image.read_into(offset, view) < len(view):
        raise ChangedError(f"{image.name} became shorter while it was packed", cure="pack a file at rest")


T = TypeVar("T")


def ahead(tasks: Iterable[tuple[int, Callable[[], T]]], workers: int, bound: int) -> Generator[T, None, None]:
    """Do (bytes in memory, work) in threads; results come in order. Waiting tasks hold about `bound` bytes at most."""
    waiting: deque[tuple[int, Future[T]]] = deque()
    held = 0
    with ThreadPoolExecutor(workers, "build") as pool:
        for cost, task in tasks:
            waiting.append((cost, pool.submit(task)))
            held += cost
            while held > bound and len(waiting) > workers:
                cost, future = waiting.popleft()
                held -= cost
                yield future.result()
        while waiting:
            yield waiting.popleft()[1].result()


def counted(chunks: Iterable[Chunk], limits: Limits) -> Iterator[Chunk]:
    """The same chunks. Raises LimitError when there are too many."""
    for number, chunk in enumerate(chunks):
        if number >= limits.chunks:
            raise LimitError(f"more than limits.chunks = {limits.chunks} chunks")
        yield chunk


@contextmanager
def body() -> Iterator[BinaryIO]:
    """An unlinked temporary file for what stands behind a header whose size is not known yet."""
    with tempfile.TemporaryFile(prefix="regraft-") as file:
        yield file


def append(file: BinaryIO, out: Medium, offset: int) -> None:
    """Copy all of `file` to `out` from `offset` on."""
    file.seek(0)
    while piece := file.read(_COPY):
        out.write(offset, piece)
        offset += len(piece)
