# SPDX-License-Identifier: Apache-2.0
"""Fetching units for readers that wait: each unit once, however many want it, and none waited for too long."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from threading import Lock

from regraft.engine.cache import Cache, Entry
from regraft.engine.decode import UnitDecoder
from regraft.engine.ranges import RangeSource
from regraft.engine.threads import DaemonPool
from regraft.engine.verify import KEPT
from regraft.errors import DigestError, FormatError, RegraftError, StallError, TransportError
from regraft.limits import DEFAULT, Limits
from regraft.model import Recipe

Flight = Future[Entry]

_LET_GO = 1.0  # seconds that readers have to let go of a long unit, before the next one takes as much memory


class Flights:
    """Gets decoded units, from the cache or from blobs.

    A unit that is being fetched is not fetched a second time: whoever wants it joins. What was waited for in vain is
    forgotten, so that the next who wants it begins anew; should it still come, it is as good as any.
    """

    def __init__(
        self,
        recipe: Recipe,
        blobs: Sequence[RangeSource],
        cache: Cache,
        *,
        local: Collection[int] = (),
        limits: Limits = DEFAULT,
    ) -> None:
        """`local`: the blobs that are read at once, in the thread that asks; others get threads of their own."""
        self._recipe, self._blobs, self._cache, self._limits = recipe, blobs, cache, limits
        self._local = frozenset(local)
        self.decoder = UnitDecoder(recipe, blobs, limits)
        self._pool = DaemonPool(max(limits.connections, 1), "regraft-view")
        self._behind = DaemonPool(1, "regraft-ahead")
        self._lock, self._long = Lock(), Lock()
        self._last_long: Callable[[], Entry | None] = lambda: None
        self._flights: dict[int, Flight] = {}
        self.fetched = 0  #: stored bytes that were taken from blobs

    def close(self) -> None:
        self._pool.close()
        self._behind.close()

    def is_local(self, unit: int) -> bool:
        return self._recipe.units.blob[unit] in self._local

    def cached(self, unit: int) -> Entry | None:
        return self._cache.get(unit)

    def missing(self, units: Iterable[int]) -> list[int]:
        """Those that are neither in the cache nor being fetched."""
        with self._lock:
            return [unit for unit in units if unit not in self._flights and self._cache.get(unit) is None]

    @contextmanager
    def alone(self, size: int) -> Iterator[None]:
        """Entered by one thread at a time if `size` bytes are too many to be in memory several times, and then with
        room made in the cache."""
        if size <= KEPT:
            yield
            return
        with self._long:
            self._cache.make_room(size)
            end = time.monotonic() + _LET_GO
            while self._long_in_use() and time.monotonic() < end:
                time.sleep(0.001)
            yield

    def _long_in_use(self) -> bool:
        """Whether readers still hold the long unit from before, which the cache has dropped."""
        entry = self._last_long()
        return entry is not None and not self._cache.holds(entry)

    def made(self, entry: Entry) -> None:
        """An entry was made within `alone`: the next long one is not begun before all have let go of it."""
        if len(entry.data) > KEPT:
            self._last_long = weakref.ref(entry)

    def want(self, units: Iterable[int], *, background: bool = False) -> dict[int, Flight]:
        """Have `units` fetched, neighbours together. Those that are in the cache are left out of the result.

        In the `background`, one such call after the other is served, and what comes is not put into the cache.
        """
        found: dict[int, Flight] = {}
        new: dict[int, list[int]] = {}
        with self._lock:
            for unit in units:
                flight = self._flights.get(unit)
                if flight is None:
                    if self._cache.get(unit) is not None:
                        continue
                    flight = self._flights[unit] = Future()
                    new.setdefault(self._recipe.units.blob[unit], []).append(unit)
                found[unit] = flight
        for blob, wanted in new.items():
            wanted.sort(key=self._recipe.units.offset.__getitem__)
            flights = {unit: found[unit] for unit in wanted}
            if blob in self._local:
                self._fetch(blob, flights, not background)
                continue
            try:
                (self._behind if background else self._pool).submit(self._fetch, blob, flights, not background)
            except RuntimeError as error:
                self._fail(flights, TransportError(f"{self._recipe.blobs[blob].location} cannot be asked: {error}"))
        return found

    def wait(self, unit: int, flight: Flight, until: float) -> Entry:
        """The unit, at the latest `until` (monotonic seconds). Raises StallError then, or what made it fail."""
        try:
            return flight.result(max(until - time.monotonic(), 0))
        except TimeoutError:
            self._forget(unit, flight)
            where = self._recipe.blobs[self._recipe.units.blob[unit]].location
            raise StallError(
                f"{where}: the bytes at {self._recipe.units.offset[unit]} did not come"
                f" within {self._limits.view_deadline:g} s",
                cure="check the link and the server, then read again",
            ) from None

    def _forget(self, unit: int, flight: Flight) -> None:
        with self._lock:
            if self._flights.get(unit) is flight:
                del self._flights[unit]

    def _fetch(self, blob: int, flights: dict[int, Flight], retain: bool) -> None:
        """Land the flights, whatever happens. They are in order of offset."""
        with self._lock:  # who waited for them may have given up meanwhile
            units = [unit for unit, flight in flights.items() if self._flights.get(unit) is flight]
        longest = max((self._recipe.units.length[unit] for unit in units), default=0)
        error: BaseException = RuntimeError("a source that gives less than was asked of it")
        try:
            with self.alone(longest):
                self.fetched += self.decoder.prepare(units)
                for run in self._runs(units):
                    self._fetch_run(blob, run, flights, retain)
        except RegraftError as caught:
            error = caught
        except BaseException as caught:
            error = caught
            raise
        finally:
            self._fail(flights, error)

    def _fail(self, flights: dict[int, Flight], error: BaseException) -> None:
        """Tell those who wait for what has not landed."""
        for unit, flight in flights.items():
            if not flight.done():
                self._forget(unit, flight)
                flight.set_exception(error)

    def _runs(self, units: list[int]) -> Iterator[list[int]]:
        """Units that do not overlap, as a RangeSource demands; who made the artifact may have thought otherwise."""
        column = self._recipe.units
        run: list[int] = []
        for unit in units:
            if run and column.offset[unit] < column.offset[run[-1]] + column.stored[run[-1]]:
                yield run
                run = []
            run.append(unit)
        if run:
            yield run

    def _fetch_run(self, blob: int, units: list[int], flights: dict[int, Flight], retain: bool) -> None:
        damaged: list[int] = []
        with closing(self._blobs[blob].fetch([self.decoder.range_of(unit) for unit in units])) as arriving:
            for position, stored in arriving:
                self.fetched += len(stored)
                try:
                    decoded = self.decoder.decode(units[position], stored)
                except (DigestError, FormatError):
                    damaged.append(units[position])
                    continue
                finally:
                    del stored
                self._land(units[position], flights[units[position]], decoded, retain)
        for unit in damaged:  # a proxy may have mixed something up once
            try:
                stored = self.decoder.fetch_one(unit)
                self.fetched += len(stored)
                decoded = self.decoder.decode(unit, stored)
            except (DigestError, FormatError) as error:
                self._forget(unit, flights[unit])
                flights[unit].set_exception(error)
            else:
                self._land(unit, flights[unit], decoded, retain)

    def _land(self, unit: int, flight: Flight, decoded: memoryview, retain: bool) -> None:
        entry = Entry(decoded)
        self.made(entry)
        if retain:
            self._cache.put(unit, entry)
        self._forget(unit, flight)
        flight.set_result(entry)
