# SPDX-License-Identifier: Apache-2.0
"""Make one chunked artifact of another: the same cuts, and stored bytes as they are where both formats allow it."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

from regraft.build.chunks import Chunk, Feed, ahead
from regraft.engine.apply import apply
from regraft.engine.decode import UnitDecoder
from regraft.engine.files import FileMedium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.ranges import RangeSource
from regraft.engine.verify import default_workers
from regraft.errors import DigestError, FormatError, LimitError, UnsupportedError, VerificationError
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, Kind, Recipe
from regraft.model.buffers import Buffer

RECHUNK = "cut the image anew: --rechunk"


@dataclass(frozen=True, slots=True)
class _Unit:
    """A unit, decoded: its bytes, their digest, and as it is stored."""

    data: Buffer
    digest: bytes
    stored: bytes | None


class Chunks:
    """The rows of a chunked artifact as a `build.chunks.Source`.

    blobs: a source of stored bytes for each of the recipe's. codec: the codec whose units the target can take as they
    are stored, "" for none: they must have no dictionary.

    Everything is verified: stored bytes, rows, the image. Memory: `limits.buffer` and a few units that occur again.
    """

    def __init__(
        self,
        recipe: Recipe,
        blobs: Sequence[RangeSource],
        *,
        codec: str = "",
        workers: int = 0,
        limits: Limits = DEFAULT,
        progress: Progress = QUIET,
    ) -> None:
        _check(recipe, limits)
        self._recipe, self._blobs, self._codec = recipe, blobs, codec
        self._workers, self._limits, self._progress = workers or default_workers(), limits, progress
        self._decoder = UnitDecoder(recipe, blobs, limits)
        self.size, self.label = recipe.size, recipe.chunker
        self.reused = 0  #: chunks handed on as they are stored

    def chunks(self, algorithm: Algorithm, whole: Feed | None = None) -> Iterator[Chunk]:
        """As `Source.chunks`. Raises DigestError, FormatError, TransportError, SourceError."""
        table = self._recipe.table
        self._progress.phase("convert", self.size)
        last = array("I", bytes(4 * len(self._recipe.units)))
        for row in range(len(table)):
            last[table.unit[table.first[row]]] = row
        expected = self._recipe.digest
        hasher = expected.algorithm.hasher() if expected else None
        kept, seen = _Kept(self._limits.buffer // 4), bytearray(len(last))
        with closing(ahead(self._first_units(algorithm), self._workers, self._limits.buffer // 2)) as found:
            for row in range(len(table)):
                number = table.unit[table.first[row]]
                if seen[number]:
                    unit = kept.take(number) or self._unit(row, self._decoder.fetch_one(number), algorithm)
                else:
                    unit, seen[number] = next(found), 1
                if row < last[number]:
                    kept.keep(number, unit)
                if whole is not None:
                    whole(unit.data)
                if hasher is not None:
                    hasher.update(unit.data)
                self.reused += unit.stored is not None
                self._progress.advance(len(unit.data), Origin.FETCHED)
                yield Chunk(unit.data, unit.digest, unit.stored)
        if expected and hasher and hasher.digest() != expected.value:
            raise DigestError("the image differs from its digest, though every chunk is as its header says")

    def _first_units(self, algorithm: Algorithm) -> Iterator[tuple[int, Callable[[], _Unit]]]:
        """The decoding of each unit, as rows first want them; those that lie in order are one fetch."""
        table, units = self._recipe.table, self._recipe.units
        seen, run, rows, end = bytearray(len(units)), array("I"), array("I"), 0
        for row in range(len(table)):
            number = table.unit[table.first[row]]
            if seen[number]:
                continue
            seen[number] = 1
            if units.offset[number] < end:
                yield from self._run(run, rows, algorithm)
                run, rows = array("I"), array("I")
            run.append(number)
            rows.append(row)
            end = units.offset[number] + units.stored[number]
        yield from self._run(run, rows, algorithm)

    def _run(
        self, numbers: array[int], rows: array[int], algorithm: Algorithm
    ) -> Iterator[tuple[int, Callable[[], _Unit]]]:
        self._decoder.prepare(numbers)
        ranges = [self._decoder.range_of(number) for number in numbers]
        for position, stored in self._blobs[0].fetch(ranges, ordered=True):
            length = self._recipe.units.length[numbers[position]]
            yield length + len(stored), partial(self._unit, rows[position], stored, algorithm)

    def _unit(self, row: int, stored: Buffer, algorithm: Algorithm) -> _Unit:
        number = self._recipe.table.unit[self._recipe.table.first[row]]
        try:
            data = self._verified(number, row, stored)
        except (DigestError, FormatError):
            stored = self._decoder.fetch_one(number)  # once more, by itself
            data = self._verified(number, row, stored)
        digests = self._recipe.table.digests
        digest = digests[row] if digests.algorithm == algorithm else algorithm.of(data)
        codec = self._recipe.codecs[self._recipe.units.codec[number]]
        same = self._codec == codec.name and codec.dictionary is None
        return _Unit(data, digest, bytes(stored) if same else None)

    def _verified(self, number: int, row: int, stored: Buffer) -> memoryview:
        return self._decoder.row(row, 0, self._decoder.decode(number, stored))


class _Kept:
    """Units that later rows want again, of at most `bound` bytes: those that were last in use."""

    def __init__(self, bound: int) -> None:
        self._left = bound
        self._units: OrderedDict[int, _Unit] = OrderedDict()

    def take(self, number: int) -> _Unit | None:
        unit = self._units.pop(number, None)
        if unit is not None:
            self._left += len(unit.data)
        return unit

    def keep(self, number: int, unit: _Unit) -> None:
        self._units[number] = unit
        self._left -= len(unit.data)
        while self._left < 0:
            self._left += len(self._units.popitem(last=False)[1].data)


def _check(recipe: Recipe, limits: Limits) -> None:
    """Raise the error of a recipe whose rows cannot be the chunks of another artifact."""
    table, units = recipe.table, recipe.units
    if not recipe.verifiable():
        raise VerificationError("nothing covers the bytes of this image")
    if len(recipe.blobs) != 1:
        raise UnsupportedError(f"an artifact of {len(recipe.blobs)} files", cure=RECHUNK)
    for row in range(len(table)):
        operation = table.op(table.first[row])
        if operation.kind is not Kind.DATA or operation.within or table.length(row) != units.length[operation.unit]:
            raise UnsupportedError(f"row {row} is not a chunk of its own", cure=RECHUNK)
        if table.length(row) > limits.chunk_size:
            raise LimitError(
                f"a chunk of {table.length(row)} bytes at {table.bounds[row]}, a reader of the target takes at most "
                f"limits.chunk_size = {limits.chunk_size}",
                cure=RECHUNK,
            )


@contextmanager
def unpacked(
    recipe: Recipe, blobs: Sequence[RangeSource], *, workers: int = 0, progress: Progress = QUIET
) -> Iterator[FileMedium]:
    """The image itself, verified, in an unlinked temporary file: to be cut anew."""
    with tempfile.TemporaryFile(prefix="regraft-") as file:
        medium = FileMedium(os.dup(file.fileno()), "the unpacked image")
        try:
            apply(recipe, [], blobs, medium, workers=workers, progress=progress)
            yield medium
        finally:
            medium.close()
