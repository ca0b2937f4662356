# SPDX-License-Identifier: Apache-2.0
"""In which order a plan is executed over its own base. Pure.

No range of the base may be overwritten before every row that reads it was read. Rows that wait for each other in a
circle are read together before any of them is written (a journaled window), or one of them is converted: taken from
its stored bytes instead. Burns, Stockmeyer and Long, "In-place reconstruction of version differences" (IEEE TKDE 2003)
describe the problem; components, windows and direct batches are how it is solved here.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from regraft import kernels
from regraft.engine.match import match
from regraft.engine.state import identity_of
from regraft.errors import LimitError, StateError
from regraft.formats import merge_state
from regraft.limits import DEFAULT, Limits
from regraft.model import Addressing, Index, Kind, Op, OpTable, Plan, Recipe

#: The number of the base among a plan's seeds.
BASE = 0

#: Bytes of one level that are worth a flush of their own, rather than to be written twice, in a window.
_WORTH = 512 << 10

_STAY, _WRITE, _READ = 0, 1, 2

# Plain numbers: the loops over a million rows know no members of an enumeration.
_ZERO, _COPY, _DATA = int(Kind.ZERO), int(Kind.COPY), int(Kind.DATA)
_BASE_KINDS = frozenset((_COPY, int(Kind.PATCH)))


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which rows of a plan are written, in which order and by which of their operations.

    choice: for each row of the plan the number of its operation, 0 for its first one; a row that is not in `rows` lies
    in its place already. Batch b is rows[starts[b]:starts[b + 1]], in target order. journaled: a byte per batch, 1 if
    all of it has to be read before any of it is written.
    """

    rows: array[int]
    starts: array[int]
    journaled: bytes
    choice: bytes
    window: int  #: bytes that a journaled batch has at most

    def __len__(self) -> int:
        """The number of batches."""
        return len(self.journaled)

    def batch(self, number: int) -> array[int]:
        """The rows of a batch."""
        return self.rows[self.starts[number] : self.starts[number + 1]]

    def build(self) -> bytes:
        """As bytes: `regraft.formats.merge_state`."""
        return merge_state.build_schedule(
            merge_state.Columns(self.rows, self.starts, self.journaled, self.choice, self.window)
        )


def onto(recipe: Recipe, name: str, index: Index) -> Plan:
    """A plan for `recipe` over the base with this name and index: what lies in its place already comes first."""
    plan = match(recipe, [(name, index)])
    if recipe.matchable is None or index.digests.algorithm != recipe.matchable:
        return plan
    there = {index.bounds[chunk]: chunk for chunk in range(len(index))}
    rows, table = plan.table, OpTable(recipe.matchable)
    for row, digest in enumerate(rows.digests):
        start = rows.bounds[row]
        chunk = there.get(start)
        ops = list(rows.ops(row))
        if (
            chunk is not None
            and index.bounds[chunk + 1] == rows.bounds[row + 1]
            and index.digests[chunk] == digest
            and ops[0] != (stays := Op(Kind.COPY, source=BASE, at=start))
        ):
            ops = [stays, *(op for op in ops if op.kind is not Kind.COPY)]
        table.add(rows.length(row), digest, *ops)
    return Plan(recipe, table, plan.seeds)


def order(plan: Plan, *, window: int = 0, without: Container[int] = frozenset(), limits: Limits = DEFAULT) -> Schedule:
    """The schedule of a plan whose seed 0 is what it is written over.

    window: bytes that a journaled batch may have; 0 means `limits.merge_window`. without: rows whose bytes in the base
    are known to be wrong. A conversion costs the stored bytes of the unit that is then decoded.

    Raises LimitError if rows without stored bytes wait for each other and do not fit the window, or if the plan has
    more conflicts than `limits.merge_conflicts`.
    """
    window = window or limits.merge_window
    role, choice, cost, at = _columns(plan, without)
    rows = kernels.Rows(plan.table.bounds, at, role)
    try:
        batches, converted, needed = kernels.merge_order(
            rows,
            cost,
            window=window,
            batch=limits.merge_batch,
            worth=min(_WORTH, window // 4),
            edges=limits.merge_conflicts,
        )
    except OverflowError:
        raise LimitError(
            f"this plan has more than limits.merge_conflicts = {limits.merge_conflicts} conflicts"
        ) from None
    if needed:
        raise LimitError(
            f"rows of {needed} bytes can only be read together before one of them is written; a window has {window}",
            cure=f"give a window of at least {needed} bytes",
        )
    for row in converted:
        choice[row] = elsewhere(plan, row)[0]
    schedule = Schedule(batches.order, batches.starts, batches.journaled, bytes(choice), window)
    check(plan, schedule)
    return schedule


def nothing(plan: Plan) -> Schedule:
    """The schedule of a base that is the target already."""
    return Schedule(array("I"), array("I", [0]), b"", bytes(len(plan.table)), 0)


def elsewhere(plan: Plan, row: int) -> list[int]:
    """The numbers of a row's operations that do not read the base, cheapest first."""
    table = plan.table
    first = table.first[row]
    return [number - first for number in range(first, table.first[row + 1]) if not reads_base(table, number)]


def reads_base(table: OpTable, number: int) -> bool:
    """Whether operation `number` reads the base."""
    return table.kind[number] in (Kind.COPY, Kind.PATCH) and table.source[number] == BASE


def _columns(plan: Plan, without: Container[int]) -> tuple[bytearray, bytearray, array[int], array[int]]:
    """(role, choice, cost, at) of each row, before anything is converted."""
    table = plan.table
    count = len(table)
    role, choice = bytearray(count), bytearray(count)
    cost, at = array("I", [kernels.NEVER]) * count, array("Q", [0]) * count
    kind, source, where, unit, stored = table.kind, table.source, table.at, table.unit, stored_sizes(plan.recipe)
    for row, (number, last), start in zip(range(count), pairwise(table.first), table.bounds, strict=False):
        if kind[number] in _BASE_KINDS and source[number] == BASE and not (without and row in without):
            place = where[number]
            if place == start and kind[number] == _COPY:
                at[row] = place
                continue  # it stays
            chosen = _in_place(table, number + 1, last, start) if last > number + 1 else 0
            if chosen:
                choice[row], at[row] = chosen - number, start
                continue
            role[row], at[row] = _READ, place
            for other in range(number + 1, last):
                if kind[other] == _DATA:
                    cost[row] = max(1, min(stored[unit[other]], kernels.NEVER - 1))
                    break
                if not reads_base(table, other):
                    cost[row] = 1
                    break
            continue
        chosen = number
        if without and row in without:
            others = elsewhere(plan, row)
            chosen += others[0] if others else 0
        elif last > number + 1:
            chosen = _in_place(table, number + 1, last, start) or number
        choice[row] = chosen - number
        if not reads_base(table, chosen):
            role[row] = _WRITE
            continue
        at[row] = where[chosen]
        if kind[chosen] == Kind.PATCH or at[row] != start:
            role[row] = _READ
    return role, choice, cost, at


def _in_place(table: OpTable, number: int, last: int, start: int) -> int:
    """The operation from `number` on, if any, that finds the row at `start` in its place; else 0."""
    for other in range(number, last):
        if table.at[other] == start and table.kind[other] == _COPY and table.source[other] == BASE:
            return other
    return 0


def check(plan: Plan, schedule: Schedule) -> None:
    """Replay a schedule: every read must see the base, every row end up written. Raises StateError."""
    table, count = plan.table, len(plan.table)
    if len(schedule.choice) != count:
        raise StateError(f"a schedule of {len(schedule.choice)} rows for a plan of {count}")
    role, at = bytearray(count), array("Q", [0]) * count
    kind, source, where = table.kind, table.source, table.at
    columns = zip(range(count), schedule.choice, pairwise(table.first), table.bounds, strict=False)
    for row, choice, (number, last), start in columns:
        number += choice
        if number >= last:
            raise StateError(f"the schedule wants operation {choice} of row {row}, which has fewer")
        if kind[number] not in _BASE_KINDS or source[number] != BASE:
            role[row] = _WRITE
            continue
        place = where[number]
        at[row] = place
        if place != start or kind[number] != _COPY:
            role[row] = _READ
    batches = kernels.Batches(schedule.rows, schedule.starts, schedule.journaled)
    try:
        position = kernels.merge_check(kernels.Rows(table.bounds, at, role), batches, window=schedule.window)
    except ValueError as error:
        raise StateError(f"the schedule is damaged: {error}") from None
    if position >= 0:
        raise StateError(f"the schedule is wrong at its row number {position}: it would destroy what is still needed")


def load(data: bytes, plan: Plan, *, limits: Limits = DEFAULT) -> Schedule:
    """A schedule from its bytes, replayed before it counts. Raises StateError."""
    columns = merge_state.parse_schedule(data, limits=limits)
    schedule = Schedule(columns.rows, columns.starts, columns.journaled, columns.choice, columns.window)
    check(plan, schedule)
    return schedule


def identity(plan: Plan) -> bytes:
    """32 bytes that two plans share only if they make the same image by the same operations."""
    table = plan.table
    hasher = hashlib.sha256(b"regraft plan\0" + identity_of(plan.recipe))
    for column in (table.first, table.kind, table.source, table.at, table.unit, table.within):
        hasher.update(memoryview(column).cast("B") if len(column) else b"")
        hasher.update(b"\0")
    return hasher.digest()


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a schedule will do; sizes in bytes."""

    batches: int
    windows: int  #: journaled batches
    rows: int  #: that are written
    image: int
    in_place: int  #: bytes of rows that stay
    direct: int  #: bytes written once
    journaled: int  #: bytes written twice
    converted: int  #: rows taken from stored bytes though the base has them
    converted_bytes: int
    stored: int  #: stored bytes that are decoded; of chunk files, whose sizes are not known, what they decode to
    largest_window: int
    journal: int  #: size of the journal
    flushes: int

    @property
    def written(self) -> int:
        """Bytes that reach a medium: what a flash memory wears by."""
        return self.direct + 2 * self.journaled + 512 * self.flushes


def forecast(plan: Plan, schedule: Schedule) -> Forecast:
    """What executing `schedule` takes."""
    table, sizes = plan.table, stored_sizes(plan.recipe)
    direct = journaled = largest = windows = 0
    for number in range(len(schedule)):
        size = sum(table.length(row) for row in schedule.batch(number))
        if schedule.journaled[number]:
            windows, journaled, largest = windows + 1, journaled + size, max(largest, size)
        else:
            direct += size
    converted = converted_bytes = 0
    for row in schedule.rows:
        number = table.first[row] + schedule.choice[row]
        if schedule.choice[row] and reads_base(table, table.first[row]) and not reads_base(table, number):
            converted, converted_bytes = converted + 1, converted_bytes + table.length(row)
    record = merge_state.Record(b"", b"", b"", len(schedule.build()), largest)
    return Forecast(
        batches=len(schedule),
        windows=windows,
        rows=len(schedule.rows),
        image=table.size,
        in_place=table.size - direct - journaled,
        direct=direct,
        journaled=journaled,
        converted=converted,
        converted_bytes=converted_bytes,
        stored=sum(sizes[unit] for unit in stored_units(plan, schedule)),
        largest_window=largest,
        journal=record.journal_size,
        flushes=2 * (len(schedule) - windows) + 3 * windows + 2,
    )


def stored_sizes(recipe: Recipe) -> Sequence[int]:
    """The stored bytes of each unit; of units that are files of their own, whose sizes nothing tells, the decoded."""
    units = recipe.units
    files = {number for number, blob in enumerate(recipe.blobs) if blob.addressing is Addressing.FILES}
    if not files:
        return units.stored
    columns = zip(units.blob, units.length, units.stored, strict=True)
    return array("I", (length if blob in files else stored for blob, length, stored in columns))


def stored_units(plan: Plan, schedule: Schedule, batch: int = 0) -> list[int]:
    """The units that are decoded from `batch` on, with the dictionaries that they need; ascending."""
    table, units, codecs = plan.table, plan.recipe.units, plan.recipe.codecs
    wanted: set[int] = set()
    for row in schedule.rows[schedule.starts[batch] :]:
        number = table.first[row] + schedule.choice[row]
        if table.kind[number] in (Kind.DATA, Kind.PATCH):
            wanted.add(table.unit[number])
    dictionaries = {codecs[units.codec[unit]].dictionary for unit in wanted}
    return sorted(wanted.union(unit for unit in dictionaries if unit is not None))


def runs(plan: Plan, rows: array[int], choice: bytes, maximum: int) -> Iterator[tuple[int, int, bool]]:
    """(first row, number of rows, whether all are zeros): neighbours among `rows`, of at most `maximum` bytes."""
    bounds, operation, kind = plan.table.bounds, plan.table.first, plan.table.kind
    first = following = -1
    most, zeros = 0, False
    for row in rows:
        is_zero = kind[operation[row] + choice[row]] == _ZERO
        if row != following or is_zero != zeros or bounds[row + 1] > most:
            if first >= 0:
                yield first, following - first, zeros
            first, zeros, most = row, is_zero, bounds[row] + maximum
        following = row + 1
    if first >= 0:
        yield first, following - first, zeros
