# SPDX-License-Identifier: Apache-2.0
"""Not in the way: how long work in the background waits, by the bytes it moved and by the load of the system."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

#: Seconds that work waits at a time while others are busy, and for how long at most: it must end some day.
_BUSY, _PATIENCE = 0.25, 5.0


class Throttle:
    """rate: bytes per second, 0 for no limit. load: above this 1-minute load average it waits too, 0 for never."""

    def __init__(
        self,
        rate: float = 0,
        load: float = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        load_of_system: Callable[[], float] = lambda: os.getloadavg()[0],
    ) -> None:
        self.rate, self.load = rate, load
        self._clock, self._load = clock, load_of_system
        self._free_at = 0.0
        self._waited = 0.0

    def wait(self, count: int) -> float:
        """Seconds to wait after `count` more bytes were moved."""
        seconds = 0.0
        if self.rate > 0:
            now = self._clock()
            self._free_at = max(self._free_at, now) + count / self.rate
            seconds = self._free_at - now
        if self.load > 0 and self._waited < _PATIENCE and self._load() > self.load:
            self._waited += _BUSY
            return max(seconds, _BUSY)
        self._waited = 0.0
        return seconds
