# SPDX-License-Identifier: Apache-2.0
"""The pieces of a merge's batches: computed on several cores while those before them are written and synced."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeAlias

from regraft.engine.merge_rows import RowReader
from regraft.engine.order import Schedule, runs
from regraft.engine.verify import default_workers
from regraft.limits import DEFAULT, Limits
from regraft.model import Plan

#: Threads at most: writing keeps a core busy too, and each thread may hold a decoded unit.
_WORKERS = 4


#: Neighbouring rows of a batch: the first one, their number, whether they are zeros, and their bytes; of zeros that are
#: only to be made there are none.
Piece: TypeAlias = tuple[int, int, bool, memoryview]


class Ahead:
    """Computes the batches of `schedule` from `position` on, verified, in the order in which they are asked for.

    Ahead of being asked, at most `limits.buffer` bytes: what a batch reads is there to be read until it is done itself,
    so it is never too early. Work of less than `worth` bytes in all is done when it is asked for, without threads.
    Used as a context, which does not end before the threads do.
    """

    def __init__(
        self, plan: Plan, schedule: Schedule, position: int, rows: RowReader, *, worth: int, limits: Limits = DEFAULT
    ) -> None:
        self._bounds, self._rows = plan.table.bounds, rows
        self._most, self._batch = limits.buffer, limits.batch
        self._todo = (
            (batch, *run)
            for batch in range(position, len(schedule))
            for run in runs(plan, schedule.batch(batch), schedule.choice, limits.batch)
        )
        self._journaled = schedule.journaled
        self._next = next(self._todo, None)
        self._under_way: deque[tuple[int, Piece, Future[None] | None]] = deque()
        self._held = 0
        self._free: list[bytearray] = []
        size = 0
        for row in schedule.rows[schedule.starts[position] :] if len(schedule) else ():
            size += plan.table.length(row)
            if size > worth:
                break
        self._pool = ThreadPoolExecutor(min(default_workers(), _WORKERS), "merge") if size > worth else None
        self._beside = ThreadPoolExecutor(1, "beside") if size > worth else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in (self._pool, self._beside):
            if pool is not None:
                pool.shutdown(cancel_futures=True)

    def of(self, batch: int) -> Iterator[Piece]:
        """The pieces of `batch`, which is the next one. A piece is gone with the following step.

        Raises the error of a row for which nothing is left, when it is that row's turn.
        """
        self._start()
        while self._under_way and self._under_way[0][0] == batch:
            _, piece, computing = self._under_way.popleft()
            first, count, _, view = piece
            if computing is not None:
                computing.result()
            elif view:
                self._rows.fill(first, count, view)
            yield piece
            self._release(view)
            self._start()

    def beside(self, work: Callable[[memoryview], object], view: memoryview) -> Callable[[], object]:
        """Have `work(view)` done on another core, after what was given before; call the result to wait for its end."""
        if self._beside is None:
            work(view)
            return lambda: None
        return self._beside.submit(work, view).result

    def _start(self) -> None:
        """Begin as many pieces as there is room for; without threads only the next one."""
        while self._next is not None:
            batch, first, count, zeros = self._next
            size = self._bounds[first + count] - self._bounds[first]
            if zeros and not self._journaled[batch]:
                size = 0  # only made
            taken = self._taken(size)
            if (self._under_way and self._pool is None) or (self._held and self._held + taken > self._most):
                return
            self._held += taken
            view = memoryview(self._free.pop() if taken == self._batch and self._free else bytearray(taken))[:size]
            computing = self._pool.submit(self._rows.fill, first, count, view) if self._pool and size else None
            self._under_way.append((batch, (first, count, zeros, view), computing))
            self._next = next(self._todo, None)

    def _taken(self, size: int) -> int:
        """The memory that a piece takes. Large ones get buffers of one size, which are used again."""
        return self._batch if self._pool is not None and self._batch // 2 < size < self._batch else size

    def _release(self, view: memoryview) -> None:
        buffer = view.obj
        if isinstance(buffer, bytearray):
            self._held -= len(buffer)
            if self._pool is not None and len(buffer) == self._batch:
                self._free.append(buffer)
