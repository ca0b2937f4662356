# SPDX-License-Identifier: Apache-2.0
"""Random reads of an image in a store: a chunk is verified when it is first read, then taken as it lies in its pack."""

from __future__ import annotations

import hmac
from bisect import bisect_right
from collections.abc import Iterator

from regraft.engine.medium import Medium
from regraft.errors import DigestError, SourceError
from regraft.model import Algorithm
from regraft.stores.image import StoredImage
from regraft.stores.scattered import ZEROS

_STEP = 1 << 20  # bytes of a chunk that are in memory at once


class Reader:
    """Reads of an open image that has all its chunks. Thread-safe; two who read a chunk first both verify it."""

    def __init__(self, image: StoredImage) -> None:
        """Raises StateError if chunks are missing."""
        if image.missing:
            raise image.incomplete()
        self.size = image.size
        self.verified = 0  #: bytes that were hashed so far
        self._image = image
        self._bounds, self._chunk = image.description.bounds, image.chunks.of
        self._pack, self._offset, self._media = image.places.pack, image.places.offset, image.packs
        self._proved = bytearray(len(image.chunks.lookup))

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes from `offset` on, which lie within the image.

        Raises SourceError; DigestError for a chunk that is not what it was when it was stored.
        """
        bounds, count, done = self._bounds, len(view), 0
        row = bisect_right(bounds, offset) - 1
        while done < count:
            within = offset + done - bounds[row]
            length = min(bounds[row + 1] - offset, count) - done
            self._read_row(row, within, view if length == count else view[done : done + length])
            done += length
            row += 1

    def _read_row(self, row: int, within: int, view: memoryview) -> None:
        chunk = self._chunk[row]
        if chunk == ZEROS:
            view[:] = bytes(len(view))
        elif not self._proved[chunk]:
            self._prove(row, within, view)
            self._proved[chunk] = 1
        else:
            self._read(self._media[self._pack[row]], self._offset[row] + within, view)

    def _prove(self, row: int, within: int, view: memoryview) -> None:
        """Read the whole chunk, whatever its size in little memory, and give the part of it that is asked for."""
        digests, length = self._image.description.digests, self._bounds[row + 1] - self._bounds[row]
        pack, start = self._media[self._pack[row]], self._offset[row]
        hasher = (digests.algorithm or Algorithm.SHA256).hasher()
        if len(view) == length:
            self._read(pack, start, view)
            hasher.update(view)
        else:
            end, scratch = within + len(view), memoryview(bytearray(min(length, _STEP)))
            for at in range(0, length, _STEP):
                part = scratch[: min(_STEP, length - at)]
                self._read(pack, start + at, part)
                hasher.update(part)
                first, last = max(at, within), min(at + len(part), end)
                if first < last:
                    view[first - within : last - within] = part[first - at : last - at]
        if not hmac.compare_digest(hasher.digest(), digests[row]):
            raise DigestError(
                f"{self._image.name}: the chunk of {length} bytes at {self._bounds[row]} is damaged in the store",
                cure="regraft store verify --full, then regraft store repair",
            )
        self.verified += length

    @staticmethod
    def _read(pack: Medium, offset: int, view: memoryview) -> None:
        if pack.read_into(offset, view) < len(view):
            raise SourceError(f"{pack.name} ends before {offset + len(view)}: it was cut while it was served")

    def lies(self, offset: int, length: int) -> tuple[Medium, int, int] | None:
        """The pack that has the first of these bytes, the offset in it, and how many lie there together and are
        verified; None if they are zeros, or not verified."""
        bounds, chunk, proved = self._bounds, self._chunk, self._proved
        row = bisect_right(bounds, offset) - 1
        if chunk[row] == ZEROS or not proved[chunk[row]]:
            return None
        pack, at = self._pack[row], self._offset[row] + offset - bounds[row]
        end, last = bounds[row + 1], offset + length
        while end < last and self._pack[row + 1] == pack and self._offset[row + 1] == at + end - offset:
            row += 1
            if not proved[chunk[row]]:
                break
            end = bounds[row + 1]
        return self._media[pack], at, min(end, last) - offset

    def runs(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        """What so many bytes from `offset` on consist of: (bytes, whether they are chunks of zeros), neighbours
        differ."""
        bounds, end = self._bounds, offset + length
        row = bisect_right(bounds, offset) - 1
        start = offset
        zeros = offset < end and self._chunk[row] == ZEROS
        while offset < end:
            if (self._chunk[row] == ZEROS) != zeros:
                yield offset - start, zeros
                start, zeros = offset, not zeros
            row += 1
            offset = bounds[row]
        if end > start:
            yield end - start, zeros
