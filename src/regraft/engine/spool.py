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
from regraft.model import Recipe
from regraft.model.buffers import Buffer


class Spool:
    """Units of a remote blob, each in `medium` where the blob has it: a sparse file. What is not there is fetched."""

    def __init__(self, recipe: Recipe, blob: RangeSource, medium: Medium, limits: Limits = DEFAULT) -> None:
        self._recipe, self._blob, self._medium = recipe, blob, medium
        self._decoder = UnitDecoder(recipe, [blob], limits)
        self._here: set[Range] = set()

    def bring(self, units: Sequence[int], *, progress: Progress = QUIET) -> int:
        """Have all of `units` here, durably; returns the stored bytes that were fetched.

        What an earlier call brought is found again where units have digests. Raises TransportError, and DigestError for
        a unit that arrived wrong twice.
        """
        ranges = {self._decoder.range_of(unit): unit for unit in units}
        missing = [place for place, unit in sorted(ranges.items()) if not self._holds(place, unit)]
        progress.phase("fetch", sum(place.length for place in missing))
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
                self._medium.write(place.offset, stored)
                self._here.add(place)
                progress.advance(len(stored), Origin.FETCHED)
            missing = sorted(wrong)
            if not missing:
                break
        self._medium.sync()
        return fetched

    def _holds(self, place: Range, unit: int) -> bool:
        if self._recipe.units.digests.algorithm is None or place.end > self._medium.size:
            return False
        stored = bytearray(place.length)
        try:
            if self._medium.read_into(place.offset, memoryview(stored)) == place.length:
                self._decoder.check_stored(unit, stored)
                self._here.add(place)
                return True
        except (DigestError, SourceError):
            pass
        return False

    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
        """As `RangeSource.fetch`."""
        for position, place in enumerate(ranges):
            source: RangeSource = LocalBlob(self._medium) if place in self._here else self._blob
            for _, stored in source.fetch([place], ordered=ordered):
                yield position, stored
