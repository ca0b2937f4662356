# SPDX-License-Identifier: Apache-2.0
"""Reading ahead of a view's readers, and completing what is kept while they rest."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from itertools import chain
from threading import Condition, Thread

from regraft.engine.keep import Keep
from regraft.engine.view import View
from regraft.errors import RegraftError, TransportError
from regraft.limits import KIB, MIB

_HEADS = 16  # sequential readers that are told apart
_SLACK = 512 * KIB  # by which requests of one reader may overtake each other
_LEAST, _MOST = 64 * KIB, 4 * MIB  # image bytes completed at once
_PATIENCE = 0.5  # seconds that one such step should take at most: a reader may have to wait for it
_QUIET = 0.05  # seconds without a reader, until what is kept is completed further
_LONGEST_PAUSE = 60.0  # seconds between two tries of a peer that does not answer


class Heads:
    """Tells whether a read goes on where an earlier one ended. Remembers only the latest few."""

    def __init__(self) -> None:
        self._ends: OrderedDict[int, int] = OrderedDict()  # end -> reads that led there

    def note(self, offset: int, end: int) -> bool:
        """A read from `offset` to `end`; whether it is at least the third in sequence."""
        near = next((head for head in reversed(self._ends) if abs(offset - head) <= _SLACK), None)
        count = self._ends.pop(near) + 1 if near is not None else 1
        self._ends[max(end, near or 0)] = count
        while len(self._ends) > _HEADS:
            self._ends.popitem(last=False)
        return count >= 3


class ReadAhead:
    """One thread behind a view: fetches ahead of sequential readers and, with a `keep`, completes it.

    Readers come first: completing pauses while there are any, goes on where they were last, in steps so small that none
    waits for long, and in ever longer intervals while a peer does not answer. When all is there it is proved.
    """

    def __init__(self, view: View, keep: Keep | None = None, *, report: Callable[[str], None] = lambda _: None) -> None:
        self._view, self._keep, self._report = view, keep, report
        self._bounds = view.plan.table.bounds
        self._changed = Condition()
        self._heads = Heads()
        self._last = float("-inf")  # when somebody read
        self._cursor = 0  # row to complete next
        self._wanted: tuple[int, int] | None = None
        self._closed = False
        self._step = 4 * _LEAST
        self.completed = False  #: whether all was kept and proved
        self._thread = Thread(target=self._run, name="regraft-read-ahead", daemon=True)

    def start(self) -> None:
        self._view.noticed = self.noticed
        self._thread.start()

    def close(self) -> None:
        """End, at the latest when the step that is being made has ended; that is not waited for longer than a moment,
        since a peer may be silent."""
        self._view.noticed = None
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_PATIENCE)

    def noticed(self, offset: int, end: int) -> None:
        """Somebody reads this range now."""
        with self._changed:
            self._last = time.monotonic()
            self._cursor = bisect_right(self._bounds, min(end, self._bounds[-1] - 1)) - 1
            if self._heads.note(offset, end) and end < self._bounds[-1]:
                self._wanted = (end, min(end + self._view.limits.view_ahead, self._bounds[-1]))
                self._changed.notify()

    def _run(self) -> None:
        pause, todo = 0.0, self._keep is not None and self._view.keeping
        while self._wait(pause, todo):
            wanted, self._wanted = self._wanted, None
            try:
                if wanted is not None:
                    self._view.fetch_ahead(*wanted)
                elif self._keep is not None:
                    todo = self._complete(self._keep)
                pause = 0.0
            except TransportError as error:
                if not pause:
                    self._report(f"completing the image pauses: {error}")
                pause = min(max(2 * pause, 1.0), _LONGEST_PAUSE)
                self._step = max(self._step // 2, _LEAST)
            except RegraftError as error:
                self._report(f"the image is not completed: {error}")
                todo = False

    def _wait(self, pause: float, todo: bool) -> bool:
        """Until there is something to fetch ahead or, if there is something `todo`, until that may go on. False at the
        end."""
        until = time.monotonic() + pause
        with self._changed:
            while not self._closed and self._wanted is None:
                rest = max(until, self._last + _QUIET) - time.monotonic()
                if todo and rest <= 0:
                    break
                self._changed.wait(rest if todo else None)
            return not self._closed

    def _complete(self, keep: Keep) -> bool:
        """Obtain and keep the next rows; whether there is more to do."""
        with self._changed:
            cursor = self._cursor
        rows = self._missing(cursor)
        if not rows:
            self.completed = not keep.prove()
            return not self.completed
        began = time.monotonic()
        self._view.keep_rows(rows)
        spent = time.monotonic() - began
        if not all(map(self._view.kept, rows)):
            # The medium has failed, and this was told; or a reader is keeping one of them at this moment.
            time.sleep(_QUIET)
            return self._view.keeping
        if spent < _PATIENCE / 2:
            self._step = min(2 * self._step, _MOST)
        elif spent > _PATIENCE:
            self._step = max(self._step // 2, _LEAST)
        with self._changed:
            if self._cursor == cursor:
                self._cursor = (rows[-1] + 1) % (len(self._bounds) - 1)
        return True

    def _missing(self, cursor: int) -> list[int]:
        """Rows that are not kept, from `cursor` on and round: of the size of one step, or one."""
        count, size = len(self._bounds) - 1, 0
        rows: list[int] = []
        for row in chain(range(cursor, count), range(cursor)):
            if self._view.kept(row):
                continue
            length = self._bounds[row + 1] - self._bounds[row]
            if rows and size + length > self._step:
                break
            rows.append(row)
            size += length
        return rows
