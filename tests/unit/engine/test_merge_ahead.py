# SPDX-License-Identifier: Apache-2.0
"""Rows in bulk: few reads, the right bytes, no more of them at once than there is room for."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from merges import Job, blocks_job

from regraft.engine import order as ordering
from regraft.engine.merge_ahead import Ahead
from regraft.engine.merge_rows import RowReader
from regraft.errors import SourceError
from regraft.limits import DEFAULT
from regraft.testing.memory import MemoryMedium

BLOCK = 512
ROWS = 64
OLD = random.Random(5).randbytes(ROWS * BLOCK)
SMALL = replace(DEFAULT, merge_batch=16 * BLOCK, batch=4 * BLOCK, buffer=8 * BLOCK)


class Counting(MemoryMedium):
    reads = 0

    def read_into(self, offset: int, view: memoryview) -> int:
        self.reads += 1
        return super().read_into(offset, view)


def reader(job: Job, base: MemoryMedium) -> RowReader:
    return RowReader(job.plan, bytes(ROWS), [base], job.blobs)


def shuffled(**options: bool) -> Job:
    source = list(range(ROWS))
    random.Random(6).shuffle(source)
    return blocks_job(OLD, source, BLOCK, **options)


@pytest.mark.parametrize("make", [shuffled, lambda: blocks_job(OLD, [row ^ 1 for row in range(ROWS)], BLOCK)])
def test_copies_that_are_neighbours_in_the_base_are_read_together(make) -> None:  # type: ignore[no-untyped-def]
    job, base = make(), Counting(OLD)
    image = bytearray(len(OLD))
    reader(job, base).fill(0, ROWS, memoryview(image))
    assert image == job.new
    assert base.reads == 1


def test_a_bad_sector_among_them_costs_its_row() -> None:
    job, base = shuffled(), Counting(OLD)
    base.bad.append((9 * BLOCK + 5, 9 * BLOCK + 6))
    rows, image = reader(job, base), bytearray(len(OLD))
    rows.fill(0, ROWS, memoryview(image))
    assert image == job.new
    assert rows.replaced == 1


def test_rows_that_are_wrong_are_found_among_those_read_together() -> None:
    job, damaged = shuffled(), bytearray(OLD)
    damaged[20 * BLOCK] ^= 1
    base = MemoryMedium(damaged)
    base.bad.append((9 * BLOCK, 9 * BLOCK + 1))
    found = reader(job, base).wrong(0, ROWS, memoryview(bytearray(len(OLD))))
    assert {job.plan.table.at[job.plan.table.first[row]] for row in found} == {9 * BLOCK, 20 * BLOCK}


@pytest.mark.parametrize("worth", [0, 1 << 20])
def test_the_pieces_of_all_batches_are_the_image_with_threads_or_without(worth: int) -> None:
    job, base = shuffled(), MemoryMedium(OLD)
    schedule = ordering.order(job.plan, window=16 * BLOCK, limits=SMALL)
    image = bytearray(OLD)
    rows = RowReader(job.plan, schedule.choice, [base], job.blobs)
    with Ahead(job.plan, schedule, 0, rows, worth=worth, limits=SMALL) as ahead:
        for batch in range(len(schedule)):
            for first, count, _, view in ahead.of(batch):
                assert len(view) == count * BLOCK <= SMALL.batch
                assert ahead._held <= SMALL.buffer
                image[first * BLOCK : first * BLOCK + len(view)] = view
    assert image == job.new


def test_what_cannot_be_computed_is_an_error_of_its_turn() -> None:
    job, base = blocks_job(OLD, [(row + 1) % ROWS for row in range(ROWS)], BLOCK, alternatives=False), MemoryMedium(OLD)
    schedule = ordering.order(job.plan, window=len(OLD), limits=SMALL)
    rows = RowReader(job.plan, schedule.choice, [base], job.blobs)
    last = schedule.rows[-1]
    at = job.plan.table.at[last]
    base.bad.append((at, at + 1))
    given: list[int] = []

    def work() -> None:
        with Ahead(job.plan, schedule, 0, rows, worth=0, limits=SMALL) as ahead:
            for batch in range(len(schedule)):
                given.extend(count for _, count, _, _ in ahead.of(batch))

    with pytest.raises(SourceError):
        work()
    assert ROWS - 2 * SMALL.batch // BLOCK <= sum(given) < ROWS
