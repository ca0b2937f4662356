# SPDX-License-Identifier: Apache-2.0
"""Schedules: what stays, what is converted, what is journaled, and what a forecast says of it."""

from __future__ import annotations

import json
import random
from array import array
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import pytest
from merges import Builder, blocks_job
from shared_vectors import vectors

from regraft.engine import order as ordering
from regraft.errors import LimitError, StateError
from regraft.limits import DEFAULT
from regraft.model import Addressing, Algorithm, Blob, DigestColumn, Index, Kind, Op, OpTable, Plan
from regraft.model.table import ZERO

BLOCK = 512
OLD = random.Random(4).randbytes(16 * BLOCK)


def test_what_is_in_its_place_is_not_written() -> None:
    schedule = ordering.order(blocks_job(OLD, [0, 1, 5, 3], BLOCK).plan)
    assert list(schedule.rows) == [2]


def test_a_place_that_fits_is_taken_even_if_it_is_not_the_first_choice() -> None:
    plan = blocks_job(OLD, [0, 1], BLOCK).plan
    table = OpTable(Algorithm.SHA256)
    for row, digest in enumerate(plan.table.digests):
        table.add(BLOCK, digest, ZERO if row else Op(Kind.COPY, at=3 * BLOCK), *plan.table.ops(row))
    schedule = ordering.order(replace(plan, table=table))
    assert list(schedule.rows) == []
    assert schedule.choice == b"\1\1"


def test_a_row_that_reads_nothing_comes_last() -> None:
    builder = Builder(OLD)
    builder.data(b"d" * BLOCK)
    builder.zero(BLOCK)
    builder.copy(0, BLOCK)
    schedule = ordering.order(builder.job().plan)
    assert list(schedule.rows) == [2, 0, 1]
    assert schedule.journaled == b"\0\0"


def test_a_cycle_that_fits_the_window_is_not_converted() -> None:
    plan = blocks_job(OLD, [1, 2, 3, 0], BLOCK).plan
    whole = ordering.order(plan, window=4 * BLOCK)
    assert (whole.journaled, whole.choice) == (b"\1", bytes(4))
    broken = ordering.order(plan, window=3 * BLOCK)
    assert sum(broken.choice) == 1


def test_rows_without_stored_bytes_need_a_window_that_holds_them() -> None:
    plan = blocks_job(OLD, [1, 2, 3, 0], BLOCK, alternatives=False).plan
    with pytest.raises(LimitError, match=f"{4 * BLOCK} bytes") as caught:
        ordering.order(plan, window=3 * BLOCK)
    assert f"at least {4 * BLOCK}" in caught.value.cure


def test_rows_known_to_be_wrong_are_taken_from_stored_bytes() -> None:
    plan = blocks_job(OLD, [0, 2, 2, 3], BLOCK).plan
    schedule = ordering.order(plan, without={0, 1})
    assert list(schedule.choice) == [1, 1, 0, 0]
    assert sorted(schedule.rows) == [0, 1]


def test_more_conflicts_than_allowed_are_refused() -> None:
    with pytest.raises(LimitError, match="merge_conflicts"):
        ordering.order(blocks_job(OLD, [1, 2, 3, 0], BLOCK).plan, limits=replace(DEFAULT, merge_conflicts=2))


def test_a_schedule_survives_its_bytes_and_is_replayed_when_loaded() -> None:
    plan = blocks_job(OLD, [*range(1, 12), 11], BLOCK).plan
    schedule = ordering.order(plan, window=8 * BLOCK)
    assert schedule.journaled == b"\1\1\0"
    assert ordering.load(schedule.build(), plan) == schedule
    for wrong in (
        replace(schedule, rows=array("I", reversed(schedule.rows))),
        replace(schedule, journaled=bytes(len(schedule))),
        replace(schedule, window=BLOCK),
        replace(schedule, choice=b"\7" + schedule.choice[1:]),
        replace(schedule, choice=schedule.choice[1:]),
        replace(schedule, rows=schedule.rows[1:]),
    ):
        with pytest.raises(StateError):
            ordering.load(wrong.build(), plan)


def test_a_plan_over_a_base_prefers_what_is_in_place() -> None:
    old = OLD[:BLOCK] * 3 + OLD[BLOCK : 2 * BLOCK]
    job = blocks_job(old, [0, 1, 2, 3], BLOCK)
    digests = DigestColumn(Algorithm.SHA256)
    for row in range(4):
        digests.append(job.plan.table.digests[row])
    index = Index(array("Q", range(0, 5 * BLOCK, BLOCK)), digests, "fixed")
    plan = ordering.onto(job.plan.recipe, "slot", index)
    assert len(ordering.order(plan).rows) == 0


def test_plans_that_differ_have_different_identities() -> None:
    plans = [blocks_job(OLD, source, BLOCK).plan for source in ([0, 1], [1, 0], [0, 2])]
    plans.append(Plan(plans[0].recipe, plans[1].table, ("slot",)))
    assert len({ordering.identity(plan) for plan in plans}) == 4
    assert ordering.identity(blocks_job(OLD, [0, 1], BLOCK).plan) == ordering.identity(plans[0])


def test_a_forecast_adds_up() -> None:
    builder = Builder(OLD)
    for source in (1, 0, 2):
        builder.copy(source * BLOCK, BLOCK)
    builder.data(b"d" * BLOCK)
    plan = builder.job().plan
    cost = ordering.forecast(plan, ordering.order(plan, window=4 * BLOCK))
    assert (cost.in_place, cost.direct, cost.journaled, cost.windows) == (BLOCK, BLOCK, 2 * BLOCK, 1)
    assert cost.written == BLOCK + 4 * BLOCK + 512 * cost.flushes
    assert (cost.stored, cost.converted, cost.image) == (BLOCK, 0, 4 * BLOCK)
    small = ordering.forecast(plan, ordering.order(plan, window=BLOCK))
    assert (small.converted, small.converted_bytes, small.journaled) == (1, BLOCK, 0)


def test_chunk_files_count_as_what_they_decode_to() -> None:
    builder = Builder(OLD)
    for at, length in ((512, 1536), (0, 512)):  # they wait for each other
        builder.copy(at, length)
    plan = builder.job().plan
    units = plan.recipe.units
    units.offset, units.stored = array("Q", [0, 1]), array("I", [1, 1])
    plan = replace(plan, recipe=replace(plan.recipe, blobs=(Blob("chunks", 2, Addressing.FILES),)))
    schedule = ordering.order(plan, window=3 * BLOCK)
    assert list(schedule.choice) == [0, 1]  # the one that costs less
    assert ordering.forecast(plan, schedule).stored == 512


# -- the cases of bita's in-place reorder ------------------------------------------------------------------------------


def layout(chunks: dict[str, Any]) -> dict[int, tuple[str, int]]:
    """Offset to (chunk, size)."""
    return {offset: (name, size) for name, (size, offsets) in chunks.items() for offset in offsets}


def reorder_plan(current: dict[str, Any], target: dict[str, Any]) -> tuple[Plan, list[int]]:
    """A plan for the target's layout, where chunks that are nowhere in the base and gaps are stored bytes."""
    wanted, have = layout(target), {name: (size, min(offsets)) for name, (size, offsets) in current.items()}
    here = layout(current)
    table, offsets, position = OpTable(None), [], 0
    for offset in sorted(wanted):
        name, size = wanted[offset]
        if offset > position:
            table.add(offset - position, None, Op(Kind.ZERO))
            offsets.append(position)
        if here.get(offset) == (name, size):
            table.add(size, None, Op(Kind.COPY, at=offset))
        elif name in have and have[name][0] == size:
            table.add(size, None, Op(Kind.COPY, at=have[name][1]))
        else:
            table.add(size, None, Op(Kind.ZERO))
        offsets.append(offset)
        position = offset + size
    plan = blocks_job(OLD, [0], BLOCK).plan
    return Plan(plan.recipe, table, ("slot",)), offsets


def reorder_cases() -> list[Any]:
    return vectors("bita-reorder.json")["reorder"]  # type: ignore[no-any-return]


def test_bitas_cases_of_reordering_need_no_conversion() -> None:
    for case in reorder_cases():
        plan, _ = reorder_plan(case["current"], case["target"])
        schedule = ordering.order(plan, window=4096)  # which replays it
        assert not any(schedule.choice), case["name"]


def test_bitas_cases_of_what_is_in_place_leave_the_same_to_be_written() -> None:
    for case in vectors("bita-reorder.json")["strip_in_place"]:
        places = sorted((offset, size) for offset, (_, size) in layout(case["target"]).items())
        if any(offset + size > following for (offset, size), (following, _) in pairwise(places)):
            continue  # chunks that overlap make no image
        plan, offsets = reorder_plan(case["current"], case["target"])
        copies = [row for row in ordering.order(plan).rows if plan.table.kind[row] == Kind.COPY]
        left = layout(case["left"])
        assert sorted(offsets[row] for row in copies) == sorted(left), json.dumps(case)


def test_rows_of_any_length_are_ordered() -> None:
    chance = random.Random(1)
    lengths = [chance.randint(1, 3000) for _ in range(200)]
    builder = Builder(chance.randbytes(sum(lengths)))
    for at in accumulate(lengths[:-1], initial=0):
        builder.copy(max(0, at - chance.randint(-900, 900)), chance.randint(1, 300))
    ordering.order(builder.job().plan, window=8192)
