# SPDX-License-Identifier: Apache-2.0
"""Merges in the background: what they say of themselves, above all when they fail; and what readers see."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

import pytest
from merges import Builder, Job, mixed_job, state

from regraft.engine.background import Background
from regraft.engine.merge import Merge
from regraft.engine.merge_status import Where
from regraft.engine.merge_view import MergeView
from regraft.engine.ranges import Range
from regraft.errors import MediumError, RegraftError, SourceError
from regraft.limits import Limits
from regraft.testing.memory import MemoryMedium

BLOCK = 512


class Slot(MemoryMedium):
    """A base of which some bytes can be neither read nor written: those in `broken`."""

    broken = range(0)

    def _check(self, kind: type[RegraftError], offset: int, length: int) -> None:
        if offset < self.broken.stop and offset + length > self.broken.start:
            raise kind(f"{self.name} at {offset}: Input/output error")

    def write(self, offset, data):  # type: ignore[no-untyped-def]
        self._check(MediumError, offset, len(data))
        super().write(offset, data)

    def read_into(self, offset: int, view: memoryview) -> int:
        self._check(SourceError, offset, len(view))
        return super().read_into(offset, view)


@dataclass
class Work:
    merge: Merge
    resumed: bool = False
    closed: bool = False

    def run(self) -> bool:
        return self.merge.run()

    def close(self) -> None:
        self.closed = True


@dataclass
class Site:
    job: Job
    slot: Slot
    background: Background
    view: MergeView
    said: list[str] = field(default_factory=list)

    def image(self) -> bytes:
        data = bytearray(self.view.size)
        assert self.view.read_into(0, memoryview(data)) == len(data)
        return bytes(data)

    def until(self, *states: str) -> None:
        end = time.monotonic() + 20
        while self.background.status().state not in states:
            assert time.monotonic() < end, self.background.status()
            time.sleep(0.005)


def begin(job: Job, **options) -> Site:  # type: ignore[no-untyped-def]
    slot = Slot(job.old, name="slot", device=True)
    merge = job.merge(slot, state(), **options)
    said: list[str] = []
    background = Background(Work(merge), block=BLOCK, report=said.append)
    return Site(job, slot, background, MergeView(merge), said)


@pytest.fixture
def site() -> Site:
    return begin(mixed_job(random.Random(3), 200, BLOCK), window=16 * BLOCK, limits=Limits(merge_batch=16 * BLOCK))


def test_two_numbers_that_are_equal_only_at_the_end(site: Site) -> None:
    wanted = site.background.blocks(site.background.status())
    assert wanted[0] == 0 < wanted[1] <= 200
    seen, advance = [], site.slot.sync

    def sync() -> None:
        seen.append(site.background.blocks(site.background.status()))
        advance()

    site.slot.sync = sync  # type: ignore[method-assign]
    site.background.start()
    site.until("complete")
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert all(merged < total == wanted[1] for merged, total in seen)
    assert site.background.blocks(site.background.status()) == (wanted[1], wanted[1])


def test_a_base_that_cannot_be_written_stops_the_merge_with_its_reason(site: Site) -> None:
    table = site.job.plan.table
    row = site.background._work.merge.schedule.rows[-1]
    site.slot.broken = range(table.bounds[row], table.bounds[row] + 1)
    site.background.start()
    site.until("failed")
    fields = site.background.fields()
    assert "Input/output error" in fields["error"]
    assert (fields["failures"], fields["rate"]) == (1, 0)
    assert fields["merged"] < fields["total"]
    assert len(site.said) == 1
    time.sleep(0.05)
    assert site.background.status().state == "failed"

    site.background.start()  # told to go on, and nothing is better
    site.until("failed")
    assert site.background.fields()["failures"] == 2

    site.slot.broken = range(0)
    assert site.image() == site.job.new
    site.background.start()
    site.until("complete")
    assert site.background.fields()["error"] == ""
    assert bytes(site.slot.content[: len(site.job.new)]) == site.job.new


class Blob:
    """Stored bytes that are gone for a while."""

    def __init__(self, data: bytes) -> None:
        self.data, self.gone = data, True

    def fetch(self, ranges: list[Range], *, ordered: bool = False):  # type: ignore[no-untyped-def]
        for position, (offset, length) in enumerate(ranges):
            if self.gone:
                raise SourceError("diff.img is gone")
            yield position, self.data[offset : offset + length]


def test_a_delta_that_vanishes_fails_the_reads_that_need_it_and_the_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    builder = Builder(chance.randbytes(8 * BLOCK), alternatives=False)
    builder.copy(0, 4 * BLOCK)
    builder.data(chance.randbytes(4 * BLOCK))
    job = builder.job()
    blob = Blob(job.stored)
    monkeypatch.setattr(Job, "blobs", [blob])
    site = begin(job)
    site.background.start()
    site.until("failed")
    assert "diff.img is gone" in site.background.status().error
    part = bytearray(4 * BLOCK)
    site.view.read_into(0, memoryview(part))
    assert part == job.new[: 4 * BLOCK]
    with pytest.raises(SourceError):
        site.view.read_into(4 * BLOCK, memoryview(part))
    blob.gone = False
    assert site.image() == job.new
    site.background.start()
    site.until("complete")


def test_paused_and_stopped_are_said_so(site: Site) -> None:
    site.background.pause()
    assert site.background.status().state == "ready"
    background = site.background
    background._work.merge.pause()
    thread = threading.Thread(target=background._run)
    thread.start()
    site.until("paused")
    assert site.image() == site.job.new
    background.stop()
    thread.join()
    assert background.status().state == "stopped"
    assert background.begun
    assert not background.complete
    background.start()
    site.until("complete")


def test_an_unexpected_error_is_a_failure_too(site: Site) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    site.slot.sync = broken  # type: ignore[method-assign]
    site.background.start()
    site.until("failed")
    assert "ZeroDivisionError" in site.background.status().error


def test_what_is_settled_can_be_read_elsewhere(site: Site) -> None:
    size = site.view.size
    assert not site.view.settled(0, size)
    before = {place.where for _, _, place in site.view.runs(0, size)}
    assert {Where.SOURCE, Where.STORED} <= before
    for start, length in ((0, size), (100, 5000), (BLOCK, 1)):
        runs = list(site.view.runs(start, length))
        assert [run[0] for run in runs] == [start, *(run[0] + run[1] for run in runs[:-1])]
        assert sum(run[1] for run in runs) == length
    site.background.start()
    site.until("complete")
    assert site.view.settled(0, size)
    assert [place.where for _, _, place in site.view.runs(0, size)] == [Where.BASE]
    elsewhere = MergeView(site.background._work.merge, MemoryMedium(site.job.new, name="again"))
    site.slot.broken = range(size)
    data = bytearray(size)
    elsewhere.read_into(0, memoryview(data))
    assert data == site.job.new


def test_a_base_that_is_the_target_already_is_complete(site: Site) -> None:
    site.background.start()
    site.until("complete")
    work = Work(site.job.merge(site.slot, state()))
    again = Background(work)
    assert again.complete
    assert again.begun
    assert not work.merge.begun
    assert again.blocks(again.status()) == (0, 0)
