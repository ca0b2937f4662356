# SPDX-License-Identifier: Apache-2.0
"""The way out `write`: bring a plan's rows into a medium, in parallel and in any order.

Every byte is hashed after it was read or decoded and before it is written. A row whose operation fails is tried again
by its next alternative: a wrong or unreadable seed chunk becomes a fetch. Only a row without any way left is an error,
and what was finished until then stays finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from threading import BoundedSemaphore, Event, Lock

from regraft.engine.decode import UnitDecoder
from regraft.engine.match import digest_of_zeros, wanted_units
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.ranges import RangeSource
from regraft.engine.sparse import write_sparse
from regraft.engine.verify import KEPT, Buffers, Room, batches, default_workers, wrong_rows
from regraft.errors import DigestError, FormatError, RegraftError, SourceError, TransportError
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, DigestColumn, Kind, Plan
from regraft.model.buffers import Buffer

#: How often a unit is fetched before its bytes count as wrong: a proxy may have mixed something up once.
TRIES = 2


class Writer:
    """Executes a plan onto `target`.

    seeds: a medium for each of `plan.seeds`. blobs: a source for each blob of the recipe. finished: a flag per row, set
    for rows that need nothing; rows are added as they are written. done(first, count): told of rows that were written
    (not yet durable). written: that attribute of an earlier Writer of the same work, to go on with. workers: threads
    for copying, and as many for decoding.
    """

    def __init__(
        self,
        plan: Plan,
        seeds: Sequence[Medium],
        blobs: Sequence[RangeSource],
        target: Medium,
        *,
        finished: bytearray,
        done: Callable[[int, int], None],
        written: DigestColumn | None = None,
        workers: int = 0,
        limits: Limits = DEFAULT,
        progress: Progress = QUIET,
    ) -> None:
        self._plan, self._seeds, self._blobs, self._target = plan, seeds, blobs, target
        self._finished, self._done = finished, done
        self._workers = workers or default_workers()
        self._limits, self._progress = limits, progress
        self._decoder = UnitDecoder(plan.recipe, blobs, limits)
        self._level = bytearray(len(plan.table))  # which of its operations a row is at
        self._tries: dict[int, int] = {}
        self._failed: list[int] = []
        self._error: BaseException | None = None
        self._stop = Event()
        self._lock = Lock()
        self._buffers = Buffers()
        self._long = Lock()  # held while a long chunk is in memory
        self.origins = bytearray(len(plan.table))
        #: SHA-256 of each row as written, where the recipe has no digests to read back against
        self.written = written
        if written is None and plan.table.digests.algorithm is None:
            self.written = DigestColumn(Algorithm.SHA256, bytes(32 * len(plan.table)))
        self.fetched = 0  #: stored bytes that came from blobs
        self.replaced = 0  #: rows whose first operation failed and another one did it

    def run(self) -> None:
        """Write every row that is not finished. Raises the error of the first row that no operation can give."""
        todo = [row for row in range(len(self._plan.table)) if not self._finished[row]]
        while todo:
            self._failed = []
            self._round(todo)
            if self._error is not None:
                raise self._error
            todo = sorted(self._failed)

    def _round(self, todo: list[int]) -> None:
        """Try each row of `todo` by its current operation; those that fail are in `_failed` afterwards."""
        table = self._plan.table
        kinds = {kind: [row for row in todo if table.kind[self._number(row)] == kind] for kind in Kind}
        work = self._local_work(kinds)
        with (
            ThreadPoolExecutor(self._workers, "copy") as copiers,
            ThreadPoolExecutor(self._workers, "decode") as decoders,
            self._stopping(),
        ):
            copying = [copiers.submit(self._guarded, self._copy_all, work) for _ in range(self._workers)]
            self._guarded(self._fetch_all, kinds[Kind.DATA] + kinds[Kind.PATCH], decoders)
            for future in copying:
                future.result()

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        """Run `work`; its first error, of whichever thread, ends this execution."""
        try:
            work(*arguments)
        except BaseException as error:
            with self._lock:
                self._error = self._error or error
            # A dead link still lets copying finish, so that the next run has less to do. Anything else ends all.
            if not isinstance(error, TransportError):
                self._stop.set()

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Let the threads end when this one is interrupted."""
        try:
            yield
        except BaseException:
            self._stop.set()
            raise

    def _alone(self, size: int) -> AbstractContextManager[object]:
        """Entered by one thread at a time if `size` bytes are too many to be in memory several times."""
        return self._long if size > KEPT else nullcontext()

    def _number(self, row: int) -> int:
        return self._plan.table.first[row] + self._level[row]

    # -- from seeds ---------------------------------------------------------------------------------------------------

    def _local_work(self, kinds: dict[Kind, list[int]]) -> Iterator[tuple[Kind, int, int]]:
        for first, count in batches(self._plan.table, kinds[Kind.COPY], self._limits.batch):
            yield Kind.COPY, first, count
        for first, count in batches(self._plan.table, kinds[Kind.ZERO], 64 * self._limits.batch):
            yield Kind.ZERO, first, count

    def _copy_all(self, work: Iterator[tuple[Kind, int, int]]) -> None:
        while not self._stop.is_set():
            with self._lock:
                batch = next(work, None)
            if batch is None:
                return
            kind, first, count = batch
            if kind is Kind.ZERO:
                bounds = self._plan.table.bounds
                for row in range(first, first + count):
                    self._note(row, None)
                self._target.zero(bounds[first], bounds[first + count] - bounds[first])
                self._written(first, count, Origin.ZERO)
            else:
                with self._alone(self._plan.table.bounds[first + count] - self._plan.table.bounds[first]):
                    self._copy(first, count)

    def _copy(self, first: int, count: int) -> None:
        table = self._plan.table
        start = table.bounds[first]
        view = self._buffers.view(table.bounds[first + count] - start)
        failed = dict.fromkeys(self._read_seeds(first, count, view))
        failed.update(dict.fromkeys(wrong_rows(table, first, count, view)))
        for row in failed:
            source = self._plan.seeds[table.source[self._number(row)]]
            self._fail(
                row, SourceError(f"{source}: the bytes for image offset {table.bounds[row]} are not as expected")
            )
        good = [row for row in range(first, first + count) if row not in failed]
        for row in good:
            self._note(row, view[table.bounds[row] - start : table.bounds[row + 1] - start])
        for run, length in batches(table, good, len(view)):
            begin, end = table.bounds[run], table.bounds[run + length]
            write_sparse(self._target, begin, view[begin - start : end - start])
            self._written(run, length, Origin.SEED)

    def _read_seeds(self, first: int, count: int, view: memoryview) -> list[int]:
        """Fill `view` from the seeds, joining neighbouring ranges; returns the rows that could not be read."""
        table = self._plan.table
        unreadable: list[int] = []
        row = first
        while row < first + count:
            number = self._number(row)
            source, at = table.source[number], table.at[number]
            last = row + 1
            while last < first + count:
                number = self._number(last)
                expected = at + table.bounds[last] - table.bounds[row]
                if table.source[number] != source or table.at[number] != expected:
                    break
                last += 1
            base = table.bounds[first]
            if not self._read(source, at, view[table.bounds[row] - base : table.bounds[last] - base]):
                for single in range(row, last):  # only the row with the bad sector is lost
                    part = view[table.bounds[single] - base : table.bounds[single + 1] - base]
                    if not self._read(source, table.at[self._number(single)], part):
                        unreadable.append(single)
            row = last
        return unreadable

    def _read(self, source: int, at: int, view: memoryview) -> bool:
        try:
            return self._seeds[source].read_into(at, view) == len(view)
        except SourceError:
            return False

    # -- from blobs ---------------------------------------------------------------------------------------------------

    def _fetch_all(self, rows: list[int], pool: ThreadPoolExecutor) -> None:
        wanted = wanted_units(self._plan, rows, self._level)
        units = self._plan.recipe.units
        for number, blob in enumerate(self._blobs):
            here = sorted((u for u in wanted if units.blob[u] == number), key=units.offset.__getitem__)
            if here:
                self.fetched += self._decoder.prepare(here)
                self._fetch(blob, here, wanted, pool)

    def _fetch(
        self, blob: RangeSource, here: list[int], wanted: dict[int, list[int]], pool: ThreadPoolExecutor
    ) -> None:
        slots = BoundedSemaphore(4 * self._workers)  # what arrived and is not yet decoded stays bounded: in number
        room = Room(self._limits.buffer // 2)  # and in bytes
        futures: list[Future[None]] = []
        with closing(blob.fetch([self._decoder.range_of(unit) for unit in here])) as arriving:
            for position, stored in arriving:
                unit = here[position]
                self.fetched += len(stored)
                slots.acquire()
                room.enter(len(stored))
                future = pool.submit(self._guarded, self._unit_alone, unit, stored, wanted[unit])
                future.add_done_callback(partial(self._decoded, slots, room, len(stored)))
                futures = [f for f in futures if not f.done()] + [future]
                if self._stop.is_set():
                    break
        for future in futures:
            future.result()

    @staticmethod
    def _decoded(slots: BoundedSemaphore, room: Room, size: int, _: Future[None]) -> None:
        slots.release()
        room.leave(size)

    def _unit_alone(self, unit: int, stored: Buffer, rows: list[int]) -> None:
        with self._alone(self._plan.recipe.units.length[unit]):
            self._unit(unit, stored, rows)

    def _unit(self, unit: int, stored: Buffer, rows: list[int]) -> None:
        table = self._plan.table
        parts: list[tuple[int, memoryview]] = []
        unread: dict[int, SourceError] = {}  # where the base cannot be read, fetching again is of no use
        try:
            decoded = self._decoder.decode(unit, stored)
            for row in rows:
                try:
                    parts.append((row, self._part(row, decoded)))
                except SourceError as error:
                    unread[row] = error
        except (DigestError, FormatError) as error:
            with self._lock:
                self._tries[unit] = self._tries.get(unit, 0) + 1
                again = self._tries[unit] < TRIES
            for row in rows:
                self._fail(row, error, again=again)
            return
        for row, missing in unread.items():
            self._fail(row, missing)
        for row, data in parts:
            self._note(row, data)
            write_sparse(self._target, table.bounds[row], data)
            self._written(row, 1, Origin.FETCHED)

    def _part(self, row: int, decoded: memoryview) -> memoryview:
        """The row's bytes, verified, by its DATA or PATCH."""
        op = self._plan.table.op(self._number(row))
        if op.kind is Kind.PATCH:
            return self._decoder.patched(row, op, decoded, self._seeds[op.source])
        return self._decoder.row(row, op.within, decoded)

    # -- done ---------------------------------------------------------------------------------------------------------

    def _note(self, row: int, data: memoryview | None) -> None:
        """Keep the digest of what is about to be written (None: zeros), if there is none to read back against."""
        if self.written is not None:
            algorithm = Algorithm.SHA256
            digest = digest_of_zeros(self._plan.table.length(row), algorithm) if data is None else algorithm.of(data)
            self.written.data[32 * row : 32 * row + 32] = digest

    def _written(self, first: int, count: int, origin: Origin) -> None:
        with self._lock:
            for row in range(first, first + count):
                self._finished[row] = 1
                self.origins[row] = origin
                self.replaced += self._level[row] > 0
        self._done(first, count)
        bounds = self._plan.table.bounds
        self._progress.advance(bounds[first + count] - bounds[first], origin)

    def _fail(self, row: int, error: RegraftError, *, again: bool = False) -> None:
        """The row's operation failed: its next one is for the next round; without one, `error` ends it all."""
        table = self._plan.table
        with self._lock:
            if not again:
                if table.first[row] + self._level[row] + 1 >= table.first[row + 1]:
                    raise error
                self._level[row] += 1
            self._failed.append(row)
