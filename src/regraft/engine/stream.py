# SPDX-License-Identifier: Apache-2.0
"""The way out `stream`: the target's bytes in strict order, for a pipe or the next handler.

Work is done ahead in threads, within a bound; what leaves is verified. Rows fall back to their alternatives as in
`write`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from regraft.engine.decode import UnitDecoder
from regraft.engine.match import wanted_units
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.ranges import RangeSource
from regraft.engine.verify import batches, default_workers, wrong_rows
from regraft.errors import DigestError, FormatError, RegraftError, SourceError
from regraft.limits import DEFAULT, Limits
from regraft.model import Digest, Kind, Plan
from regraft.model.buffers import Buffer
from regraft.model.digest import Hasher

_ORIGINS = {Kind.ZERO: Origin.ZERO, Kind.COPY: Origin.SEED, Kind.DATA: Origin.FETCHED, Kind.PATCH: Origin.FETCHED}


class Streamer:
    """Executes a plan as an iterator over consecutive verified pieces.

    digest: that of the whole image, if known; it is checked when all has passed. Who takes the pieces must make nothing
    bootable before the iterator has ended.
    """

    def __init__(
        self,
        plan: Plan,
        seeds: Sequence[Medium],
        blobs: Sequence[RangeSource],
        *,
        digest: Digest | None = None,
        workers: int = 0,
        limits: Limits = DEFAULT,
        progress: Progress = QUIET,
    ) -> None:
        self._plan, self._seeds, self._blobs = plan, seeds, blobs
        self._digest = digest or plan.recipe.digest
        self._workers = workers or default_workers()
        self._limits, self._progress = limits, progress
        self._decoder = UnitDecoder(plan.recipe, blobs, limits)
        self._lock = Lock()
        self.origins = bytearray(len(plan.table))
        self.fetched = 0
        self.replaced = 0

    def pieces(self) -> Iterator[memoryview]:
        """The image. Raises the error of the first row that no operation can give; then nothing follows it."""
        table = self._plan.table
        hasher = self._digest.algorithm.hasher() if self._digest else None
        ahead: deque[tuple[int, int, Future[memoryview]]] = deque()
        bytes_ahead = 0
        bound = self._limits.buffer // 2
        self._progress.phase("write", table.size)
        with ThreadPoolExecutor(self._workers, "stream") as pool:
            for first, count, future in self._work(pool):
                ahead.append((first, count, future))
                bytes_ahead += table.bounds[first + count] - table.bounds[first]
                while bytes_ahead > bound:
                    data = self._finished(*ahead.popleft(), hasher)
                    bytes_ahead -= len(data)
                    yield data
            while ahead:
                yield self._finished(*ahead.popleft(), hasher)
        if self._digest and hasher and hasher.digest() != self._digest.value:
            raise DigestError("the image differs from its signed digest, though every chunk is as its header says")

    def _finished(self, first: int, count: int, future: Future[memoryview], hasher: Hasher | None) -> memoryview:
        data = future.result()
        if hasher is not None:
            hasher.update(data)
        kind = Kind(self._plan.table.kind[self._plan.table.first[first]])
        for row in range(first, first + count):
            self.origins[row] = self.origins[row] or _ORIGINS[kind]
        self._progress.advance(len(data), _ORIGINS[kind])
        return data

    def _work(self, pool: ThreadPoolExecutor) -> Iterator[tuple[int, int, Future[memoryview]]]:
        """Consecutive rows with the future of their bytes, scheduled in order."""
        table = self._plan.table
        rows = range(len(table))
        wanted = wanted_units(self._plan, rows, bytes(len(table)))
        arriving = self._arriving(sorted(wanted))
        kept = _Kept(self._plan, wanted, self._limits.buffer // 4)
        for first, count in self._batches():
            kind = table.kind[table.first[first]]
            if kind == Kind.ZERO:
                length = table.bounds[first + count] - table.bounds[first]
                yield first, count, pool.submit(_zeros, length)
            elif kind == Kind.COPY:
                yield first, count, pool.submit(self._copy, first, count)
            else:
                number = table.first[first]
                unit = table.unit[number]
                decoding = kept.take(unit)
                if decoding is None:
                    if wanted[unit][0] == first:
                        decoding = pool.submit(self._unit, unit, self._next(arriving, unit))
                    else:
                        decoding = pool.submit(self._unit_again, unit)
                kept.offer(first, unit, decoding)
                yield first, 1, pool.submit(self._row, first, number, decoding)

    def _batches(self) -> Iterator[tuple[int, int]]:
        """Runs of rows of one kind: COPY and ZERO joined up to a batch, DATA and PATCH one by one."""
        table = self._plan.table
        row = 0
        while row < len(table):
            kind = table.kind[table.first[row]]
            last = row + 1
            if kind in (Kind.ZERO, Kind.COPY):
                while last < len(table) and table.kind[table.first[last]] == kind:
                    last += 1
                yield from batches(table, range(row, last), self._limits.batch)
            else:
                yield row, 1
            row = last

    def _arriving(self, units: list[int]) -> Iterator[tuple[int, Buffer]]:
        """(unit, stored bytes) in the order of units, which is that of the first rows that want them."""
        column = self._plan.recipe.units
        if units:
            self.fetched += self._decoder.prepare(units)
        start = 0
        while start < len(units):  # a run of units in one blob, with rising offsets, is one ordered fetch
            stop = start + 1
            while (
                stop < len(units)
                and column.blob[units[stop]] == column.blob[units[start]]
                and column.offset[units[stop]] >= column.offset[units[stop - 1]] + column.stored[units[stop - 1]]
            ):
                stop += 1
            run = units[start:stop]
            blob = self._blobs[column.blob[run[0]]]
            for position, stored in blob.fetch([self._decoder.range_of(unit) for unit in run], ordered=True):
                self.fetched += len(stored)
                yield run[position], stored
            start = stop

    def _next(self, arriving: Iterator[tuple[int, Buffer]], unit: int) -> Buffer:
        number, stored = next(arriving)
        if number != unit:  # units are numbered in target order by every format that is streamed
            raise FormatError(f"unit {number} arrived where {unit} is needed: this artifact cannot be streamed")
        return stored

    def _unit(self, unit: int, stored: Buffer) -> memoryview:
        try:
            return self._decoder.decode(unit, stored)
        except (DigestError, FormatError):
            return self._decoder.decode(unit, self._decoder.fetch_one(unit))  # once more, by itself

    def _unit_again(self, unit: int) -> memoryview:
        stored = self._decoder.fetch_one(unit)
        with self._lock:
            self.fetched += len(stored)
        return self._unit(unit, stored)

    def _row(self, row: int, number: int, decoding: Future[memoryview]) -> memoryview:
        decoded = decoding.result()
        try:
            return self._part(row, number, decoded)
        except (DigestError, SourceError) as error:
            view = memoryview(bytearray(self._plan.table.length(row)))
            self._alternative(row, view, error)
            return view

    def _part(self, row: int, number: int, decoded: memoryview) -> memoryview:
        """The row's bytes, verified, by a DATA or PATCH."""
        op = self._plan.table.op(number)
        if op.kind is Kind.PATCH:
            return self._decoder.patched(row, op, decoded, self._seeds[op.source])
        return self._decoder.row(row, op.within, decoded)

    def _copy(self, first: int, count: int) -> memoryview:
        table = self._plan.table
        view = memoryview(bytearray(table.bounds[first + count] - table.bounds[first]))
        base = table.bounds[first]
        failed: set[int] = set()
        for row in range(first, first + count):
            if not self._read_seed(table.first[row], view[table.bounds[row] - base : table.bounds[row + 1] - base]):
                failed.add(row)
        failed.update(wrong_rows(table, first, count, view))
        for row in failed:
            self._alternative(row, view[table.bounds[row] - base : table.bounds[row + 1] - base])
        return view

    def _read_seed(self, number: int, view: memoryview) -> bool:
        table = self._plan.table
        try:
            return self._seeds[table.source[number]].read_into(table.at[number], view) == len(view)
        except SourceError:
            return False

    def _alternative(self, row: int, view: memoryview, error: RegraftError | None = None) -> None:
        """Fill `view` by the next operation that gives the right bytes. Raises the last one's error, or `error`."""
        table = self._plan.table
        error = error or SourceError(f"no way is left to obtain the image bytes at {table.bounds[row]}")
        for number in range(table.first[row] + 1, table.first[row + 1]):
            if table.kind[number] == Kind.COPY:
                if self._read_seed(number, view) and not wrong_rows(table, row, 1, view):
                    self.origins[row] = Origin.SEED
                    break
            elif table.kind[number] == Kind.ZERO:
                view[:] = bytes(len(view))
                if not wrong_rows(table, row, 1, view):
                    self.origins[row] = Origin.ZERO
                    break
            else:
                unit = table.unit[number]
                try:
                    self.fetched += self._decoder.prepare([unit])
                    stored = self._decoder.fetch_one(unit)
                    self.fetched += len(stored)
                    view[:] = self._part(row, number, self._decoder.decode(unit, stored))
                except (DigestError, FormatError, SourceError) as caught:
                    error = caught
                    continue
                self.origins[row] = Origin.FETCHED
                break
        else:
            raise error
        self.replaced += 1


class _Kept:
    """Decoded units that later rows want again, of at most `bound` bytes: those that are wanted soonest.

    What is not kept is fetched once more when its row comes: memory is bounded, the link less dear.
    """

    def __init__(self, plan: Plan, wanted: dict[int, list[int]], bound: int) -> None:
        self._lengths, self._wanted, self._left = plan.recipe.units.length, wanted, bound
        self._units: dict[int, tuple[int, Future[memoryview]]] = {}  # unit -> (row that wants it next, its bytes)

    def take(self, unit: int) -> Future[memoryview] | None:
        if unit not in self._units:
            return None
        self._left += self._lengths[unit]
        return self._units.pop(unit)[1]

    def offer(self, row: int, unit: int, decoding: Future[memoryview]) -> None:
        """`row` has been served: keep the unit if a later row wants it and it is worth the place."""
        rows = self._wanted[unit]
        place = bisect_right(rows, row)
        if place == len(rows):
            return
        self._units[unit] = rows[place], decoding
        self._left -= self._lengths[unit]
        while self._left < 0:
            self.take(max(self._units, key=lambda other: self._units[other][0]))


def _zeros(length: int) -> memoryview:
    return memoryview(bytes(length))
