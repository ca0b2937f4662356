# SPDX-License-Identifier: Apache-2.0
"""Chunks that lie in packs, seen as one run of bytes: the medium that the engine writes, reads back and indexes."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from regraft.engine.medium import Medium
from regraft.errors import MediumError, SourceError
from regraft.model import DigestColumn, OpTable
from regraft.model.buffers import Buffer

ZEROS, NOWHERE = -1, -2  #: in the place of a pack


class Places:
    """Where chunks lie, a row each: a position in a list of packs (or ZEROS, NOWHERE), and bytes into it."""

    __slots__ = ("offset", "pack")

    def __init__(self, count: int) -> None:
        self.pack = array("i", [NOWHERE]) * count
        self.offset = array("Q", [0]) * count

    def __len__(self) -> int:
        return len(self.pack)


class Scattered:
    """A `Medium` whose row i, bounds[i]..bounds[i + 1], lies at places[i] in `packs`. Writes are of whole rows."""

    sparse = False

    def __init__(self, name: str, bounds: array[int], places: Places, packs: Sequence[Medium]) -> None:
        self.name = name
        self.bounds, self.places, self.packs = bounds, places, packs

    @property
    def size(self) -> int:
        return self.bounds[-1]

    def read_into(self, offset: int, view: memoryview) -> int:
        bounds, places = self.bounds, self.places
        count = min(len(view), max(self.size - offset, 0))
        done, row = 0, bisect_right(bounds, offset) - 1
        while done < count:
            within = offset + done - bounds[row]
            length = min(bounds[row + 1] - bounds[row] - within, count - done)
            part, number = view[done : done + length], places.pack[row]
            if number >= 0:
                if self.packs[number].read_into(places.offset[row] + within, part) < length:
                    raise SourceError(f"{self.packs[number].name} ends before the chunk at {places.offset[row]}")
            elif number == ZEROS:
                part[:] = bytes(length)
            else:
                raise SourceError(f"{self.name}: the chunk at {bounds[row]} is not in the store")
            done += length
            row += 1
        return done

    def run(self, offset: int, length: int) -> tuple[Medium | None, int, int]:
        """Where the first of these bytes lie: the pack, the offset in it, and how many lie there together.

        None for the pack of bytes that lie in none.
        """
        bounds, places = self.bounds, self.places
        row = bisect_right(bounds, offset) - 1
        number, at = places.pack[row], places.offset[row] + offset - bounds[row]
        end, last = bounds[row + 1], offset + length
        while end < last and places.pack[row + 1] == number and places.offset[row + 1] == at + end - offset:
            row += 1
            end = bounds[row + 1]
        return self.packs[number] if number >= 0 else None, at, min(end, last) - offset

    def write(self, offset: int, data: Buffer) -> None:
        view, row = memoryview(data), bisect_right(self.bounds, offset) - 1
        while len(view):
            length = self.bounds[row + 1] - self.bounds[row]
            self.write_row(row, view[:length])
            view = view[length:]
            row += 1

    def write_row(self, row: int, data: memoryview) -> None:
        self.packs[self.places.pack[row]].write(self.places.offset[row], data)

    def zero(self, offset: int, length: int) -> None:
        raise MediumError(f"{self.name}: zeros are not stored")

    def resize(self, size: int) -> None:
        if size != self.size:
            raise MediumError(f"{self.name} has {self.size} bytes, not {size}")

    def sync(self) -> None:
        for pack in self.packs:
            pack.sync()

    def forget(self) -> None:
        for pack in self.packs:
            pack.forget()

    def close(self) -> None:
        for pack in self.packs:
            pack.close()


def rows_of(bounds: array[int], digests: DigestColumn) -> OpTable:
    """Rows with these digests and no operations: what verifying takes."""
    table = OpTable(digests.algorithm)
    table.bounds, table.digests = bounds, digests
    return table


def bounds_of(lengths: Sequence[int]) -> array[int]:
    """Rows of these lengths, end to end."""
    return array("Q", accumulate(lengths, initial=0))
