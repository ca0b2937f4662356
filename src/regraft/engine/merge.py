# SPDX-License-Identifier: Apache-2.0
"""The way out `merge`: a plan executed over its own base, in place, while others read.

What a power cut leaves is a state from which the same call goes on (docs/concepts/live-updates.md). A direct batch
changes nothing that it reads: it is written, synced, recorded, and after a cut done again. A window is computed, made
durable in the journal with its digest, and only then written in place: after a cut it is written again from there. A
record never promises what is not yet durable.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Lock

from regraft.engine import order as ordering
from regraft.engine.gate import Gate, Window
from regraft.engine.medium import Medium
from regraft.engine.merge_ahead import Ahead
from regraft.engine.merge_identity import base_identity, changed_since, wrong_in_base, wrong_in_target
from regraft.engine.merge_journal import MergeJournal
from regraft.engine.merge_rows import RowReader
from regraft.engine.merge_status import Place, Status, Where
from regraft.engine.order import Schedule
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.ranges import RangeSource
from regraft.engine.throttle import Throttle
from regraft.errors import DigestError, RegraftError, StateError, VerificationError
from regraft.formats.merge_state import Record, State
from regraft.limits import DEFAULT, Limits
from regraft.model import Digest, Kind, Plan

#: In the column of batches: the row stays where it is.
_STAYS = 0xFFFF_FFFF


class Merge:
    """Executes `plan`, whose seed 0 is `base`, onto `base`.

    blobs: a source for each blob of the recipe. seeds: media of the plan's further seeds. window: bytes that are
    journaled at once, for a merge that has not begun. base_digest: of the first `base_size` bytes of the base (default:
    all), if known; else each row that reads the base is compared with its digest before the first write, unless
    `identified` says that the caller has just done so. digest: of the whole target, from verified metadata; the
    recipe's own if None. unverified: do without what the plan does not tell, of the base and of the target.

    Interrupted at any point, a Merge of the same plan with the same journal goes on. `run` may be called again after
    an error, from any thread, but not twice at once; everything else may be called at any time.
    """

    #: Bytes of all work above which it is computed while earlier work is written and synced.
    ahead = 1 << 20

    def __init__(
        self,
        plan: Plan,
        base: Medium,
        blobs: Sequence[RangeSource],
        journal: MergeJournal,
        *,
        seeds: Sequence[Medium] = (),
        window: int = 0,
        base_digest: Digest | None = None,
        base_size: int | None = None,
        digest: Digest | None = None,
        identified: bool = False,
        unverified: bool = False,
        throttle: Throttle | None = None,
        limits: Limits = DEFAULT,
        progress: Progress = QUIET,
    ) -> None:
        self.plan, self.base, self.journal = plan, base, journal
        self._blobs, self._sources = blobs, (base, *seeds)
        self._window, self._limits, self._progress = window, limits, progress
        self._base_digest, self._base_size = base_digest, base_size
        self._digest = digest or plan.recipe.digest
        self._identified, self._unverified = identified or unverified, unverified
        self._throttle = throttle or Throttle()
        self._gate = Gate()
        self._stopping, self._running = Event(), Event()
        self._running.set()
        self._schedule: Schedule | None = None
        self._rows: RowReader | None = None
        self._pieces: Ahead  # while `run` works
        self._batch_of = array("I")
        self._unsynced: Window | None = None  # of the last batch, if it was written and its end not recorded
        self._preparing = Lock()
        self._begun = False
        self._done = 0
        self._state, self._error = "ready", ""

    # -- looking ------------------------------------------------------------------------------------------------------

    @property
    def schedule(self) -> Schedule:
        """The order of the work; after `prepare`."""
        self.prepare()
        assert self._schedule is not None  # noqa: S101 - it is prepared
        return self._schedule

    @property
    def rows(self) -> RowReader:
        """What computes rows; after `prepare`."""
        self.prepare()
        assert self._rows is not None  # noqa: S101 - it is prepared
        return self._rows

    @property
    def begun(self) -> bool:
        """Whether the base is, or may be, changed already; after `prepare`."""
        return self._begun

    @property
    def to_write(self) -> int:
        """Bytes of the image that are not in their place in the base as it was; after `prepare`."""
        return sum(map(self.plan.table.length, self.schedule.rows))

    def status(self) -> Status:
        """A snapshot."""
        batches = len(self._schedule) if self._schedule is not None else 0
        return Status(self._state, self._gate.position, batches, self._done, self.plan.size, self._error)

    def where(self, row: int) -> Place:
        """Where the right bytes of `row` are at this moment. To read them there, hold the row: `holding`."""
        batch = self._batch_of[row]
        start = self.plan.table.bounds[row]
        position, window = self._gate.at
        if batch == _STAYS or batch < position:
            return Place(Where.BASE, start)
        if batch == position and window is not None:
            return Place(Where.WINDOW, window[row])
        number = self.plan.table.first[row] + self.schedule.choice[row]
        if ordering.reads_base(self.plan.table, number):
            return Place(Where.SOURCE, self.plan.table.at[number])
        return Place(Where.STORED)

    @contextmanager
    def holding(self, row: int) -> Iterator[Place]:
        """The place of `row`, which stays true until the block ends."""
        if self.settled(row):
            yield Place(Where.BASE, self.plan.table.bounds[row])
            return
        with self._gate.reading(self._batch_of[row]):
            yield self.where(row)

    def settled(self, row: int) -> bool:
        """Whether the row is in its final place, where it stays: it can be read there without holding it."""
        batch = self._batch_of[row]
        return batch == _STAYS or batch < self._gate.position

    def settled_up_to(self, row: int, end: int) -> int:
        """The first of the rows from `row` to `end` that is not settled; `end` if all of them are."""
        batches, position = self._batch_of, self._gate.position
        for number in range(row, end):
            if position <= batches[number] != _STAYS:
                return number
        return end

    # -- steering -----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let `run` finish its batch and return, until `go_on`. From any thread or signal handler."""
        self._stopping.set()
        self._running.set()

    def pause(self) -> None:
        """Let `run` finish its batch and wait."""
        self._running.clear()

    def go_on(self) -> None:
        """Take back `pause` and `stop`."""
        self._stopping.clear()
        self._running.set()

    # -- preparing ----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Find out where an earlier run stopped, or that this is the right base and in which order to go. Writes
        nothing.

        Raises DigestError or SourceError for a wrong base, VerificationError if nothing can tell or nothing covers the
        image, StateError for a journal of another merge, LimitError if there is no order.
        """
        if self._schedule is None:
            with self._preparing:
                if self._schedule is None:
                    self._prepare()

    def _prepare(self) -> None:
        if self._digest is None and not self._unverified and not self.plan.recipe.verifiable():
            raise VerificationError("nothing covers the bytes of this image", cure="give the image's digest")
        identity = ordering.identity(self.plan)
        base = base_identity(self._base_digest, self._base_size)
        records = self.journal.records()
        if records and records[0].plan != identity and records[0].state is not State.COMPLETE:
            raise StateError(
                f"{self.journal.medium.name} belongs to another merge, which is not complete",
                cure="finish that one first: run it again with its own plan",
            )
        records = [record for record in records if record.plan == identity]
        if records and records[0].base != base:
            raise StateError(
                f"{self.journal.medium.name} belongs to a merge onto another base",
                cure="give the same base and what was said of it then",
            )
        if records and records[0].state is State.COMPLETE and not self._is_complete():
            records = []  # another image was put there since
        for record in records:
            if record.state is not State.JOURNALED or self.journal.holds(record):
                self._resume(record)
                return
            if self.plan.table.digests.algorithm is None:
                break  # the window may lie half in place, and nothing would tell what is computed from that
        if records:
            raise StateError(
                f"{self.journal.medium.name}: its window is damaged, and no record can be used without it",
                cure="install the whole image",
            )
        schedule = ordering.order(self.plan, window=self._window, limits=self._limits)
        try:
            wrong = wrong_in_base(
                self.plan, self._reader(schedule), self.base, self._base_digest, self._base_size,
                identified=self._identified, limits=self._limits, progress=self._progress,
            )  # fmt: skip
        except DigestError:
            # An earlier run may have ended, and its journal be gone, without anybody having heard of it.
            if self._digest is None or self.base.size < self.plan.size or not self._is_complete():
                raise
            self._state = "complete"
            schedule, wrong = ordering.nothing(self.plan), set()
        if wrong:
            schedule = ordering.order(self.plan, window=self._window, without=wrong, limits=self._limits)
        self._take(schedule, 0, None)

    def _read_back(self) -> list[int]:
        return wrong_in_target(self.plan, self.base, self._digest, limits=self._limits, progress=self._progress)

    def _is_complete(self) -> bool:
        try:
            return not self._read_back()
        except DigestError:
            return False

    def _reader(self, schedule: Schedule) -> RowReader:
        return RowReader(self.plan, schedule.choice, self._sources, self._blobs, limits=self._limits)

    def _resume(self, record: Record) -> None:
        schedule = ordering.load(self.journal.go_on(record), self.plan, limits=self._limits)
        if record.batch > len(schedule):
            raise StateError(f"{self.journal.medium.name}: batch {record.batch} of {len(schedule)}")
        row = changed_since(self.plan, schedule.rows[: schedule.starts[record.batch]], self.base)
        if row is not None:
            place = f"{self.base.name} at {self.plan.table.bounds[row]}"
            raise StateError(
                f"{place} is not what {self.journal.medium.name} says was merged",
                cure="the journal is that of another device, or the base was written to: install the whole image",
            )
        self._begun = True
        if record.state is State.COMPLETE:
            self._state = "complete"
        elif record.status:
            self._state, self._error = "failed", record.words
        journaled = record.state is State.JOURNALED
        self._take(
            schedule, record.batch, self._window_of(schedule, record.batch, record.window_at) if journaled else None
        )

    def _take(self, schedule: Schedule, position: int, window: Window | None) -> None:
        table = self.plan.table
        self._rows = self._reader(schedule)
        self._batch_of = array("I", [_STAYS]) * len(table)
        for batch in range(len(schedule)):
            for row in schedule.batch(batch):
                self._batch_of[row] = batch
        self._gate.move(position, window)
        self._schedule = schedule
        self._done = self._count_done()

    def _count_done(self) -> int:
        """Bytes that are where they belong."""
        schedule, table = self.schedule, self.plan.table
        return table.size - sum(map(table.length, schedule.rows[schedule.starts[self._gate.position] :]))

    def _window_of(self, schedule: Schedule, batch: int, start: int) -> Window:
        """Where each row of a batch lies in a window that starts there."""
        window, bounds = {}, self.plan.table.bounds
        for row in schedule.batch(batch):
            window[row] = start
            start += bounds[row + 1] - bounds[row]
        return window

    # -- working ------------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Merge until all is done and read back: True. False if `stop` came first.

        Raises what stopped it: MediumError, SourceError, DigestError and so on; the cause is in `status`, and in the
        journal if that can be written. Call again to go on.
        """
        try:
            return self._run()
        except BaseException as error:
            self._state, self._error = "failed", str(error) or type(error).__name__
            self._step_back()
            if self._begun and isinstance(error, RegraftError):
                with suppress(RegraftError):
                    self.journal.record(status=error.exit_status, words=self._error)
            raise

    def _step_back(self) -> None:
        """After an error: a window that was written and not synced may be lost, so it is written again."""
        if self._schedule is not None:
            if self._unsynced is not None:
                self._gate.move(self._gate.position - 1, self._unsynced)
                self._unsynced = None
            self._done = self._count_done()

    def _run(self) -> bool:
        self.prepare()
        self._error = ""
        if self._state == "complete":
            return True
        self._begin()
        self._progress.phase("merge", self.plan.size)
        self._progress.advance(self._done, Origin.IN_PLACE)
        if self._gate.window is not None:
            self._install(self._gate.position)
        with Ahead(
            self.plan, self.schedule, self._gate.position, self.rows, worth=self.ahead, limits=self._limits
        ) as self._pieces:
            if not self._work():
                return False
        self._settle()
        self._finish()
        return True

    def _work(self) -> bool:
        """Do the batches that are left. False if `stop` came first."""
        while self._gate.position < len(self.schedule):
            if not self._running.is_set():
                self._settle()
                self._state = "paused"
                self._running.wait()
            if self._stopping.is_set():
                self._settle()
                self._state = "stopped"
                return False
            self._state = "merging"
            if self.schedule.journaled[self._gate.position]:
                self._journaled(self._gate.position)
            else:
                self._direct(self._gate.position)
        return True

    def _begin(self) -> None:
        """The first record, and only then the first change of the base."""
        size = self.plan.size
        if not self._begun:
            if not self.base.sparse:
                self.base.resize(size)  # only checks that it is large enough
            schedule = self.schedule.build()
            windows = [b for b in range(len(self.schedule)) if self.schedule.journaled[b]]
            largest = max((sum(map(self.plan.table.length, self.schedule.batch(b))) for b in windows), default=0)
            first = Record(
                plan=ordering.identity(self.plan),
                schedule=hashlib.sha256(schedule).digest(),
                base=base_identity(self._base_digest, self._base_size),
                schedule_length=len(schedule),
                capacity=largest,
            )
            self.journal.begin(first, schedule)
            self._begun = True
        if self.base.size < size:
            self.base.resize(size)

    def _direct(self, batch: int) -> None:
        """Write, sync, record. Nothing that the batch reads is changed by it, so a cut costs no more than its work."""
        for first, count, zeros, view in self._pieces.of(batch):
            start = self.plan.table.bounds[first]
            if zeros:
                self.base.zero(start, self.plan.table.bounds[first + count] - start)
            else:
                self.base.write(start, view)
            self._moved(first, count)
        self.base.sync()
        self._unsynced = None
        self._gate.move(batch + 1)
        self.journal.record(batch=batch + 1, state=State.IDLE)

    def _journaled(self, batch: int) -> None:
        """Everything is read and durable in the journal before anything is written in place."""
        window = 1 - self.journal.current.window
        length, digest = self._keep(batch, window)
        if self._unsynced is not None:
            self.base.sync()
            self._unsynced = None
        self.journal.record(batch=batch, state=State.JOURNALED, window=window, length=length, digest=digest)
        self._gate.move(batch, self._window_of(self.schedule, batch, self.journal.window_at(window)))
        self._install(batch)

    def _keep(self, batch: int, window: int) -> tuple[int, bytes]:
        """The window's rows, durable in the journal: (length, digest)."""
        place = start = self.journal.window_at(window)
        hasher = hashlib.sha256()
        for first, count, _, view in self._pieces.of(batch):
            hashed = self._pieces.beside(hasher.update, view)
            self.journal.medium.write(place, view)
            hashed()
            place += len(view)
            self._wait(self.plan.table.bounds[first + count] - self.plan.table.bounds[first])
        self.journal.medium.sync()
        return place - start, hasher.digest()

    def _install(self, batch: int) -> None:
        """Write the window in place, from the journal. Its end is recorded with the next batch, or by `_settle`."""
        window, table = self._gate.window or {}, self.plan.table
        rows, choice = self.schedule.batch(batch), self.schedule.choice
        for first, count, _ in ordering.runs(self.plan, rows, choice, self._limits.batch):
            size = table.bounds[first + count] - table.bounds[first]
            view = memoryview(bytearray(size))
            if self.journal.medium.read_into(window[first], view) < size:
                raise StateError(f"{self.journal.medium.name} became shorter")
            self.base.write(table.bounds[first], view)
            self._moved(first, count)
        self._unsynced = window
        self._gate.move(batch + 1)

    def _settle(self) -> None:
        """Record the end of the last window."""
        if self._unsynced is not None:
            self.base.sync()
            self._unsynced = None
            self.journal.record(batch=self._gate.position, state=State.IDLE)

    def _moved(self, first: int, count: int) -> None:
        table = self.plan.table
        size = table.bounds[first + count] - table.bounds[first]
        self._done += size
        kind = table.kind[table.first[first] + self.schedule.choice[first]]
        self._progress.advance(size, Origin.FETCHED if kind == Kind.DATA else Origin.SEED)
        self._wait(size)

    def _wait(self, count: int) -> None:
        seconds = self._throttle.wait(count)
        if seconds > 0:
            self._stopping.wait(seconds)  # a stop need not be waited for

    # -- the end ------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Read the whole back; what is wrong and has stored bytes is written once more."""
        self._state = "verifying"
        if self.base.sparse and self.base.size != self.plan.size:
            self.base.resize(self.plan.size)
            self.base.sync()
        for attempt in range(2):
            wrong = self._read_back()
            if not wrong:
                break
            if attempt:
                raise DigestError(f"{self.base.name} at {self.plan.table.bounds[wrong[0]]} reads back wrong, twice")
            for row in wrong:
                self._mend(row)
            self.base.sync()
        self.journal.record(batch=len(self.schedule), state=State.COMPLETE)
        self._state = "complete"

    def _mend(self, row: int) -> None:
        """Write a row from stored bytes."""
        others = ordering.elsewhere(self.plan, row)
        if not others:
            raise DigestError(f"{self.base.name} at {self.plan.table.bounds[row]} reads back wrong")
        choice = bytearray(self.schedule.choice)
        choice[row] = others[0]
        view = memoryview(bytearray(self.plan.table.length(row)))
        RowReader(self.plan, bytes(choice), self._sources, self._blobs, limits=self._limits).fill(row, 1, view)
        self.base.write(self.plan.table.bounds[row], view)
