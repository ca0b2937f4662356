# SPDX-License-Identifier: Apache-2.0
"""Where the engine's `Writer` puts the chunks of a clone: into new packs, recorded as they become durable."""

from __future__ import annotations

from regraft.model import DigestColumn
from regraft.stores.packs import PackWriter
from regraft.stores.scattered import Places, Scattered
from regraft.stores.survey import OWN, Survey

_STEP = 1 << 16


class Arrivals(Scattered):
    """A medium whose rows are those of the image; only wanted ones can be written.

    A chunk of zeros is not stored, only noted, in `zeros`. digests: of the rows that are known or were written.
    Thread-safe: a row is written by one thread.
    """

    def __init__(self, name: str, looked: Survey, writer: PackWriter) -> None:
        places = Places(len(looked.of))
        for position, row in enumerate(looked.wanted):
            places.pack[row], places.offset[row] = looked.places.pack[position], looked.places.offset[position]
        super().__init__(name, looked.plan.table.bounds, places, writer.media)
        self._looked, self._writer = looked, writer
        self._recorded = bytearray(len(looked.of))
        self.zeros = bytearray(looked.zero)
        self.known = looked.digests is not None
        self.digests = (
            looked.digests if looked.digests is not None else DigestColumn(OWN, bytes(OWN.size * len(places)))
        )

    def write_row(self, row: int, data: memoryview) -> None:
        if not self.known:
            self.digests.data[OWN.size * row : OWN.size * (row + 1)] = OWN.of(data)
        if is_zeros(data):
            self.zeros[row] = 1
        else:
            super().write_row(row, data)

    def done(self, first: int, count: int) -> None:
        """Rows first..first + count were written."""
        for row in range(first, first + count):
            if not self.zeros[row] and not self._recorded[row]:
                self._recorded[row] = 1
                length = self.bounds[row + 1] - self.bounds[row]
                self._writer.record(self.places.pack[row], self.places.offset[row], length, self.digests[row])

    def take_back(self, rows: list[int]) -> None:
        """These rows are not what was recorded of them."""
        for row in rows:
            self._writer.take_back(self.places.pack[row], self.places.offset[row], self.digests[row])

    def all_zeros(self) -> bytearray:
        """A flag for every row: those of the same chunk are alike."""
        found = {self._looked.of[row] for row in self._looked.wanted if self.zeros[row]}
        return bytearray(flag or of in found for flag, of in zip(self._looked.zero, self._looked.of, strict=True))

    def all_digests(self) -> DigestColumn:
        """A digest for every row."""
        if self.known:
            return self.digests
        first = {self._looked.of[row]: self.digests[row] for row in self._looked.wanted}
        column, of_zeros = DigestColumn(OWN), dict[int, bytes]()
        for row, chunk in enumerate(self._looked.of):
            digest = first.get(chunk)
            if digest is None:
                length = self.bounds[row + 1] - self.bounds[row]
                digest = of_zeros.setdefault(length, b"") or OWN.of(bytes(length))
                of_zeros[length] = digest
            column.append(digest)
        return column


def is_zeros(data: memoryview) -> bool:
    """Whether there is no byte but zeros."""
    return (
        not any(data[:64])
        and all(
            bytes(part).count(0) == len(part)  # of a part, since a chunk may be long
            for part in (data[start : start + _STEP] for start in range(0, len(data), _STEP))
        )
    )
