# SPDX-License-Identifier: Apache-2.0
"""The way out `view`: any part of the image, at any time, for readers that do not wait for the rest.

Rows are verified as a whole when they are obtained, and then served in parts from a small cache. A row whose operation
fails is tried by its next alternative, as in `write`. A peer that does not answer costs the reader that waits for it an
error, after a deadline, and nothing else: later reads ask again.
"""

from __future__ import annotations

import hmac
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from regraft.engine.cache import Cache, Entry
from regraft.engine.flights import Flight, Flights
from regraft.engine.keep import Keep
from regraft.engine.medium import Medium
from regraft.engine.patch import by_plan
from regraft.engine.ranges import RangeSource
from regraft.errors import DigestError, FormatError, MediumError, MissingError, RegraftError, SourceError
from regraft.limits import DEFAULT, Limits
from regraft.model import Kind, Plan

_ZEROS = memoryview(bytes(1 << 16))
_STEP = 1 << 20


class Whence(Enum):
    """Where the bytes of a range would come from if it were read now."""

    ZERO = "zeros"
    COPY = "a seed"
    LOCAL = "the artifact, or what was kept of it, on this machine"
    PATCH = "a base and stored bytes"
    REMOTE = "a peer"


class Run(NamedTuple):
    """`length` bytes of one kind."""

    length: int
    whence: Whence


class View:
    """Reads of a plan's image. Thread-safe; several readers of one missing unit fetch it once.

    seeds: a medium for each of `plan.seeds`. blobs: a source for each blob of the recipe; those in `local` are read in
    the reader's thread and are not subject to the deadline. keep: takes the rows that were obtained, and gives them
    later. report: told, from any thread, of what went wrong without failing a read.

    Rows of a table without digests, and of units without, are as they come: who needs proof looks at
    `Recipe.verifiable`.
    """

    def __init__(
        self,
        plan: Plan,
        seeds: Sequence[Medium],
        blobs: Sequence[RangeSource],
        *,
        local: Collection[int] = (),
        keep: Keep | None = None,
        report: Callable[[str], None] = lambda _: None,
        limits: Limits = DEFAULT,
    ) -> None:
        self.plan = plan
        self.size = plan.size
        self.limits = limits
        self._table, self._seeds, self._report = plan.table, seeds, report
        self._cache = Cache(limits.view_cache)
        self._flights = Flights(plan.recipe, blobs, self._cache, local=local, limits=limits)
        self._level = bytearray(len(plan.table))  # which of its operations a row is at
        self._keep = keep
        self._keeping = keep is not None  # False when it can take no more
        self._proved = bytearray(len(plan.table))  # of rows that are kept: 1 verified by us, 2 wrong
        self.noticed: Callable[[int, int], None] | None = None  #: told of offset and end of each read, before it

    @property
    def fetched(self) -> int:
        """Stored bytes that were taken from blobs."""
        return self._flights.fetched

    @property
    def medium(self) -> Medium | None:
        """A medium that is the whole image, once what was kept has become that."""
        return self._keep.finished if self._keep is not None else None

    def close(self) -> None:
        """Fetch and keep no more. Neither seeds nor blobs nor what was kept are closed."""
        self._keeping = False
        self._flights.close()

    # -- reading ------------------------------------------------------------------------------------------------------

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the image's bytes from `offset` on.

        Raises TransportError, at the latest `limits.view_deadline` seconds after a peer was asked; DigestError,
        FormatError, SourceError, MissingError if no operation gives the bytes. ValueError outside of the image.
        """
        end = offset + len(view)
        if not 0 <= offset <= end <= self.size:
            raise ValueError(f"bytes {offset} to {end} of an image of {self.size}")
        if not len(view):
            return
        if (whole := self.medium) is not None and self._from_medium(whole, offset, view):
            return
        if self.noticed is not None:
            self.noticed(offset, end)
        bounds = self._table.bounds
        row = bisect_right(bounds, offset) - 1
        while bounds[row] < end:
            stop = self._window(row, end)
            start, last = max(offset, bounds[row]), min(end, bounds[stop])
            self._read_rows(row, stop, start, view[start - offset : last - offset])
            row = stop
            if row == len(self._table):
                break

    @staticmethod
    def _from_medium(whole: Medium, offset: int, view: memoryview) -> bool:
        try:
            return whole.read_into(offset, view) == len(view)
        except SourceError:
            return False  # a bad sector costs its row, which can still be had in other ways

    def _window(self, row: int, end: int) -> int:
        """Where to stop: rows that are obtained together, since they need not be in memory at once with the rest. Nor
        need their units be, which may be much longer than what is read of them."""
        bounds, lengths = self._table.bounds, self.plan.recipe.units.length
        stop, room, units = row + 1, max(self.limits.view_cache // 2, self.limits.batch), set[int]()
        while stop < len(self._table) and bounds[stop] < end and bounds[stop + 1] - bounds[row] <= self.limits.batch:
            for other in (stop,) if units else (row, stop):
                unit = self._unit_of(other)
                if unit is not None and unit not in units:
                    units.add(unit)
                    room -= lengths[unit]
            if room < 0:
                break
            stop += 1
        return stop

    def _read_rows(self, row: int, stop: int, offset: int, view: memoryview) -> None:
        """Fill `view` from the rows from `row` to `stop`, the first and the last in part."""
        bounds = self._table.bounds
        waiting = _Waiting(self._flights, self.limits)
        wanted = [unit for other in range(row, stop) if (unit := self._unit_of(other)) is not None]
        if wanted:
            waiting.want(wanted)
        for other in range(row, stop):
            start, last = max(offset, bounds[other]), min(offset + len(view), bounds[other + 1])
            self._read_row(other, start - bounds[other], view[start - offset : last - offset], waiting)

    def _unit_of(self, row: int) -> int | None:
        """The unit that the row's current operation needs; None if it needs none, or the row is kept."""
        number = self._table.first[row] + self._level[row]
        if self._table.kind[number] not in (Kind.DATA, Kind.PATCH) or self._is_kept(row):
            return None
        return self._table.unit[number]

    def _read_row(self, row: int, within: int, view: memoryview, waiting: _Waiting) -> None:
        table = self._table
        if self._read_kept(row, within, view):
            return
        first, end = table.first[row], table.first[row + 1]
        error: RegraftError | None = None
        for number in range(first + self._level[row], end):
            try:
                self._execute(number, row, within, view, waiting)
            except (SourceError, DigestError, FormatError, MissingError) as caught:
                error = caught
                self._level[row] = min(number + 1, end - 1) - first
            else:
                return
        self._level[row] = 0  # who reads it again has another chance with each of them
        raise error or SourceError(f"the image bytes at {table.bounds[row]} cannot be obtained")

    def _execute(self, number: int, row: int, within: int, view: memoryview, waiting: _Waiting) -> None:
        """Fill `view` by operation `number`, verified."""
        kind = self._table.kind[number]
        if kind == Kind.ZERO:
            for start in range(0, len(view), len(_ZEROS)):
                part = view[start : start + len(_ZEROS)]
                part[:] = _ZEROS[: len(part)]
        elif kind == Kind.COPY and self._table.digests.algorithm is None:
            self._read_seed(number, row, within, view)  # nothing to verify: only what is asked for is read
        elif kind == Kind.COPY and self._table.length(row) > max(self.limits.view_cache, self.limits.chunk_size):
            self._copy_long(number, row, within, view)
        else:
            entry, start = self._obtain(number, row, waiting)
            view[:] = entry.data[start + within : start + within + len(view)]

    def _obtain(self, number: int, row: int, waiting: _Waiting) -> tuple[Entry, int]:
        """The whole row by operation `number`, verified, and where it begins in the entry. It is then in the cache, and
        kept. Its bytes are held on to by nothing but the entry: see `Flights.alone`."""
        table = self._table
        if table.kind[number] == Kind.DATA:
            entry, within = waiting.take(table.unit[number]), table.within[number]
            if row not in entry.rows:
                self._flights.decoder.row(row, within, entry.data)
                entry.rows.add(row)
        else:
            entry, within = self._cache.get(~row) or self._make(number, row, waiting), 0
        if self._keep is not None:
            self._put(row, entry.data[within : within + table.length(row)])
        return entry, within

    def _make(self, number: int, row: int, waiting: _Waiting) -> Entry:
        """The whole row by a COPY or PATCH operation, verified. It is then in the cache."""
        table = self._table
        decoded: memoryview | None = None
        if table.kind[number] == Kind.PATCH:
            decoded = waiting.take(table.unit[number]).data[table.within[number] :]
        length = table.length(row)
        with self._flights.alone(length):
            base = memoryview(bytearray(length))
            self._read_seed(number, row, 0, base)
            if decoded is not None:
                base = memoryview(by_plan(self.plan, number, base, decoded))
            entry = Entry(self._flights.decoder.row(row, 0, base), row)
            self._flights.made(entry)
            self._cache.put(~row, entry)
            return entry

    def _read_seed(self, number: int, row: int, within: int, view: memoryview) -> None:
        seed, at = self._seeds[self._table.source[number]], self._table.at[number] + within
        if seed.read_into(at, view) < len(view):
            raise SourceError(f"{seed.name} ends before {at + len(view)}, where image bytes of row {row} should be")

    def _copy_long(self, number: int, row: int, within: int, view: memoryview) -> None:
        """Fill `view` from a row that is too long for memory: all of it is hashed as it passes by."""
        table, algorithm = self._table, self._table.digests.algorithm
        if algorithm is None:
            return
        hasher, piece = algorithm.hasher(), memoryview(bytearray(_STEP))
        end = within + len(view)
        for start in range(0, table.length(row), _STEP):
            part = piece[: min(_STEP, table.length(row) - start)]
            self._read_seed(number, row, start, part)
            hasher.update(part)
            first, last = max(start, within), min(start + len(part), end)
            if first < last:
                view[first - within : last - within] = part[first - start : last - start]
        if not hmac.compare_digest(hasher.digest(), table.digests[row]):
            raise DigestError(f"the {table.length(row)} image bytes at {table.bounds[row]} differ from their digest")

    # -- keeping ------------------------------------------------------------------------------------------------------

    def _is_kept(self, row: int) -> bool:
        return self._keep is not None and self._proved[row] != 2 and self._keep.has(row)

    def _read_kept(self, row: int, within: int, view: memoryview) -> bool:
        """Fill `view` from what was kept. What an earlier run has kept is verified when it is first read."""
        keep = self._keep
        if keep is None or not self._is_kept(row):
            return False
        try:
            if self._proved[row]:
                keep.read(row, within, view)
                return True
            whole = memoryview(bytearray(self._table.length(row)))
            keep.read(row, 0, whole)
            view[:] = self._flights.decoder.row(row, 0, whole)[within : within + len(view)]
        except (SourceError, DigestError) as error:
            self._proved[row] = 2
            self._report(f"what was kept is damaged: {error}")
            return False
        self._proved[row] = 1
        return True

    def _put(self, row: int, data: memoryview | None) -> None:
        if self._keep is None or not self._keeping:
            return
        try:
            self._keep.put(row, data)
        except MediumError as error:
            self._keeping = False
            self._report(f"nothing more is kept: {error}")
        else:
            self._proved[row] = 1

    @property
    def keeping(self) -> bool:
        """Whether what is obtained is kept."""
        return self._keeping

    def kept(self, row: int) -> bool:
        """Whether a row need not be obtained any more."""
        return self._is_kept(row)

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Obtain and keep `rows`, in the background of other reads. Raises as `read_into` does."""
        waiting = _Waiting(self._flights, self.limits, background=True)
        wanted = [unit for row in rows if (unit := self._unit_of(row)) is not None]
        if wanted:
            waiting.want(wanted)
        for row in rows:
            if self._is_kept(row) or not self._keeping:
                continue
            number = self._table.first[row] + self._level[row]
            if self._table.kind[number] == Kind.ZERO:
                self._put(row, None)
                continue
            self._read_row(row, 0, memoryview(bytearray(1)), waiting)  # which keeps all of it
            waiting.forget(self._table.unit[number])

    def fetch_ahead(self, offset: int, end: int) -> None:
        """Begin to fetch what a read of these bytes would wait for, once that is at least half of them: a reader that
        moves on step by step is then preceded by few large requests."""
        bounds = self._table.bounds
        row = bisect_right(bounds, offset) - 1
        wanted: dict[int, None] = {}
        while row < len(self._table) and bounds[row] < end:
            unit = self._unit_of(row)
            if unit is not None and not self._flights.is_local(unit):
                wanted[unit] = None
            row += 1
        missing = self._flights.missing(wanted)
        lengths = self.plan.recipe.units.length
        if missing and 2 * sum(lengths[unit] for unit in missing) >= end - offset:
            self._flights.want(missing)

    # -- describing ---------------------------------------------------------------------------------------------------

    def ready(self, offset: int, length: int) -> bool:
        """Whether reading this range now waits for no peer, even if a seed turns out to be wrong."""
        bounds = self._table.bounds
        if self.medium is not None:
            return True
        row = bisect_right(bounds, offset) - 1
        while row < len(self._table) and bounds[row] < offset + length:
            if not self._at_hand(row):
                return False
            row += 1
        return True

    def _at_hand(self, row: int) -> bool:
        table = self._table
        number = table.first[row] + self._level[row]
        kind = table.kind[number]
        if kind == Kind.ZERO or (self._proved[row] == 1 and self._is_kept(row)):
            return True
        if self._needs_no_peer(row):
            return True
        key = table.unit[number] if kind == Kind.DATA else ~row
        return self._cache.get(key) is not None

    def _needs_no_peer(self, row: int) -> bool:
        """Whether none of the row's operations needs a peer."""
        table = self._table
        return all(
            table.kind[number] not in (Kind.DATA, Kind.PATCH) or self._flights.is_local(table.unit[number])
            for number in range(table.first[row], table.first[row + 1])
        )

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """What `length` bytes from `offset` on consist of: exactly that many, no two neighbours of one kind."""
        bounds, end = self._table.bounds, offset + length
        row = bisect_right(bounds, offset) - 1
        start, kind = offset, None
        while offset < end:
            whence = self._whence(row)
            if whence is not kind:
                if kind is not None:
                    yield Run(offset - start, kind)
                start, kind = offset, whence
            row += 1
            offset = bounds[row]
        if kind is not None:
            yield Run(end - start, kind)

    def _whence(self, row: int) -> Whence:
        number = self._table.first[row] + self._level[row]
        kind = self._table.kind[number]
        if kind == Kind.ZERO:
            return Whence.ZERO
        if self._is_kept(row):
            return Whence.LOCAL
        if kind == Kind.COPY:
            return Whence.COPY
        if not self._flights.is_local(self._table.unit[number]):
            return Whence.REMOTE
        return Whence.LOCAL if kind == Kind.DATA else Whence.PATCH


class _Waiting:
    """The units that one read wants. The deadline runs from when they were asked for."""

    def __init__(self, flights: Flights, limits: Limits, *, background: bool = False) -> None:
        self._flights, self._limits, self._background = flights, limits, background
        self._under_way: dict[int, Flight] = {}
        self._until = 0.0

    def want(self, units: Sequence[int]) -> None:
        self._until = time.monotonic() + self._limits.view_deadline
        self._under_way.update(self._flights.want(dict.fromkeys(units), background=self._background))

    def take(self, unit: int) -> Entry:
        """The decoded unit. Raises what `Flights.wait` does."""
        while True:
            flight = self._under_way.get(unit)
            if flight is not None:
                return self._flights.wait(unit, flight, self._until)
            entry = self._flights.cached(unit)
            if entry is not None:
                return entry
            self.want([unit])  # an alternative, or dropped from the cache meanwhile

    def forget(self, unit: int) -> None:
        """Let go of the memory of a unit that is not needed any more."""
        self._under_way.pop(unit, None)
