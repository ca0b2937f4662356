# SPDX-License-Identifier: Apache-2.0
"""Measures a link while it is used. The clock's readings are passed in."""

from __future__ import annotations

import threading
from collections import deque

from regraft.engine.ranges import Link

#: What is assumed of a link before anything was measured: 20 Mbit/s, 100 ms.
ASSUMED = Link(bandwidth=2.5e6, round_trip=0.1)

_WINDOW = 0.25  # seconds of transfer that make one sample
_ENOUGH = 64 << 10  # bytes below which the end of a transfer makes no sample
_WEIGHT = 0.4  # of a new sample


class Meter:
    """Bandwidth over all connections of a host together, and the round trip. Thread-safe. Times in seconds."""

    def __init__(self, start: Link = ASSUMED) -> None:
        self._lock = threading.Lock()
        self._bandwidth = start.bandwidth
        self._measured = False
        self._trips: deque[float] = deque(maxlen=16)
        self._trip = start.round_trip
        self._active = 0
        self._since = 0.0
        self._bytes = 0

    @property
    def link(self) -> Link:
        with self._lock:
            return Link(self._bandwidth, min(self._trips, default=self._trip))

    @property
    def measured(self) -> bool:
        """Whether the bandwidth is more than an assumption."""
        return self._measured

    def answered(self, seconds: float) -> None:
        """The headers of an answer came `seconds` after its request was sent."""
        with self._lock:
            # the least of the last ones: the others waited in a queue behind data
            self._trips.append(max(seconds, 1e-5))

    def begin(self, now: float) -> None:
        """A body begins to arrive."""
        with self._lock:
            if not self._active:
                self._since, self._bytes = now, 0
            self._active += 1

    def received(self, count: int, now: float) -> None:
        """`count` bytes of some body have arrived."""
        with self._lock:
            self._bytes += count
            if now - self._since >= _WINDOW:
                self._sample(now)

    def end(self, now: float) -> None:
        """A body has ended."""
        with self._lock:
            self._active -= 1
            if not self._active and self._bytes >= _ENOUGH:
                self._sample(now)

    def _sample(self, now: float) -> None:
        elapsed = now - self._since
        if elapsed > 1e-4:
            rate = max(1.0, self._bytes / elapsed)
            self._bandwidth = rate if not self._measured else self._bandwidth * (1 - _WEIGHT) + rate * _WEIGHT
            self._measured = True
        self._since, self._bytes = now, 0
