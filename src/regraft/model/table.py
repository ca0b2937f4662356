# SPDX-License-Identifier: Apache-2.0
"""The table of operations that both a recipe and a plan are made of.

Rows tile the target, in target order. Each row has one or more operations that all give the same bytes: the first is
the cheapest, the others are its alternatives, tried in order when it fails. Columns, not objects: a row costs 12
bytes, an operation 19, a digest its own size.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from regraft.model.digest import Algorithm, DigestColumn


class Kind(IntEnum):
    ZERO = 0
    COPY = 1
    DATA = 2
    PATCH = 3


class Op(NamedTuple):
    """One operation, as a record: only for single looks, the table itself holds columns.

    source: number of the seed (COPY, PATCH).
    at: byte offset in the seed (COPY, PATCH).
    unit: number of the decoded unit of stored bytes (DATA, PATCH).
    within: byte offset in that decoded unit (DATA, PATCH).
    """

    kind: Kind
    source: int = 0
    at: int = 0
    unit: int = 0
    within: int = 0


ZERO = Op(Kind.ZERO)


class OpTable:
    """Append rows with `add`; read rows with `bounds`, `digests`, and `ops(row)`."""

    __slots__ = ("at", "bounds", "digests", "first", "kind", "source", "unit", "within")

    def __init__(self, algorithm: Algorithm | None) -> None:
        self.bounds = array("Q", [0])  #: row i covers bounds[i]..bounds[i + 1] of the target
        self.first = array("I", [0])  #: row i has the operations first[i]..first[i + 1]
        self.digests = DigestColumn(algorithm)  #: of the decoded bytes, a row each; absent if the format has none
        self.kind = array("B")
        self.source = array("H")
        self.at = array("Q")
        self.unit = array("I")
        self.within = array("I")

    def add(self, length: int, digest: bytes | None, *ops: Op) -> None:
        """Append the next `length` bytes of the target and the ways to obtain them, cheapest first."""
        if length <= 0 or not ops:
            raise ValueError("a row covers at least one byte and has at least one operation")
        if digest is not None:
            self.digests.append(digest)
        elif self.digests.algorithm is not None:
            raise ValueError("this table has a digest in every row")
        for op in ops:
            self.kind.append(op.kind)
            self.source.append(op.source)
            self.at.append(op.at)
            self.unit.append(op.unit)
            self.within.append(op.within)
        self.bounds.append(self.bounds[-1] + length)
        self.first.append(len(self.kind))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def size(self) -> int:
        """Bytes covered, from 0."""
        return self.bounds[-1]

    def length(self, row: int) -> int:
        return self.bounds[row + 1] - self.bounds[row]

    def op(self, number: int) -> Op:
        """Operation `number` of the table, counted over all rows."""
        return Op(Kind(self.kind[number]), self.source[number], self.at[number], self.unit[number], self.within[number])

    def ops(self, row: int) -> Iterator[Op]:
        """The operations of a row, cheapest first."""
        return (self.op(number) for number in range(self.first[row], self.first[row + 1]))
