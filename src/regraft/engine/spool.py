# SPDX-License-Identifier: Apache-2.0
"""Stored bytes brought here before they are needed: a merge does not wait for a network, nor fail with it."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from regraft.engine.blobs import LocalBlob
from regraft.engine.decode import UnitDecoder
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.ranges import Range, RangeSource
from regraft.errors import DigestError, SourceError
from regraft.limits import DEFAULT, Limits
from regraft.model import Addressing, Recipe
from regraft.model.buffers import Buffer


class Spool:
    """Units of a remote blob. What is not there is fetched.

    Each lies in `medium` where the blob has it: a sparse file; those that are files of their own, one after the other.
    """

    def __init__(self, recipe: Recipe, blob: RangeSource, medium: Medium, limits: Limits = DEFAULT) -> None:
        self._recipe, self._blob, self._medium = recipe, blob, medium
        self._decoder = UnitDecoder(recipe, [blob], limits)
        self._files = any(each.addressing is Addressing.FILES for each in recipe.blobs)
        self._here: dict[Range, Range] = {}  # where it lies
        self._end = 0

    def bring(self, units: Sequence[int], *, progress: Progress = QUIET) -> int:
        """Have all of `units` here, durably; returns the stored bytes that were fetched.

        What an earlier call brought is found again where units have digests. Raises TransportError, and DigestError for
        a unit that arrived wrong twice.
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
                    self._decoder.check_stored(ranges[place], stored)
                except DigestError:
                    if attempt:
                        raise
                    wrong.append(place)
                    continue
                self._here[place] = here = self._place(place, len(stored))
                self._medium.write(here.offset, stored)
                progress.advance(lengths[ranges[place]], Origin.FETCHED)
            missing = sorted(wrong)
            if not missing:
                break
        self._medium.sync()
        return fetched

    def _place(self, place: Range, length: int) -> Range:
        """Where to put what the blob has at `place`."""
        if not self._files:
            return place
        self._end += length
        return Range(self._end - length, length)

    def _holds(self, place: Range, unit: int) -> bool:
        if self._files:
            return place in self._here
        if self._recipe.units.digests.algorithm is None or place.end > self._medium.size:
            return False
        stored = bytearray(place.length)
        try:
            if self._medium.read_into(place.offset, memoryview(stored)) == place.length:
                self._decoder.check_stored(unit, stored)
                self._here[place] = place
                return True
        except (DigestError, SourceError):
            pass
        return False

    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
        """As `RangeSource.fetch`."""
        for position, place in enumerate(ranges):
            here = self._here.get(place)
            source: RangeSource = LocalBlob(self._medium) if here is not None else self._blob
            for _, stored in source.fetch([here or place], ordered=ordered):
                yield position, stored
