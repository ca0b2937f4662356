# SPDX-License-Identifier: Apache-2.0
"""From stored bytes to the rows they make: hashed before they are decoded, and again before they count."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from regraft.engine import patch
from regraft.engine.medium import Medium
from regraft.engine.ranges import Range, RangeSource
from regraft.errors import DigestError, SourceError
from regraft.formats.codecs import Decoder
from regraft.limits import DEFAULT, Limits
from regraft.model import Op, Recipe
from regraft.model.buffers import Buffer


class UnitDecoder:
    """Decodes the units of a recipe, from any thread. Dictionaries are fetched when first needed, by `prepare`."""

    def __init__(self, recipe: Recipe, blobs: Sequence[RangeSource], limits: Limits = DEFAULT) -> None:
        self._recipe, self._blobs, self._limits = recipe, blobs, limits
        self._decoders: dict[int, Decoder] = {}

    def prepare(self, units: Sequence[int]) -> int:
        """Make ready for `units`; returns the stored bytes that were fetched for dictionaries."""
        recipe, fetched = self._recipe, 0
        for number in {recipe.units.codec[unit] for unit in units} - self._decoders.keys():
            codec = recipe.codecs[number]
            dictionary = None
            if codec.dictionary is not None:
                stored = self.fetch_one(codec.dictionary)
                fetched += len(stored)
                self.check_stored(codec.dictionary, stored)
                plain = Decoder(codec.name, limits=self._limits)
                dictionary = bytes(plain.decode(stored, recipe.units.length[codec.dictionary]))
            self._decoders[number] = Decoder(codec.name, dictionary=dictionary, limits=self._limits)
        return fetched

    def range_of(self, unit: int) -> Range:
        """Where the unit is stored."""
        return Range(self._recipe.units.offset[unit], self._recipe.units.stored[unit])

    def fetch_one(self, unit: int) -> Buffer:
        """The stored bytes of a single unit, unverified."""
        ((_, stored),) = self._blobs[self._recipe.units.blob[unit]].fetch([self.range_of(unit)])
        return stored

    def check_stored(self, unit: int, stored: Buffer) -> None:
        """Raise DigestError unless `stored` are the unit's stored bytes. Units without a digest pass."""
        units = self._recipe.units
        algorithm = units.digests.algorithm
        if algorithm is not None and not hmac.compare_digest(algorithm.of(stored), units.digests[unit]):
            blob = self._recipe.blobs[units.blob[unit]]
            raise DigestError(
                f"{blob.location}: the {len(stored)} bytes at {units.offset[unit]} differ from their signed digest",
                cure="the file on the server is not the one the bundle was made for: publish both together",
            )

    def decode(self, unit: int, stored: Buffer) -> memoryview:
        """The decoded unit. Raises DigestError, FormatError."""
        self.check_stored(unit, stored)
        units = self._recipe.units
        codec = units.codec[unit]
        length, room = units.length[unit], self._recipe.codecs[codec].room
        return memoryview(self._decoders[codec].decode(stored, length, room=room))

    def row(self, row: int, within: int, decoded: memoryview) -> memoryview:
        """The part of a decoded unit that is `row`, verified. Raises DigestError."""
        return self._verified(row, decoded[within : within + self._recipe.table.length(row)])

    def patched(self, row: int, op: Op, decoded: memoryview, base: Medium) -> memoryview:
        """`row` by the PATCH `op`, from the decoded unit and `base`, verified. Raises SourceError, DigestError."""
        length = self._recipe.table.length(row)
        view = memoryview(bytearray(length))
        if base.read_into(op.at, view) < length:
            raise SourceError(f"{base.name} ends before {op.at + length}, where a PATCH needs it")
        name = self._recipe.codecs[self._recipe.units.codec[op.unit]].patch
        return self._verified(row, patch.patched(name, view, decoded[op.within : op.within + length]))

    def _verified(self, row: int, data: memoryview) -> memoryview:
        table = self._recipe.table
        algorithm = table.digests.algorithm
        if len(data) < table.length(row):
            raise DigestError(f"the {table.length(row)} image bytes at {table.bounds[row]} are only {len(data)}")
        if algorithm is not None and not hmac.compare_digest(algorithm.of(data), table.digests[row]):
            raise DigestError(f"the {len(data)} image bytes at {table.bounds[row]} differ from their signed digest")
        return data
