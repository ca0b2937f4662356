# SPDX-License-Identifier: Apache-2.0
"""The bytes of a plan's rows, computed from the base as it was and from stored bytes, verified, at random."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock

from regraft.engine.decode import UnitDecoder
from regraft.engine.medium import Medium
from regraft.engine.order import BASE, elsewhere, reads_base
from regraft.engine.patch import by_plan
from regraft.engine.ranges import RangeSource
from regraft.engine.verify import wrong_rows
from regraft.errors import DigestError, FormatError, RegraftError, SourceError
from regraft.limits import DEFAULT, Limits
from regraft.model import Kind, Plan


class RowReader:
    """Computes rows of `plan` by the operations that `choice` names (a byte per row). Thread-safe.

    sources: a medium for each of the plan's seeds, the base first. blobs: a source for each blob of the recipe. What is
    decoded is kept as long as there is room: neighbouring rows are often of the same unit.
    """

    def __init__(
        self,
        plan: Plan,
        choice: bytes,
        sources: Sequence[Medium],
        blobs: Sequence[RangeSource],
        *,
        limits: Limits = DEFAULT,
    ) -> None:
        self._plan, self.choice, self._sources = plan, choice, sources
        self._units = _Units(plan, blobs, limits.buffer // 4, limits)
        self.replaced = 0  #: rows whose operation failed and another one did it

    def fill(self, first: int, count: int, view: memoryview) -> None:
        """Put rows first..first + count, end to end, into `view`.

        A row whose operation gives the wrong bytes, or none, is tried by its others, except those that read the base:
        what they read may be gone. Raises the error of the first row for which nothing is left.
        """
        table = self._plan.table
        start = table.bounds[first]
        failed: dict[int, RegraftError] = {}
        row = first
        while row < first + count:
            last = self._neighbours(row, first + count)
            part = view[table.bounds[row] - start : table.bounds[last] - start]
            try:
                self._compute(row, part)
            except RegraftError as caught:
                if last == row + 1:
                    failed[row] = caught
                for single in range(row, last if last > row + 1 else row):  # only the row with the bad sector is lost
                    try:
                        self._compute(single, view[table.bounds[single] - start : table.bounds[single + 1] - start])
                    except RegraftError as worse:
                        failed[single] = worse
            row = last
        for wrong in wrong_rows(table, first, count, view):
            failed.setdefault(wrong, self._not_as_expected(wrong))
        for row, error in failed.items():
            self._replace(row, view[table.bounds[row] - start : table.bounds[row + 1] - start], error)

    def part(self, row: int, within: int, view: memoryview) -> None:
        """Put the bytes of `row` from `within` on into `view`.

        Of a row that is copied only these bytes are read, and nothing can be said of their digest; any other row is
        computed as a whole and verified.
        """
        table = self._plan.table
        number = self._number(row)
        if table.kind[number] == Kind.COPY:
            with suppress(SourceError):
                if self._sources[table.source[number]].read_into(table.at[number] + within, view) == len(view):
                    return
        if table.kind[number] == Kind.ZERO:
            view[:] = bytes(len(view))
            return
        whole = memoryview(bytearray(table.length(row)))
        self.fill(row, 1, whole)
        view[:] = whole[within : within + len(view)]

    def wrong(self, first: int, count: int, view: memoryview) -> list[int]:
        """The rows that their chosen operation does not give; nothing else is tried. `view` is room for them."""
        table = self._plan.table
        start = table.bounds[first]
        found: set[int] = set()
        for row in range(first, first + count):
            try:
                self._compute(row, view[table.bounds[row] - start : table.bounds[row + 1] - start])
            except RegraftError:
                found.add(row)
        return sorted(found.union(wrong_rows(table, first, count, view)))

    def _number(self, row: int) -> int:
        return self._plan.table.first[row] + self.choice[row]

    def _neighbours(self, row: int, end: int) -> int:
        """The end of the run of rows from `row` on that one read of a source gives."""
        table = self._plan.table
        number = self._number(row)
        last = row + 1
        if table.kind[number] != Kind.COPY:
            return last
        while last < end:
            other = self._number(last)
            if (
                table.kind[other] != Kind.COPY
                or table.source[other] != table.source[number]
                or table.at[other] != table.at[number] + table.bounds[last] - table.bounds[row]
            ):
                break
            last += 1
        return last

    def _compute(self, row: int, view: memoryview, number: int = -1) -> None:
        """Put the row (of copied rows: as many as `view` takes) into `view`, by operation `number`; unverified."""
        table = self._plan.table
        number = self._number(row) if number < 0 else number
        kind = table.kind[number]
        if kind == Kind.ZERO:
            view[:] = bytes(len(view))
            return
        if kind in (Kind.COPY, Kind.PATCH):
            source = self._sources[table.source[number]]
            if source.read_into(table.at[number], view) < len(view):
                raise SourceError(f"{source.name} ends before {table.at[number] + len(view)}: is it the right base?")
        if kind == Kind.COPY:
            return
        within = table.within[number]
        decoded = self._units.get(table.unit[number])[within : within + len(view)]
        view[:] = by_plan(self._plan, number, view, decoded) if kind == Kind.PATCH else decoded

    def _replace(self, row: int, view: memoryview, error: RegraftError) -> None:
        table = self._plan.table
        for choice in elsewhere(self._plan, row):
            number = table.first[row] + choice
            if choice != self.choice[row]:
                try:
                    self._compute(row, view, number)
                except (SourceError, DigestError, FormatError) as another:
                    error = another
                    continue
                if not wrong_rows(table, row, 1, view):
                    self.replaced += 1
                    return
        raise error

    def _not_as_expected(self, row: int) -> RegraftError:
        table = self._plan.table
        number = self._number(row)
        where = f"the image bytes at {table.bounds[row]}"
        if reads_base(table, number):
            name = self._sources[BASE].name
            return SourceError(f"{where} do not come out of {name} at {table.at[number]} as they should")
        return DigestError(f"{where} differ from their digest")


class _Units:
    """Decoded units, the latest of them kept."""

    def __init__(self, plan: Plan, blobs: Sequence[RangeSource], room: int, limits: Limits) -> None:
        self._lengths = plan.recipe.units.length
        self._decoder = UnitDecoder(plan.recipe, blobs, limits)
        self._room = room
        self._kept: OrderedDict[int, memoryview] = OrderedDict()
        self._lock = Lock()

    def get(self, unit: int) -> memoryview:
        with self._lock:
            if unit in self._kept:
                self._kept.move_to_end(unit)
                return self._kept[unit]
            self._decoder.prepare([unit])
        decoded = self._decoder.decode(unit, self._decoder.fetch_one(unit))
        with self._lock:
            if unit not in self._kept:
                self._kept[unit] = decoded
                self._room -= self._lengths[unit]
            while self._room < 0 and self._kept:
                old, _ = self._kept.popitem(last=False)
                self._room += self._lengths[old]
        return decoded
