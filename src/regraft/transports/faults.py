# SPDX-License-Identifier: Apache-2.0
"""Sources that fail on purpose: to try what an update does on a bad link, without a bad link.

Each wraps any RangeSource and is one itself, so they stack: `ErrorAfter(Corrupt(source, {3}), 10)`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Sequence

from regraft.engine.ranges import Range, RangeSource
from regraft.errors import RegraftError, TransportError
from regraft.model.buffers import Buffer


class ErrorAfter:
    """Raises `error` in place of range number `count` (counted over all calls, from 0), `times` times."""

    def __init__(self, source: RangeSource, count: int, *, error: RegraftError | None = None, times: int = 1) -> None:
        self._source = source
        self._count = count
        self._error = error if error is not None else TransportError("the connection broke (on purpose)")
        self._times = times
        self._seen = 0

    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
        for item in self._source.fetch(ranges, ordered=ordered):
            if self._seen >= self._count and self._times > 0:
                self._times -= 1
                raise self._error
            self._seen += 1
            yield item


class Corrupt:
    """Flips one bit in the ranges with these numbers (counted over all calls, from 0), at `byte` of each."""

    def __init__(self, source: RangeSource, numbers: Collection[int], *, byte: int = 0, bit: int = 0) -> None:
        self._source = source
        self._numbers = frozenset(numbers)
        self._byte = byte
        self._mask = 1 << bit
        self._seen = 0

    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
        for position, content in self._source.fetch(ranges, ordered=ordered):
            number, self._seen = self._seen, self._seen + 1
            if number in self._numbers and content:
                changed = bytearray(content)
                changed[self._byte % len(changed)] ^= self._mask
                content = bytes(changed)
            yield position, content


class Stall:
    """Waits `seconds` before range number `count` (over all calls, from 0)."""

    def __init__(
        self, source: RangeSource, count: int, seconds: float, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._source = source
        self._count = count
        self._seconds = seconds
        self._sleep = sleep
        self._seen = 0

    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
        for item in self._source.fetch(ranges, ordered=ordered):
            if self._seen == self._count:
                self._sleep(self._seconds)
            self._seen += 1
            yield item


class Reorder:
    """Hands ranges over in another order, unless they are wanted in order: each group of `window` backwards."""

    def __init__(self, source: RangeSource, window: int = 8) -> None:
        self._source = source
        self._window = max(1, window)

    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
        held: list[tuple[int, Buffer]] = []
        for item in self._source.fetch(ranges, ordered=ordered):
            held.append(item)
            if ordered or len(held) == self._window:
                yield from reversed(held)
                held.clear()
        yield from reversed(held)
