# SPDX-License-Identifier: Apache-2.0
"""Reading a target back and comparing it with its digests."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from operator import sub
from threading import Condition, Lock, local

from regraft import kernels
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.errors import SourceError
from regraft.limits import DEFAULT, Limits
from regraft.model import Digest, DigestColumn, OpTable

#: Bytes of the longest buffer that a thread keeps. What is longer is also worked on by one thread at a time, so that
#: chunks of up to `limits.chunk_size` do not add up to more memory than a device has.
KEPT = 2 << 20


def default_workers() -> int:
    """Threads for hashing and copying: one per core this process may use."""
    return len(os.sched_getaffinity(0))


def batches(table: OpTable, rows: Sequence[int], maximum: int) -> Iterator[tuple[int, int]]:
    """(first row, number of rows): runs of consecutive `rows` of at most `maximum` bytes, or of one row."""
    first = last = -1
    for row in rows:
        if first >= 0 and row == last + 1 and table.bounds[row + 1] - table.bounds[first] <= maximum:
            last = row
            continue
        if first >= 0:
            yield first, last + 1 - first
        first = last = row
    if first >= 0:
        yield first, last + 1 - first


class Room:
    """Bounds how many bytes are held at once, by whoever. One holding larger than all has it alone."""

    def __init__(self, size: int) -> None:
        self._size, self._held = size, 0
        self._changed = Condition()

    def enter(self, size: int) -> None:
        """Hold `size` bytes, when there is room for them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + size <= self._size)
            self._held += size

    def leave(self, size: int) -> None:
        with self._changed:
            self._held -= size
            self._changed.notify_all()


class Buffers(local):
    """A buffer for each thread, grown when needed and used again."""

    def __init__(self) -> None:
        self._buffer = bytearray(0)

    def view(self, size: int) -> memoryview:
        """A view of `size` bytes, of undefined content: of this thread's buffer, unless they are too many to keep."""
        if size > KEPT:
            return memoryview(bytearray(size))
        if len(self._buffer) < size:
            self._buffer = bytearray(1 << (size - 1).bit_length())  # in few steps, for each one is filled with zeros
        return memoryview(self._buffer)[:size]


def row_lengths(table: OpTable, first: int, count: int) -> array[int]:
    bounds = table.bounds[first : first + count + 1]
    return array("I", map(sub, bounds[1:], bounds))


def wrong_rows(
    table: OpTable, first: int, count: int, data: memoryview, digests: DigestColumn | None = None
) -> list[int]:
    """The rows of `data` (rows first..first + count, end to end) that differ from their digests."""
    digests = digests or table.digests
    algorithm = digests.algorithm
    if algorithm is None:
        return []
    found = kernels.digest_ranges(data, row_lengths(table, first, count), algorithm=algorithm.label, threads=1)
    if found == digests[first : first + count]:
        return []
    size = algorithm.size
    rows = range(first, first + count)
    return [row for i, row in enumerate(rows) if found[i * size : (i + 1) * size] != digests[row]]


def check_rows(
    medium: Medium,
    table: OpTable,
    rows: Sequence[int],
    *,
    workers: int = 0,
    limits: Limits = DEFAULT,
    progress: Progress = QUIET,
    digests: DigestColumn | None = None,
) -> list[int]:
    """Of `rows`, those whose bytes lie in their place in `medium`. An unreadable place counts as wrong.

    digests: a digest per row of the table, if not the table's own.
    """
    digests = digests or table.digests
    if digests.algorithm is None:
        return []
    work = iter(list(batches(table, rows, limits.batch)))
    right: list[int] = []
    lock, long, buffers = Lock(), Lock(), Buffers()

    def check() -> None:
        while True:
            with lock:
                batch = next(work, None)
            if batch is None:
                return
            first, count = batch
            size = table.bounds[first + count] - table.bounds[first]
            with long if size > KEPT else nullcontext():
                good = _right_rows(medium, table, first, count, buffers.view(size), digests)
            with lock:
                right.extend(good)
            progress.advance(size, Origin.IN_PLACE)

    _in_threads(check, workers or default_workers())
    return sorted(right)


def _right_rows(
    medium: Medium, table: OpTable, first: int, count: int, view: memoryview, digests: DigestColumn
) -> list[int]:
    try:
        if medium.read_into(table.bounds[first], view) < len(view):
            raise SourceError("the medium ends before the rows")
    except SourceError:
        if count == 1:
            return []
        good = []
        for row in range(first, first + count):  # only the row with the bad sector is lost
            good += _right_rows(medium, table, row, 1, view[: table.length(row)], digests)
        return good
    wrong = set(wrong_rows(table, first, count, view, digests))
    return [row for row in range(first, first + count) if row not in wrong]


def _in_threads(work: Callable[[], None], count: int) -> None:
    with ThreadPoolExecutor(count, "verify") as pool:
        for future in [pool.submit(work) for _ in range(count)]:
            future.result()


def digest_of(medium: Medium, size: int, expected: Digest, *, progress: Progress = QUIET) -> bool:
    """Whether the first `size` bytes of `medium` have the digest `expected`. Reads ahead while hashing."""
    hasher = expected.algorithm.hasher()
    batch = 1 << 20
    views = [memoryview(bytearray(min(batch, size))) for _ in range(2)]
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        reading = pool.submit(medium.read_into, 0, views[0][: min(batch, size)])
        for number, start in enumerate(range(0, size, batch)):
            count = min(batch, size - start)
            try:
                if reading.result() < count:
                    return False
            except SourceError:
                return False
            following = start + count
            if following < size:
                view = views[(number + 1) % 2][: min(batch, size - following)]
                reading = pool.submit(medium.read_into, following, view)
            hasher.update(views[number % 2][:count])
            progress.advance(count, Origin.IN_PLACE)
    return hasher.digest() == expected.value
