# SPDX-License-Identifier: Apache-2.0
"""Rows that the formats of pairwise deltas have in common."""

from __future__ import annotations

from regraft.errors import FormatError
from regraft.model import Kind, Op, OpTable

#: Bytes of the longest row that is copied from the base, or zero. A row is held in memory as a whole; and digests of
#: rows are made and checked by different programs, which therefore must cut alike: never change this.
LONGEST = 1 << 20


def add_unchanged(table: OpTable, end: int, base_size: int) -> None:
    """The target up to byte `end` is that of the base, in the same place. Raises FormatError if that is not so long."""
    if table.size < end > base_size:
        raise FormatError(
            f"image bytes up to {end} are those of the base, which has {base_size}",
            cure="give the base and the sizes that belong to this delta",
        )
    add_copy(table, end - table.size, table.size)


def add_copy(table: OpTable, length: int, at: int) -> None:
    """The next `length` bytes of the target are those at `at` in the base. Cut where the target's offset says so."""
    while length > 0:
        step = min(length, LONGEST - table.size % LONGEST)
        table.add(step, None, Op(Kind.COPY, at=at))
        at, length = at + step, length - step


def add_zeros(table: OpTable, length: int) -> None:
    """The next `length` bytes of the target are zeros."""
    while length > 0:
        step = min(length, LONGEST - table.size % LONGEST)
        table.add(step, None, Op(Kind.ZERO))
        length -= step
