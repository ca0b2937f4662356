# SPDX-License-Identifier: Apache-2.0
"""Stores that hold a file for each chunk, as a RangeSource: several reads at once, several stores to look in."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence

from regraft.engine.chunkstores import ReadStore
from regraft.engine.ranges import Range
from regraft.errors import LimitError, RegraftError, SourceError, StatusError
from regraft.formats.codecs import most_stored
from regraft.limits import DEFAULT, Limits
from regraft.model import DigestColumn
from regraft.model.buffers import Buffer


class ChunkSource:
    """The chunk files of stores as a RangeSource: position n is the file that `paths` makes of `names[n]`.

    stores: looked in one after the other, from the one that had the last chunk on. lengths: decoded bytes of each
    chunk, which bound what is read of its file. threads: files read at once; at most half of `limits.buffer` is read
    ahead of who takes it (the other half waits to be decoded), or one chunk. A chunk that is fetched again is looked
    for in the next store first.
    """

    def __init__(
        self,
        stores: Sequence[ReadStore],
        names: DigestColumn,
        paths: Callable[[bytes], tuple[str, ...]],
        lengths: Sequence[int],
        *,
        threads: int,
        limits: Limits = DEFAULT,
    ) -> None:
        if not stores:
            raise ValueError("chunks lie in at least one store")
        self.stores, self.lengths, self.threads, self.limits = stores, lengths, threads, limits
        self._names, self._paths = names, paths
        self._fetched = bytearray(len(names))  # how often, up to a few
        self._preferred = 0

    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
        """As `RangeSource.fetch`, a range being one chunk: (its number, 1).

        Raises what the first store had against a chunk that no store has: StatusError, SourceError, LimitError; and
        TransportError when a store is out of reach.
        """
        run = _Run(self, ranges, ordered)
        try:
            yield from run.results()
        finally:
            run.close()

    def read(self, number: int) -> Buffer:
        """The file of one chunk, from whichever store has it."""
        paths, maximum = self._paths(self._names[number]), most_stored(self.lengths[number])
        again = self._fetched[number]
        self._fetched[number] = min(again + 1, 255)
        first, count = self._preferred + again, len(self.stores)
        problem: RegraftError | None = None
        for turn in range(first, first + count):
            store = self.stores[turn % count]
            try:
                content = store.read(paths, maximum)
            except (LimitError, SourceError, StatusError) as error:
                problem = problem or error
                continue
            if content is not None:
                if not again:
                    self._preferred = turn % count
                return content
        raise problem or self.stores[0].absent(paths)


class _Run:
    """One call of `fetch`: threads that take chunks in turn, and what they have read."""

    def __init__(self, source: ChunkSource, ranges: Sequence[Range], ordered: bool) -> None:
        self._source, self._ranges, self._ordered = source, ranges, ordered
        self._changed = threading.Condition()
        self._next = 0  # the position to be read next
        self._ready: dict[int, Buffer] = {}
        self._queue: deque[int] = deque()  # positions in `_ready` as they came
        self._taken = 0
        self._reserved = 0  # decoded bytes of what is being read or ready
        self._error: BaseException | None = None
        self._closed = False
        self._threads: list[threading.Thread] = []

    def results(self) -> Iterator[tuple[int, Buffer]]:
        for number in range(min(self._source.threads, len(self._ranges))):
            thread = threading.Thread(target=self._serve, name=f"regraft-chunks-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        while self._taken < len(self._ranges):
            with self._changed:
                while (position := self._next_ready()) is None:
                    if self._error is not None:
                        raise self._error
                    self._changed.wait()
                content = self._ready.pop(position)
                self._taken += 1
                self._reserved -= self._length(position)
                self._changed.notify_all()
            yield position, content
            del content  # while the next is waited for

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            busy = self._taken < self._next
        if busy:
            for store in self._source.stores:
                store.abort()
        for thread in self._threads:
            thread.join(0.5)  # one that still waits for a server ends by itself

    def _next_ready(self) -> int | None:
        if self._ordered:
            return self._taken if self._taken in self._ready else None
        return self._queue.popleft() if self._queue else None

    def _length(self, position: int) -> int:
        return self._source.lengths[self._ranges[position][0]]

    def _serve(self) -> None:
        try:
            while (position := self._take()) is not None:
                number, count = self._ranges[position]
                if count != 1:
                    raise ValueError(f"{count} chunks at once")
                self._deliver(position, self._source.read(number))  # no name here: it would outlive the delivery
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _deliver(self, position: int, content: Buffer) -> None:
        with self._changed:
            self._ready[position] = content
            if not self._ordered:
                self._queue.append(position)
            self._changed.notify_all()

    def _take(self) -> int | None:
        """The position to read next, when there is room for it; None when there is nothing more to do."""
        with self._changed:
            while not self._closed and self._error is None and self._next < len(self._ranges):
                length = self._length(self._next)
                # Positions are taken in order: the one that an ordered caller waits for was let in before the others.
                if not self._reserved or self._reserved + length <= self._source.limits.buffer // 2:
                    self._reserved += length
                    self._next += 1
                    return self._next - 1
                self._changed.wait()
        return None
