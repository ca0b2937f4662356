# SPDX-License-Identifier: Apache-2.0
"""The new image while it is being merged: every read gives its bytes, wherever they are at that moment."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from regraft.engine.medium import Medium
from regraft.engine.merge import Merge
from regraft.engine.merge_status import Place, Where
from regraft.errors import SourceError


class MergeView:
    """Random access to the target of a merge; thread-safe. What `Merge` knows decides, row by row, who is asked.

    settled: the base, opened once more, for what lies in its place: so that what the merge writes to can be closed when
    all is done, while readers go on.
    """

    def __init__(self, merge: Merge, settled: Medium | None = None) -> None:
        self._merge, self._bounds = merge, merge.plan.table.bounds
        self.base = settled or merge.base
        merge.rows  # noqa: B018 - prepares it

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def size(self) -> int:
        """In bytes."""
        return self._merge.plan.size

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset`; return the bytes read, fewer only at the end. Raises SourceError, DigestError."""
        end = min(offset + len(view), self.size)
        position = offset
        while position < end:
            row = bisect_right(self._bounds, position) - 1
            last = self._merge.settled_up_to(row, bisect_left(self._bounds, end))
            if last > row:
                stop = min(self._bounds[last], end)
                self._read(Place(Where.BASE, position), view[position - offset : stop - offset])
            else:
                stop = min(self._bounds[row + 1], end)
                self._row(row, position - self._bounds[row], view[position - offset : stop - offset])
            position = stop
        return max(end - offset, 0)

    def settled(self, offset: int, length: int) -> bool:
        """Whether these bytes are in their final place, where they stay."""
        row, end = bisect_right(self._bounds, offset) - 1, bisect_left(self._bounds, offset + length)
        return self._merge.settled_up_to(row, end) == end

    def runs(self, offset: int, length: int) -> Iterator[tuple[int, int, Place]]:
        """(first byte, bytes, place) of what a range consists of, at this moment; no two neighbours in one place."""
        row, end = bisect_right(self._bounds, offset) - 1, offset + length
        start, last = offset, self._merge.where(row)
        while (stop := self._bounds[row + 1]) < end:
            row += 1
            place = self._merge.where(row)
            if place.where != last.where:
                yield start, stop - start, last
                start, last = stop, place
        yield start, end - start, last

    def _row(self, row: int, within: int, view: memoryview) -> None:
        with self._merge.holding(row) as place:
            if place.where in (Where.BASE, Where.WINDOW):
                self._read(Place(place.where, place.offset + within), view)
            else:
                self._merge.rows.part(row, within, view)

    def _read(self, place: Place, view: memoryview) -> None:
        medium = self._merge.journal.medium if place.where == Where.WINDOW else self.base
        if medium.read_into(place.offset, view) < len(view):
            raise SourceError(f"{medium.name} ends before {place.offset + len(view)}")
