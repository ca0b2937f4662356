# SPDX-License-Identifier: Apache-2.0
"""Stored bytes brought here before they are needed: a merge does not wait for a network, nor fail with it."""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Generator, Sequence

from regraft.engine.blobs import LocalBlob
from regraft.engine.decode import UnitDecoder
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.ranges import Range, RangeSource
from regraft.errors import DigestError, FormatError, LimitError, SourceError
from regraft.limits import DEFAULT, Limits
from regraft.model import Addressing, Kind, Recipe
from regraft.model.buffers import Buffer

_HEAD, _CRC = struct.Struct("<QI"), struct.Struct("<I")


class Spool:
    """Units of a remote blob. What is not there is fetched.

    Each lies in `medium` where the blob has it: a sparse file. Those that are files of their own lie one after the
    other, each behind a head by which a later process finds it: its position in the blob u64, its length u32, and the
    CRC-32 of these, all little-endian.
    """

    def __init__(self, recipe: Recipe, blob: RangeSource, medium: Medium, limits: Limits = DEFAULT) -> None:
        self._recipe, self._blob, self._medium = recipe, blob, medium
        self._decoder = UnitDecoder(recipe, [blob], limits)
        self._files = any(each.addressing is Addressing.FILES for each in recipe.blobs)
        self._rows = _rows_of_units(recipe) if recipe.units.digests.algorithm is None else array("q")
        self._here: dict[Range, Range] = {}  # where it lies
        self._end = 0
        self._left = self._scan() if self._files else {}  # what an earlier process has left, not checked yet

    def bring(self, units: Sequence[int], *, progress: Progress = QUIET) -> int:
        """Have all of `units` here, durably; returns the stored bytes that were fetched.

        What an earlier call brought is found again where units have digests, or are files of their own; units without
        digests are decoded, to see that they are right. Raises TransportError, and DigestError or FormatError for a
        unit that arrived wrong twice.
        """
        ranges = {self._decoder.range_of(unit): unit for unit in units}
        missing = [place for place, unit in sorted(ranges.items()) if not self._holds(place, unit)]
        lengths = self._recipe.units.length if self._files else self._recipe.units.stored
        progress.phase("fetch", sum(lengths[ranges[place]] for place in missing))
        fetched = 0
        for attempt in range(2):
            wrong: list[Range] = []
            for position, stored in self._blob.fetch(missing):
                place = missing[position]
                fetched += len(stored)
                try:
                    self._check(ranges[place], stored)
                except (DigestError, FormatError):
                    if attempt:
                        raise
                    wrong.append(place)
                    continue
                self._write(place, stored)
                progress.advance(lengths[ranges[place]], Origin.FETCHED)
            missing = sorted(wrong)
            if not missing:
                break
        self._medium.sync()
        return fetched

    def _check(self, unit: int, stored: Buffer) -> None:
        """Raise DigestError or FormatError unless these are the unit's stored bytes, or decode to what they should."""
        self._decoder.check_stored(unit, stored)
        if self._rows and (row := self._rows[unit]) >= 0:
            table = self._recipe.table
            self._decoder.prepare([unit])
            self._decoder.row(row, table.within[table.first[row]], self._decoder.decode(unit, stored))

    def _write(self, place: Range, stored: Buffer) -> None:
        here, length = place, len(memoryview(stored))
        if self._files:
            head = _HEAD.pack(place.offset, length)
            self._medium.write(self._end, head + _CRC.pack(zlib.crc32(head)))
            here = Range(self._end + _HEAD.size + _CRC.size, length)
            self._end = here.end
        self._medium.write(here.offset, stored)
        self._here[place] = here

    def _scan(self) -> dict[int, Range]:
        """Where files lie, by their position in the blob, up to the first head that is none: behind it is room."""
        found: dict[int, Range] = {}
        head = bytearray(_HEAD.size + _CRC.size)
        while self._medium.size - self._end >= len(head):
            if self._medium.read_into(self._end, memoryview(head)) < len(head):
                break
            position, length = _HEAD.unpack_from(head)
            here = Range(self._end + len(head), length)
            if _CRC.unpack_from(head, _HEAD.size)[0] != zlib.crc32(head[: _HEAD.size]) or here.end > self._medium.size:
                break
            found[position], self._end = here, here.end
        return found

    def _holds(self, place: Range, unit: int) -> bool:
        if place in self._here:
            return True
        if not self._files and (self._recipe.units.digests.algorithm is None or place.end > self._medium.size):
            return False
        here = self._left.get(place.offset) if self._files else place
        if here is None:
            return False
        stored = bytearray(here.length)
        try:
            if self._medium.read_into(here.offset, memoryview(stored)) == here.length:
                self._check(unit, stored)
                self._here[place] = here
                return True
        except (DigestError, FormatError, LimitError, SourceError):
            pass  # a power cut has left the head, but not all of the bytes
        return False

    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
        """As `RangeSource.fetch`."""
        for position, place in enumerate(ranges):
            here = self._here.get(place)
            source: RangeSource = LocalBlob(self._medium) if here is not None else self._blob
            for _, stored in source.fetch([here or place], ordered=ordered):
                yield position, stored


def _rows_of_units(recipe: Recipe) -> array[int]:
    """A row that each unit is for, -1 if there is none."""
    table, rows = recipe.table, array("q", [-1]) * len(recipe.units)
    for row in range(len(table)):
        if table.kind[table.first[row]] == Kind.DATA:
            rows[table.unit[table.first[row]]] = row
    return rows
