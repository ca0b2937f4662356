# SPDX-License-Identifier: Apache-2.0
"""Who may read what while a merge goes on: shared locks on batches, taken whole only to go on by a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Condition
from typing import TypeAlias

#: The rows of a batch that lies in the journal: where there each of them is.
Window: TypeAlias = Mapping[int, int]


class Gate:
    """Where a merge stands: batches below `position` are done; `window` says where batch `position` lies, if it does.

    A reader holds the batch of the row that it looks for. The merger goes on only when nobody holds the batch that is
    at the gate: only there do places change. Readers of all other batches are never waited for, and wait for nobody.
    """

    def __init__(self) -> None:
        self.at: tuple[int, Window | None] = 0, None  #: position and window, of one moment
        self._readers: Counter[int] = Counter()
        self._moving = False
        self._changed = Condition()

    @property
    def position(self) -> int:
        return self.at[0]

    @property
    def window(self) -> Window | None:
        return self.at[1]

    @contextmanager
    def reading(self, batch: int) -> Iterator[None]:
        """Nothing that concerns `batch` changes meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._moving and batch == self.position))
            self._readers[batch] += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers[batch] -= 1
                if not self._readers[batch]:
                    del self._readers[batch]
                self._changed.notify_all()

    def move(self, position: int, window: Window | None = None) -> None:
        """Go on to `position`, or to where a window lies; waits for the readers of the batch at the gate."""
        with self._changed:
            self._moving = True
            try:
                self._changed.wait_for(lambda: not self._readers[self.position])
                self.at = position, window
            finally:
                self._moving = False
                self._changed.notify_all()
