# SPDX-License-Identifier: Apache-2.0
"""One call of `UrlSource.fetch`: who asks for what, when, and what is done with what comes back.

Up to `limits.connections` threads take requests in order of offset. What arrives complete is handed over at once;
what is still missing after an answer, whatever was wrong with it, goes back to be asked for again. So a broken
connection, a server that leaves ranges out and one that ignores ranges are all the same here: something is left.

Bytes in flight are bounded by reserving the bytes of a range before it is asked for and releasing them when the caller
takes it. When the caller wants the ranges in order, the next one that it waits for is always admitted; hence the
reservations of later ones can never block it.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Iterator, Sequence

from regraft.engine.ranges import Gathering, Range, Request, shape
from regraft.errors import ChangedError, LimitError, TransportError
from regraft.transports.answers import Takes, take_answer
from regraft.transports.connections import Interrupted, Transfer
from regraft.transports.fetcher import gave_up
from regraft.transports.ladder import Answer, Level, ranges_per_request
from regraft.transports.source import UrlSource
from regraft.transports.statuses import backoff
from regraft.transports.wants import Want

#: Bytes of wanted ranges that have to arrive for a try to count as progress, if it brought less than half of what was
#: missing and no range became complete.
_PROGRESS = 4096
_BROKEN_TWICE = 2


class Task(Takes):
    """A request that one thread is busy with."""

    def __init__(self, run: Run, level: Level, wants: list[Want], request: Request | None) -> None:
        super().__init__(run.source, wants, request)
        self._run = run
        self.level = level
        self.transfer = Transfer()
        self.round = run.round
        self.last = max((want.position for want in wants), default=-1)
        self.had = sum(want.arrived for want in wants)

    def deliver(self, position: int, content: bytes) -> None:
        self.completed += 1
        self._run.deliver(position, content)

    def next_want(self) -> Want | None:
        want = self._run.next_for_stream(self)
        if want is not None:
            self.wants.append(want)
            self.last = want.position
            self.had += want.arrived
        return want

    def proved(self) -> None:
        self._run.proved()

    def begin_stream(self) -> bool:
        return self._run.begin_stream(self)

    @property
    def gained(self) -> bool:
        """Whether this try has brought enough to start counting failures anew."""
        arrived = sum(want.arrived for want in self.wants) - self.had
        missing = sum(want.range.length for want in self.wants) - self.had
        return self.completed > 0 or arrived >= _PROGRESS or 0 < missing <= 2 * arrived


class Run:
    def __init__(self, source: UrlSource, ranges: Sequence[Range], ordered: bool) -> None:
        self.source = source
        self.round = 0  # tries that began before the last failure was counted fail together with it
        self._ranges = ranges
        self._ordered = ordered
        self._limits = source.fetcher.limits
        self._timing = source.fetcher.timing
        lock = threading.Lock()
        self._arrived = threading.Condition(lock)  # for the caller
        self._work = threading.Condition(lock)  # for the threads
        self._cursor = 0  # positions from here on have never been asked for
        self._end = 0  # of the last range before the cursor
        self._returned: list[Want] = []  # by position, all below the cursor
        self._active: set[Task] = set()
        self._stream: Task | None = None
        self._ready: dict[int, bytes] = {}
        self._queue: deque[int] = deque()  # positions in `_ready` as they came
        self._taken = 0  # ranges handed to the caller
        self._reserved = 0  # bytes
        self._holding: set[int] = set()  # positions that hold a reservation
        self._failures = 0
        self._resume_at = 0.0
        self._error: BaseException | None = None
        self._closed = False
        self._threads: list[threading.Thread] = []

    # the caller's side

    def results(self) -> Iterator[tuple[int, bytes]]:
        """Everything, as it arrives. Raises what stopped the run, after all that had arrived."""
        with self._arrived:
            if len(self._ranges):
                self._start_thread()
        while True:
            with self._arrived:
                position = self._next_ready()
                while position is None:
                    if self._taken == len(self._ranges):
                        return
                    if self._error is not None:
                        raise self._error
                    self._arrived.wait()
                    position = self._next_ready()
                content = self._ready.pop(position)
                self._taken += 1
                self._reserved -= len(content)
                self._holding.discard(position)
                self._work.notify_all()
            yield position, content

    def _next_ready(self) -> int | None:
        if self._ordered:
            return self._taken if self._taken in self._ready else None
        return self._queue.popleft() if self._queue else None

    def close(self) -> None:
        """End all transfers and threads."""
        with self._work:
            self._closed = True
            self._work.notify_all()
            active = list(self._active)
        for task in active:
            task.transfer.abort()
        for thread in self._threads:
            thread.join(0.5)  # one that is still connecting ends by itself
        self.source.finish()

    # the threads' side

    def _start_thread(self) -> None:
        name = f"regraft-fetch-{len(self._threads)}"
        thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        try:
            while (task := self._take()) is not None:
                self._perform(task)
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._work:
            if self._error is None:
                self._error = error
            self._arrived.notify_all()
            self._work.notify_all()

    def _take(self) -> Task | None:
        """The next task, waiting until there may be one; None when there will be no more."""
        while True:
            with self._work:
                if self._closed or self._error is not None:
                    return None
                pending = bool(self._returned) or self._cursor < len(self._ranges)
                if not pending and not self._active:
                    self._work.notify_all()
                    return None
                pause = self._resume_at - self._timing.clock()
                if pause <= 0 or not pending:
                    task = self._next_task() if pending else None
                    if task is not None:
                        self._active.add(task)
                        if len(self._threads) < self._limits.connections and (
                            self._returned or self._cursor < len(self._ranges)
                        ):
                            self._start_thread()
                        return task
                    if pending or self._active:
                        self._work.wait()
                    continue
            self._timing.sleep(min(pause, 0.25))

    def _next_task(self) -> Task | None:
        level = self.source.level
        parallel = self._limits.connections if self.source.proved and level is not Level.STREAM else 1
        if len(self._active) >= parallel:
            return None
        if level is Level.STREAM:
            return Task(self, level, [], None)
        rules = shape(self.source.link, ranges_per_request(level, self._limits), self._limits)
        gathering = Gathering(rules)
        wants: list[Want] = []
        while (want := self._peek()) is not None:
            missing = list(want.missing())
            asked = Range(missing[0].offset, missing[-1].end - missing[0].offset)
            # a request begins when there is room for a whole one: else each range that is taken would make a tiny one
            room = 0 if wants else rules.max_bytes
            if not self._may_hold(want, bool(wants), room) or not gathering.add(asked):
                break
            self._hold(want)
            self._drop(want)
            wants.append(want)
        return Task(self, level, wants, gathering.request()) if wants else None

    def _peek(self) -> Want | None:
        """The first range that nobody is busy with."""
        return self._returned[0] if self._returned else self._peek_new()

    def _peek_new(self) -> Want | None:
        """The first range that was never asked for. Empty ranges are done as they are met."""
        while self._cursor < len(self._ranges):
            wanted = Range(*self._ranges[self._cursor])
            self._check(wanted)
            if wanted.length:
                return Want(self._cursor, wanted)
            self._store(self._cursor, b"")
            self._cursor += 1
        return None

    def _check(self, wanted: Range) -> None:
        if wanted.offset < self._end or wanted.length < 0:
            raise ValueError(f"range {self._cursor}, at byte {wanted.offset}, is not behind the one before")
        if wanted.length > self._limits.stored_size:
            raise LimitError(
                f"a range of {wanted.length} bytes at byte {wanted.offset}, more than {self._limits.stored_size}",
                cure="build the file with smaller chunks, or raise the limit stored_size",
            )
        size = self.source.size
        if size is not None and wanted.end > size:
            raise ChangedError(f"{self.source.url} has {size} bytes, but bytes up to {wanted.end} are wanted")

    def _drop(self, want: Want) -> None:
        """The range that was peeked at is somebody's now."""
        if want.position < self._cursor:
            self._returned.remove(want)
        else:
            self._cursor += 1
            self._end = want.range.end

    def _may_hold(self, want: Want, besides: bool, room: int = 0) -> bool:
        """Whether there is room for `want`, or for `room` bytes if that is more; `besides` others of the request."""
        if want.position in self._holding or self._reserved + max(want.range.length, room) <= self._limits.buffer:
            return True
        return not besides and (self._reserved == 0 or (self._ordered and want.position == self._taken))

    def _hold(self, want: Want) -> None:
        if want.position not in self._holding:
            self._holding.add(want.position)
            self._reserved += want.range.length

    def begin_stream(self, task: Task) -> bool:
        """Whether `task` may serve all from the whole file that it is being sent; only one does at a time."""
        with self._work:
            if self._stream is None:
                self._stream = task
            return self._stream is task

    def next_for_stream(self, task: Task) -> Want | None:
        """The next range for a stream that passes by all of them; None when there are no more, or it should end."""
        waited = False
        with self._work:
            while not self._closed and self._error is None:
                # what others gave back may lie behind the stream already: that is left for another request
                behind = [want for want in self._returned if want.position < task.last]
                ahead = self._returned[len(behind) :]
                want = ahead[0] if ahead else self._peek_new()
                if want is None:
                    break
                if self._may_hold(want, False):
                    self._hold(want)
                    self._drop(want)
                    task.waited |= waited
                    return want
                if behind and self._ordered:  # the caller waits for those first
                    break
                waited = True
                self._work.wait()
        return None

    def _perform(self, task: Task) -> None:
        headers: dict[str, str] = {}
        if task.request is not None:
            headers["Range"] = task.request.header
            if self.source.if_range:
                headers["If-Range"] = self.source.if_range
        try:
            with self.source.request(headers, task.transfer) as response:
                answer = take_answer(task, response)
        except Interrupted as stop:
            self._finish(task, Answer.BROKEN, stop)
        else:
            self._finish(task, answer, None)

    def _finish(self, task: Task, answer: Answer, stop: Interrupted | None) -> None:
        """Give back what is missing, step down the ladder if need be, and decide when to go on."""
        spans = len(task.request.spans) if task.request is not None else 0
        with self._work:
            left = [want for want in task.wants if not want.done]
            self._returned = list(heapq.merge(self._returned, left, key=lambda want: want.position))
            self._active.discard(task)
            if self._stream is task:
                self._stream = None
            self._work.notify_all()
            if self._closed:
                return
            if task.gained:
                self._failures = 0
            if stop is None and answer is not Answer.GOOD and self.source.stepped(task.level, spans, answer):
                return
            if (not left and stop is None) or (stop is None and task.gained):
                return
            self._count_failure(task, spans, stop)

    def _count_failure(self, task: Task, spans: int, stop: Interrupted | None) -> None:
        self.source.count_retry()
        if not task.gained and task.round == self.round:
            self.round += 1
            self._failures += 1
        error = stop.error if stop is not None else TransportError(f"{self.source.url}: the server sends other ranges")
        if self._failures >= self._limits.retries:
            self._error = gave_up(error, self._failures)
            self._arrived.notify_all()
            return
        if self._failures >= _BROKEN_TWICE:
            self.source.stepped(task.level, spans, Answer.BROKEN)
        wait = backoff(
            self._failures, self._timing.chance(), stop.wait if stop is not None else None, self._limits.retry_wait
        )
        self._resume_at = max(self._resume_at, self._timing.clock() + wait)

    def deliver(self, position: int, content: bytes) -> None:
        """A range is complete."""
        with self._arrived:
            self._store(position, content)

    def _store(self, position: int, content: bytes) -> None:
        self._ready[position] = content
        if not self._ordered:
            self._queue.append(position)
        self._arrived.notify()

    def proved(self) -> None:
        """The server takes ranges: the other threads may begin."""
        self.source.prove()
        with self._work:
            self._work.notify_all()
