# SPDX-License-Identifier: Apache-2.0
"""The executor of merges: what it refuses before the first write, how it stops, fails, goes on and tells of it."""

from __future__ import annotations

import random
from dataclasses import replace
from threading import Thread

import pytest
from merges import JOURNAL, Builder, Job, blocks_job, state

from regraft.engine.merge import Merge
from regraft.engine.merge_journal import MergeJournal, open_journal
from regraft.engine.merge_status import Where
from regraft.engine.merge_view import MergeView
from regraft.engine.throttle import Throttle
from regraft.errors import DigestError, MediumError, SourceError, StateError, TooSmallError, VerificationError
from regraft.formats.merge_state import Record, State
from regraft.limits import DEFAULT
from regraft.model import Digest
from regraft.model.buffers import Buffer
from regraft.testing.memory import MemoryMedium

BLOCK = 512
OLD = random.Random(9).randbytes(32 * BLOCK)
SMALL = replace(DEFAULT, merge_batch=4 * BLOCK, batch=2 * BLOCK)
SWAPS = [block ^ 1 for block in range(32)]


class Failing(MemoryMedium):
    """Fails from some call on, until `heal`. `lose`: what was written since the last sync is gone when one fails."""

    def __init__(self, content: Buffer) -> None:
        super().__init__(content, name="slot", device=True)
        self.writes = self.syncs = 1 << 30
        self.lose = False
        self._durable = bytes(self.content)

    def heal(self) -> None:
        self.writes = self.syncs = 1 << 30

    def write(self, offset: int, data: Buffer) -> None:
        self.writes -= 1
        if self.writes < 0:
            raise MediumError("write slot: Input/output error")
        super().write(offset, data)

    def sync(self) -> None:
        self.syncs -= 1
        if self.syncs < 0:
            if self.lose:
                self.content[:] = self._durable
            raise MediumError("sync slot: Input/output error")
        self._durable = bytes(self.content)


def swapping(**options: bool) -> Job:
    return blocks_job(OLD, SWAPS, BLOCK, **options)


# -- before the first write --------------------------------------------------------------------------------------------


def test_a_base_with_another_digest_is_refused_and_left_alone() -> None:
    job, directory = swapping(), state()
    base = MemoryMedium(bytes(len(OLD)), device=True)
    with pytest.raises(DigestError, match="not the base of this plan"):
        job.merge(base, directory).run()
    assert base.content == bytes(len(OLD))
    assert not directory.files[JOURNAL].content


def test_a_base_that_does_not_give_the_rows_is_refused_if_nothing_else_does() -> None:
    job = swapping(alternatives=False)
    content = bytearray(OLD)
    content[5 * BLOCK] ^= 1
    base = MemoryMedium(content, device=True)
    with pytest.raises(SourceError, match="1 of 32 rows"):
        job.merge(base, state(), base_digest=None).run()
    assert base.content == content


def test_rows_that_the_base_does_not_give_come_from_stored_bytes() -> None:
    job = swapping()
    content = bytearray(OLD)
    content[5 * BLOCK] ^= 1
    base = MemoryMedium(content, device=True)
    base.bad.append((9 * BLOCK, 9 * BLOCK + 1))
    merge = job.merge(base, state(), base_digest=None)
    merge.prepare()
    assert sum(merge.schedule.choice) == 2
    base.bad.clear()  # a write heals a sector
    assert merge.run()
    assert base.content == job.new


def test_a_base_of_which_nothing_is_known_is_refused() -> None:
    job = swapping(digests=False)
    with pytest.raises(VerificationError, match="whether slot is the base"):
        job.merge(job.medium(), state(), base_digest=None).run()


def test_what_nothing_is_known_of_can_be_done_without() -> None:
    job = swapping(digests=False)
    job.plan = replace(job.plan, recipe=replace(job.plan.recipe, digest=None))
    base = job.medium()
    assert job.merge(base, state(), base_digest=None, unverified=True).run()
    assert base.content == job.new


def test_an_image_of_which_nothing_is_known_is_refused() -> None:
    job = swapping(digests=False)
    job.plan = replace(job.plan, recipe=replace(job.plan.recipe, digest=None))
    with pytest.raises(VerificationError, match="nothing covers"):
        job.merge(job.medium(), state()).run()


def test_a_device_that_is_too_small_is_refused() -> None:
    builder = Builder(OLD)
    for _ in range(40):
        builder.copy(0, BLOCK)
    job = builder.job()
    base = MemoryMedium(OLD, device=True)
    with pytest.raises(TooSmallError):
        job.merge(base, state()).run()
    assert base.content == OLD


def test_a_journal_partition_that_is_too_small_is_refused() -> None:
    job = swapping()
    journal = MergeJournal(MemoryMedium(bytes(9000), name="p7", device=True))
    base = job.medium()
    with pytest.raises(TooSmallError, match="p7"):
        Merge(job.plan, base, job.blobs, journal, base_digest=Digest.of(OLD)).run()
    assert base.content == OLD


# -- going on ----------------------------------------------------------------------------------------------------------


def test_a_partition_serves_as_journal_of_one_merge_after_another() -> None:
    partition = MemoryMedium(random.Random(1).randbytes(1 << 18), name="p7", device=True)
    first, second = swapping(), blocks_job(swapping().new, [31, *range(31)], BLOCK)
    base = first.medium()
    for job in (first, second):
        assert Merge(job.plan, base, job.blobs, MergeJournal(partition), base_digest=Digest.of(job.old)).run()
        assert base.content == job.new


def test_a_merge_that_is_complete_is_not_done_again() -> None:
    job, directory = swapping(), state()
    base = job.medium()
    assert job.merge(base, directory).run()
    again = job.merge(base, directory)
    base.write = None  # type: ignore[assignment,method-assign]
    assert again.run()
    assert again.status().state == "complete"


def test_a_complete_journal_beside_the_old_image_begins_anew() -> None:
    job, directory = swapping(), state()
    assert job.merge(job.medium(), directory).run()
    base = job.medium()
    assert job.merge(base, directory).run()
    assert base.content == job.new


def test_an_unfinished_merge_of_another_plan_is_not_lost() -> None:
    job, directory = swapping(), state()
    base = job.medium()
    stopped(job, base, directory)
    other = blocks_job(OLD, [*range(1, 32), 0], BLOCK)
    with pytest.raises(StateError, match="another merge"):
        other.merge(base, directory).run()
    with pytest.raises(StateError, match="another base"):
        job.merge(base, directory, base_digest=Digest.of(b"else")).run()
    assert job.merge(base, directory).run()
    assert base.content == job.new


def stopped(job: Job, base: MemoryMedium, directory, batches: int = 3) -> Merge:  # type: ignore[no-untyped-def]
    """A merge that stopped after a few batches."""
    merge = job.merge(base, directory, window=4 * BLOCK, limits=SMALL)
    merge.prepare()
    move = merge._gate.move

    def moved(position, window=None) -> None:  # type: ignore[no-untyped-def]
        move(position, window)
        if position == batches:
            merge.stop()

    merge._gate.move = moved  # type: ignore[method-assign]
    assert not merge.run()
    assert merge.status().state == "stopped"
    assert merge.status().batch == batches
    return merge


def test_a_journal_of_another_device_is_found_out() -> None:
    job, directory = swapping(), state()
    stopped(job, job.medium(), directory)
    other = job.medium()
    with pytest.raises(StateError, match="says was merged"):
        job.merge(other, directory).run()
    assert other.content == OLD


def test_a_window_that_is_damaged_is_not_used() -> None:
    """It was not durable, so its record counts for nothing: the one before holds, and the window is computed again."""
    job, directory = swapping(), state()
    base = job.medium()
    latest = interrupted(job, base, directory)
    directory.files[JOURNAL].content[latest.window_at + 7] ^= 1
    assert job.merge(base, directory, limits=SMALL).run()
    assert base.content == job.new


def test_records_of_which_none_can_be_used_are_an_error() -> None:
    job, directory = swapping(), state()
    base = job.medium()
    latest = interrupted(job, base, directory)
    directory.files[JOURNAL].content[latest.window_at + 7] ^= 1
    directory.files[JOURNAL].content[4096 * ((latest.sequence + 1) % 2)] ^= 1
    with pytest.raises(StateError, match="window is damaged"):
        job.merge(base, directory, limits=SMALL).run()
    assert base.content == OLD


def test_without_digests_of_rows_nothing_is_computed_again_where_a_damaged_window_may_lie_in_part() -> None:
    job, directory = swapping(digests=False), state()
    base = job.medium()
    latest = interrupted(job, base, directory, writes=1)
    directory.files[JOURNAL].content[latest.window_at + 7] ^= 1
    before = bytes(base.content)
    with pytest.raises(StateError, match="window is damaged"):
        job.merge(base, directory, limits=SMALL).run()
    assert base.content == before


def interrupted(job: Job, base: MemoryMedium, directory, writes: int = 0) -> Record:  # type: ignore[no-untyped-def]
    """The record of a process that ended when it had made so many writes of its first window in place."""
    write, made = base.write, 0

    def ends(offset: int, data: Buffer) -> None:
        nonlocal made
        if made == writes:
            raise KeyboardInterrupt
        made += 1
        write(offset, data)

    base.write = ends  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        job.merge(base, directory, window=64 * BLOCK, limits=SMALL).run()
    base.write = write  # type: ignore[method-assign]
    latest = open_journal(directory, JOURNAL).records()[0]
    assert latest.state is State.JOURNALED
    return latest


def test_the_schedule_is_not_believed_when_damaged() -> None:
    job, directory = swapping(), state()
    base = job.medium()
    stopped(job, base, directory)
    directory.files[JOURNAL].content[8192 + 40] ^= 1
    with pytest.raises(StateError, match="schedule is damaged"):
        job.merge(base, directory).run()


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lose", [False, True], ids=["", "and loses what was written"])
@pytest.mark.parametrize("process", ["same", "new"])
@pytest.mark.parametrize("after", range(12))
@pytest.mark.parametrize("kind", ["journaled", "direct"])
def test_a_sync_that_fails_stops_the_merge_which_goes_on_when_told(
    after: int, process: str, lose: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Merge, "ahead", 0)
    job, directory = swapping() if kind == "journaled" else blocks_job(OLD, [31] * 32, BLOCK), state()
    base = Failing(OLD)
    base.syncs, base.lose = after, lose
    merge = job.merge(base, directory, window=4 * BLOCK, limits=SMALL)
    try:
        merge.run()
    except MediumError:
        assert merge.status().state == "failed"
        assert "Input/output error" in merge.status().error
        image = bytearray(len(job.new))
        MergeView(merge).read_into(0, memoryview(image))
        assert image == job.new
    base.heal()
    if process == "new":
        merge = job.merge(base, directory, limits=SMALL)
        merge.prepare()
    assert merge.run()
    assert base.content == job.new
    assert merge.status() == replace(merge.status(), state="complete", error="", done=len(job.new))


@pytest.mark.parametrize("after", range(0, 40, 3))
def test_a_write_that_fails_stops_the_merge_with_its_cause_in_the_journal(after: int) -> None:
    job, directory = swapping(), state()
    base = Failing(OLD)
    base.writes = after
    merge = job.merge(base, directory, window=4 * BLOCK, limits=SMALL)
    try:
        merge.run()
    except MediumError:
        record = open_journal(directory, JOURNAL).records()[0]
        assert (record.status, record.words) == (50, "write slot: Input/output error")
        later = job.merge(base, directory)
        later.prepare()
        assert later.status().state == "failed"
        assert "Input/output" in later.status().error
    base.heal()
    assert merge.run()
    assert base.content == job.new


def test_bytes_that_go_bad_after_the_merge_are_written_once_more() -> None:
    job = swapping()
    base = job.medium()
    forget = base.forget

    def rot() -> None:
        base.content[3 * BLOCK] ^= 1
        base.forget = forget  # type: ignore[method-assign]

    base.forget = rot  # type: ignore[method-assign]
    assert job.merge(base, state()).run()
    assert base.content == job.new


def test_bytes_that_stay_bad_are_an_error() -> None:
    job = swapping(alternatives=False)
    base = job.medium()
    base.forget = lambda: base.content.__setitem__(0, base.content[0] ^ 1)  # type: ignore[method-assign]
    with pytest.raises(DigestError, match="reads back wrong"):
        job.merge(base, state()).run()


def test_a_plan_with_a_wrong_digest_of_the_whole_is_an_error() -> None:
    for digests in (True, False):
        job = swapping(digests=digests)
        with pytest.raises(DigestError, match="digest"):
            job.merge(job.medium(), state(), digest=Digest.of(b"else")).run()


# -- steering and looking ----------------------------------------------------------------------------------------------


def test_a_pause_lasts_until_it_is_ended() -> None:
    job = swapping()
    base = job.medium()
    merge = job.merge(base, state(), window=4 * BLOCK, limits=SMALL)
    merge.pause()
    thread = Thread(target=merge.run)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    assert merge.status().state == "paused"
    assert base.content == OLD
    merge.go_on()
    thread.join(20)
    assert base.content == job.new


def test_a_stop_ends_a_pause_and_holds_until_it_is_taken_back() -> None:
    job = swapping()
    merge = job.merge(job.medium(), state(), window=4 * BLOCK, limits=SMALL)
    merge.stop()
    assert not merge.run()
    merge.go_on()
    assert merge.run()


def test_where_says_at_any_moment_where_the_right_bytes_are() -> None:
    builder = Builder(OLD)
    for source in (1, 0, 2, 9):
        builder.copy(source * BLOCK, BLOCK)
    builder.data(b"d" * BLOCK)
    job, directory = builder.job(), state()
    base = Failing(OLD)
    base.writes = 1
    merge = job.merge(base, directory, window=4 * BLOCK, limits=SMALL)
    merge.prepare()
    assert [merge.where(row).where for row in range(5)] == [
        Where.SOURCE, Where.SOURCE, Where.BASE, Where.SOURCE, Where.STORED,
    ]  # fmt: skip
    assert merge.where(3).offset == 9 * BLOCK
    with pytest.raises(MediumError):
        merge.run()
    places = [merge.where(row) for row in range(5)]
    assert [place.where for place in places] == [Where.WINDOW, Where.WINDOW, Where.BASE, Where.SOURCE, Where.STORED]
    kept = directory.files[JOURNAL].content
    assert kept[places[1].offset : places[1].offset + BLOCK] == OLD[:BLOCK]
    base.heal()
    merge.run()
    assert {merge.where(row).where for row in range(5)} == {Where.BASE}


def test_reads_from_many_threads_are_always_of_the_new_image() -> None:
    chance = random.Random(6)
    source = list(range(32))
    chance.shuffle(source)
    job = blocks_job(OLD, source, BLOCK)
    merge = job.merge(job.medium(), state(), window=6 * BLOCK, limits=SMALL)
    view, wrong, running = MergeView(merge), [], True

    def read(seed: int) -> None:
        own = random.Random(seed)
        while running:
            offset = own.randrange(len(job.new))
            piece = bytearray(own.randint(1, 3 * BLOCK))
            count = view.read_into(offset, memoryview(piece))
            if piece[:count] != job.new[offset : offset + count]:
                wrong.append(offset)

    threads = [Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    assert merge.run()
    running = False
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_view_ends_where_the_image_ends() -> None:
    job = swapping()
    view = MergeView(job.merge(job.medium(), state()))
    assert view.size == len(OLD)
    assert view.read_into(len(OLD) - 10, memoryview(bytearray(100))) == 10
    assert view.read_into(len(OLD) + 10, memoryview(bytearray(100))) == 0


def test_a_patch_is_what_its_codec_names() -> None:
    builder = Builder(OLD, alternatives=False)
    builder.add(0, b"\xff" * BLOCK)
    job = builder.job()
    base = job.medium()
    assert job.merge(base, state()).run()
    assert base.content[:BLOCK] == bytes((byte - 1) % 256 for byte in OLD[:BLOCK])


# -- the throttle ------------------------------------------------------------------------------------------------------


def test_a_rate_is_kept_to() -> None:
    now = 0.0
    throttle = Throttle(1000, clock=lambda: now)
    waits = []
    for _ in range(10):
        waits.append(throttle.wait(500))
        now += waits[-1]
    assert now == pytest.approx(5.0)


def test_work_waits_while_others_are_busy_but_not_for_ever() -> None:
    load = 5.0
    throttle = Throttle(load=2, load_of_system=lambda: load)
    waits = [throttle.wait(1) for _ in range(100)]
    assert sum(waits) > 10
    assert 0.0 in waits
    load = 1.0
    assert throttle.wait(1) == 0
