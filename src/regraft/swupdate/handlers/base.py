# SPDX-License-Identifier: Apache-2.0
"""What a handler is."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from regraft.engine.apply import Outcome
from regraft.engine.cost import Cost
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.ranges import Link
from regraft.engine.state import State
from regraft.engine.verify import digest_of
from regraft.errors import MediumError
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, Digest
from regraft.swupdate.description import Entry
from regraft.transports.fetcher import Fetcher

#: 20 Mbit/s with 100 ms, where nothing better is known.
ASSUMED_LINK = Link(bandwidth=2.5e6, round_trip=0.1)


@dataclass(frozen=True, slots=True)
class Context:
    """What handlers share during one installation.

    connect: makes a Fetcher with the given limits, when one is needed. urls: URL for a `zckfile` whose entry has none.
    seeds: paths to reuse besides each entry's own source. link: the link that forecasts assume.
    """

    connect: Callable[[Limits], AbstractContextManager[Fetcher]]
    limits: Limits = DEFAULT
    progress: Progress = QUIET
    workers: int = 0
    urls: Mapping[str, str] = field(default_factory=dict)
    seeds: tuple[str, ...] = ()
    link: Link = ASSUMED_LINK


@dataclass(frozen=True, slots=True)
class Forecast:
    """What installing an entry would do. `cost` only where something is fetched."""

    entry: Entry
    target: str
    size: int
    cost: Cost | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What installing an entry did. Sizes in bytes; `wire` is what passed the network for it, in `requests`."""

    entry: Entry
    target: str
    size: int
    outcome: Outcome | None = None
    wire: int = 0
    requests: int = 0
    full: int = 0  #: what a download without seeds would have been
    skipped: str = ""  #: why nothing was done
    warnings: tuple[str, ...] = ()


class Handler(ABC):
    """Installs one entry. Made and checked for all entries of a bundle before the first one is installed."""

    def __init__(self, entry: Entry, context: Context) -> None:
        self.entry, self.context = entry, context

    @abstractmethod
    def check(self) -> None:
        """Raise for an entry that cannot be installed here, before anything is written."""

    @abstractmethod
    def install(self, content: Iterable[bytes]) -> Report:
        """Install the artifact's content (decrypted, decompressed). Raises any RegraftError; then nothing counts.

        `content` ends with an error if its digest turns out wrong.
        """

    @abstractmethod
    def forecast(self, content: Iterable[bytes]) -> Forecast:
        """What `install` would do, without writing or fetching anything."""


@dataclass(frozen=True, slots=True)
class Slot:
    """An open target: random access, and where its state is kept (None: nowhere)."""

    medium: Medium
    state: State | None


class Sink(Handler):
    """A handler that takes an image, and so can end a chain."""

    @property
    @abstractmethod
    def target(self) -> str:
        """For messages."""

    @abstractmethod
    def slot(self) -> AbstractContextManager[Slot]:
        """Open the target for writing; on leaving without an error, make it final."""

    def install(self, content: Iterable[bytes]) -> Report:
        """Write the content in order, read it back, compare."""
        with self.slot() as slot:
            if slot.state is not None:
                slot.state.drop_index()
            size, digest = self._write(slot.medium, content)
            slot.medium.sync()
            slot.medium.forget()
            self.context.progress.phase("verify", size)
            if not digest_of(slot.medium, size, digest, progress=self.context.progress):
                raise MediumError(f"{self.target} reads back other bytes than were written")
        return Report(self.entry, self.target, size, full=size)

    def _write(self, medium: Medium, content: Iterable[bytes]) -> tuple[int, Digest]:
        hasher, size = hashlib.sha256(), 0
        self.context.progress.phase("write", self.entry.size or 0)
        for piece in _batched(content, self.context.limits.batch):
            hasher.update(piece)
            medium.write(size, piece)
            size += len(piece)
            self.context.progress.advance(len(piece), Origin.FETCHED)
        if medium.sparse:
            medium.resize(size)
        return size, Digest(Algorithm.SHA256, hasher.digest())

    def forecast(self, content: Iterable[bytes]) -> Forecast:
        return Forecast(self.entry, self.target, sum(len(piece) for piece in content))


def _batched(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of `size`: flash likes large writes."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= size:
            yield bytes(buffer[:size])
            del buffer[:size]
    if buffer:
        yield bytes(buffer)
