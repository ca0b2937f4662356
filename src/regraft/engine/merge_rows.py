# SPDX-License-Identifier: Apache-2.0
"""The bytes of a plan's rows, computed from the base as it was and from stored bytes, verified, at random."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from operator import add
from threading import Lock
from typing import TypeAlias

from regraft.engine.decode import UnitDecoder
from regraft.engine.medium import Medium
from regraft.engine.order import BASE, elsewhere, reads_base
from regraft.engine.patch import by_plan
from regraft.engine.ranges import RangeSource
from regraft.engine.verify import Buffers, wrong_rows
from regraft.errors import DigestError, FormatError, RegraftError, SourceError
from regraft.limits import DEFAULT, Limits
from regraft.model import Kind, Plan

# Plain numbers: the loops over many rows know no members of an enumeration.
_COPY, _DATA, _PATCH = int(Kind.COPY), int(Kind.DATA), int(Kind.PATCH)

#: Bytes of a copy above which a read of its own costs no more than to read it together with others and to move it.
_SMALL = 64 << 10

#: First row, the row after the last one, number of the first one's operation.
_Segment: TypeAlias = tuple[int, int, int]


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
        self._buffers = Buffers()
        self.replaced = 0  #: rows whose operation failed and another one did it

    def fill(self, first: int, count: int, view: memoryview) -> None:
        """Put rows first..first + count, end to end, into `view`.

        A row whose operation gives the wrong bytes, or none, is tried by its others, except those that read the base:
        what they read may be gone. Raises the error of the first row for which nothing is left.
        """
        table = self._plan.table
        start = table.bounds[first]
        failed = self._gather(first, count, view)
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
        failed = self._gather(first, count, view)
        return sorted(set(failed).union(wrong_rows(self._plan.table, first, count, view)))

    def _number(self, row: int) -> int:
        return self._plan.table.first[row] + self.choice[row]

    def _gather(self, first: int, count: int, view: memoryview) -> dict[int, RegraftError]:
        """Put the rows, unverified, into `view`; returns those for which that failed, and why."""
        bounds, kind = self._plan.table.bounds, self._plan.table.kind
        start = bounds[first]
        failed: dict[int, RegraftError] = {}
        segments = self._segments(first, count)
        for segment in self._read_scattered(segments, start, view) if len(segments) > 1 else segments:
            row, last, number = segment
            try:
                self._compute(row, view[bounds[row] - start : bounds[last] - start], number)
            except RegraftError as caught:
                if last == row + 1 or kind[number] != _COPY:
                    failed.update(dict.fromkeys(range(row, last), caught))
                    continue
                for single in range(row, last):  # only the row with the bad sector is lost
                    try:
                        self._compute(single, view[bounds[single] - start : bounds[single + 1] - start])
                    except RegraftError as worse:
                        failed[single] = worse
        return failed

    def _segments(self, first: int, count: int) -> list[_Segment]:
        """The rows as runs that one read of a source or one decoded unit gives."""
        table = self._plan.table
        kinds, source, at, unit, within = table.kind, table.source, table.at, table.unit, table.within
        found: list[_Segment] = []
        begun, head = first, -1
        last_kind = last_place = last_shift = -1
        numbers = map(add, table.first[first : first + count], self.choice[first : first + count])
        for row, number, start in zip(
            range(first, first + count), numbers, table.bounds[first : first + count], strict=True
        ):
            kind = kinds[number]
            if kind == _COPY:
                place, shift = source[number], at[number] - start
            elif kind == _DATA:
                place, shift = unit[number], within[number] - start
            else:
                place, shift = number if kind == _PATCH else 0, 0
            if shift != last_shift or place != last_place or kind != last_kind:
                if head >= 0:
                    found.append((begun, row, head))
                begun, head = row, number
                last_kind, last_place, last_shift = kind, place, shift
        found.append((begun, first + count, head))
        return found

    def _read_scattered(self, segments: list[_Segment], start: int, view: memoryview) -> list[_Segment]:
        """Read the copies that are neighbours in a source, though not in the image, by one read each time. Returns what
        is left to do."""
        bounds, kind = self._plan.table.bounds, self._plan.table.kind
        source, at = self._plan.table.source, self._plan.table.at
        left: list[_Segment] = []
        copies: list[tuple[int, int, int, _Segment]] = []
        for segment in segments:
            row, last, number = segment
            size = bounds[last] - bounds[row]
            if kind[number] == _COPY and size <= _SMALL:
                copies.append((source[number], at[number], size, segment))
            else:
                left.append(segment)
        copies.sort()
        group: list[tuple[int, int, int, _Segment]] = []
        end = (-1, -1)
        for copy in [*copies, None]:
            if copy is not None and copy[:2] == end:
                group.append(copy)
                end = copy[0], copy[1] + copy[2]
                continue
            if len(group) < 2 or not self._read_group(group, start, view):
                left += [one[3] for one in group]
            if copy is not None:
                group, end = [copy], (copy[0], copy[1] + copy[2])
        return left

    def _read_group(self, group: list[tuple[int, int, int, _Segment]], start: int, view: memoryview) -> bool:
        """Whether one read gave all of these copies."""
        bounds = self._plan.table.bounds
        number, begin = group[0][:2]
        buffer = self._buffers.view(group[-1][1] + group[-1][2] - begin)
        with suppress(RegraftError):
            if self._sources[number].read_into(begin, buffer) == len(buffer):
                for _, at, size, (row, _, _) in group:
                    place = bounds[row] - start
                    view[place : place + size] = buffer[at - begin : at - begin + size]
                return True
        return False

    def _compute(self, row: int, view: memoryview, number: int = -1) -> None:
        """Put the row (of a run: as many as `view` takes) into `view`, by operation `number`; unverified."""
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
