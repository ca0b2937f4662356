# SPDX-License-Identifier: Apache-2.0
"""A power cut at any instant of a merge: the same call goes on, and the base ends up as the new image.

The slow suite visits at least 200,000 states for each kind of plan, or REGRAFT_STATES, the quick one some thousands.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from images import pack
from merges import Builder, Job, blocks_job, mixed_job, state

from regraft import kernels
from regraft.build import zchunk as packer
from regraft.engine import order as ordering
from regraft.engine.merge import Merge
from regraft.engine.merge_view import MergeView
from regraft.engine.seeds import index_medium
from regraft.formats.merge_state import State
from regraft.limits import DEFAULT
from regraft.model import Algorithm
from regraft.testing.crash import World
from regraft.testing.cuts import CutError, Report, Rules, survey
from regraft.testing.memory import MemoryMedium

STATES = int(os.environ.get("REGRAFT_STATES", "200000"))

BLOCK = 512
SMALL = replace(DEFAULT, merge_batch=6 * BLOCK, batch=3 * BLOCK)


def replacing_job(seed: int) -> Job:
    """As a dm-update file makes: new content for some blocks, a few zeros, the rest stays; some copies in place."""
    chance = random.Random(seed)
    builder = Builder(chance.randbytes(40 * BLOCK))
    while len(builder.new) < len(builder.old):
        at, kind = len(builder.new), chance.random()
        if kind < 0.5:
            builder.copy(at, BLOCK)
        elif kind < 0.9:
            builder.data(chance.randbytes(BLOCK))
        else:
            builder.zero(BLOCK)
    return builder.job()


def cyclic_job(seed: int) -> Job:
    """As a COW file makes: copies and exclusive ors that wait for each other, rotations and swaps."""
    chance = random.Random(seed)
    kind = seed % 4
    old = chance.randbytes(32 * BLOCK)
    if kind == 0:
        return mixed_job(chance, 32, BLOCK)
    if kind == 1:
        return blocks_job(old, [(block + 7) % 32 for block in range(32)], BLOCK)
    if kind == 2:
        return blocks_job(old, [block ^ 1 for block in range(32)], BLOCK, alternatives=False)
    builder = Builder(old, alternatives=False)
    for block in range(32):  # every block needs its own old content and a neighbour's half
        builder.xor(min(block * BLOCK + chance.choice((0, 256)), len(old) - BLOCK), chance.randbytes(BLOCK))
    return builder.job()


def cut_mark() -> bytes:
    """Bytes before the last of which zchunk's chunker cuts, wherever they are."""
    data = random.Random(1).randbytes(1 << 19)
    (first, *_) = kernels.zck_cuts(data, final=False)
    return data[first - 48 : first + 1]


def zchunk_job(seed: int) -> Job:
    """A zchunk artifact over its own base: chunks of all lengths, rotated, swapped, changed and new."""
    chance = random.Random(seed)
    pieces = [chance.randbytes(chance.randint(8192, 9000)) + cut_mark() for _ in range(10)]
    old = b"".join(pieces)
    new = [*pieces[3:], *pieces[:3]] if seed % 2 else [pieces[number ^ 1] for number in range(10)]
    new[chance.randrange(10)] = chance.randbytes(8500) + cut_mark()
    new[0:0] = [chance.randbytes(300)] if seed % 3 == 0 else []
    image = b"".join(new)
    artifact = pack(image, packer.Options())
    plan = ordering.onto(artifact.recipe, "slot", index_medium(MemoryMedium(old), Algorithm.SHA256))
    return Job(old, image, plan, artifact.content)


def runner(job: Job, window: int, merge: Callable[..., Merge] | None = None):  # type: ignore[no-untyped-def]
    def run(target, directory) -> None:  # type: ignore[no-untyped-def]
        assert (merge or job.merge)(target, directory, window=window, limits=SMALL).run()

    def check(world: World) -> None:
        assert world.target.content[: len(job.new)] == job.new

    return run, check


def visit(make: Callable[[int], Job], windows: list[int], states: int, *, again: int) -> Report:
    """Plans of one kind, one after the other, until so many states were visited; some by many windows, some by few."""
    total = Report()
    seed = 0
    while total.states < states:
        job = make(seed)
        run, check = runner(job, windows[seed // 4 % len(windows)])
        left = states - total.states
        found = survey(World(job.medium()), run, check, rules=Rules(seed=seed), again=again, most=left)
        total.states += found.states
        total.cuts_in_restarts += found.cuts_in_restarts
        seed += 1
    return total


KINDS = {
    "replacing": (replacing_job, [4 * BLOCK], 0),
    "cyclic": (cyclic_job, [8 * BLOCK, 33 * BLOCK], 0),
    "zchunk": (zchunk_job, [20 << 10, 192 << 10], 0),
    "resume": (cyclic_job, [8 * BLOCK, 33 * BLOCK], 30),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_power_cut_is_survived(kind: str) -> None:
    make, windows, again = KINDS[kind]
    assert visit(make, windows, 1500, again=min(again, 3)).states >= 1500


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_very_many_power_cuts_are_survived(kind: str) -> None:
    make, windows, again = KINDS[kind]
    report = visit(make, windows, STATES, again=again)
    assert report.states >= STATES
    assert report.cuts_in_restarts > 0 or not again


def test_a_file_that_grows_or_shrinks_is_no_exception() -> None:
    for seed in range(2):
        chance = random.Random(seed)
        builder = Builder(chance.randbytes(20 * BLOCK))
        for _ in range(12 if seed else 28):
            builder.copy(chance.randrange(19) * BLOCK + 100, BLOCK)
        job = builder.job()
        run, check = runner(job, 30 * BLOCK)
        report = survey(World(job.medium(device=False)), run, check, most=1000)
        assert report.states > 100


def test_batches_computed_ahead_are_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Merge, "ahead", 0)
    for make in (replacing_job, cyclic_job):
        job = make(0)
        run, check = runner(job, 8 * BLOCK)
        assert survey(World(job.medium()), run, check, most=600).states > 100


def test_every_read_after_a_cut_is_of_the_new_image() -> None:
    job = cyclic_job(0)
    image = memoryview(bytearray(len(job.new)))

    def run(target, directory) -> None:  # type: ignore[no-untyped-def]
        merge = job.merge(target, directory, window=33 * BLOCK, limits=SMALL)
        view = MergeView(merge)
        assert view.read_into(0, image) == len(job.new)
        assert image == job.new
        merge.run()

    survey(World(job.medium()), run, runner(job, 0)[1], most=1000)


def test_the_plans_are_what_they_are_meant_to_be() -> None:
    """Windows, several of them, conversions, direct batches: all of it is cut through."""
    found = []
    for seed in range(8):
        job, window = cyclic_job(seed), [8 * BLOCK, 33 * BLOCK][seed // 4]
        found.append(ordering.forecast(job.plan, ordering.order(job.plan, window=window, limits=SMALL)))
    assert sum(one.windows for one in found) >= 8
    assert max(one.windows for one in found) >= 3
    assert sum(one.converted for one in found) >= 1
    assert any(one.batches > one.windows for one in found)
    for window in (20 << 10, 192 << 10):
        found = [zchunk_job(seed) for seed in (0, 1)]
        small, large = (ordering.forecast(job.plan, ordering.order(job.plan, window=window)) for job in found)
        assert small.windows or small.converted
        assert bool(large.converted) == (window < 100_000)
        assert large.direct


class Hasty(Merge):
    """Writes a window in place before it is durable in the journal."""

    def _journaled(self, batch: int) -> None:
        window = 1 - self.journal.current.window
        length, digest = self._keep(batch, window)
        self._gate.move(batch, self._window_of(self.schedule, batch, self.journal.window_at(window)))
        self._install(batch)
        self.base.sync()
        self.journal.record(batch=batch, state=State.JOURNALED, window=window, length=length, digest=digest)


class Unsynced(Merge):
    """Records a direct batch that is not durable."""

    def _direct(self, batch: int) -> None:
        sync, self.base.sync = self.base.sync, lambda: None  # type: ignore[method-assign]
        try:
            super()._direct(batch)
        finally:
            self.base.sync = sync  # type: ignore[method-assign]


class Forgetful(Merge):
    """Records the next window though the one before it is not durable in the base."""

    def _journaled(self, batch: int) -> None:
        self._unsynced = None
        super()._journaled(batch)


class OneWindow(Merge):
    """Puts each window where the one before it still is."""

    def _keep(self, batch: int, window: int) -> tuple[int, bytes]:
        self.journal.window_at = lambda _: replace(self.journal.current, window=0).window_at  # type: ignore[method-assign]
        return super()._keep(batch, window)


BROKEN = {
    Hasty: cyclic_job(2),
    Unsynced: replacing_job(1),
    Forgetful: blocks_job(random.Random(2).randbytes(24 * BLOCK), [*range(1, 24), 23], BLOCK),
    OneWindow: blocks_job(random.Random(2).randbytes(24 * BLOCK), [*range(1, 24), 23], BLOCK),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_merger_is_caught(broken: type[Merge]) -> None:
    """The laboratory must be able to fail."""
    job = BROKEN[broken]

    def merge(target, directory, **options) -> Merge:  # type: ignore[no-untyped-def]
        made = job.merge(target, directory, **options)
        made.__class__ = broken
        return made

    run, check = runner(job, 8 * BLOCK, merge)
    with pytest.raises(CutError, match="power cut after call"):
        survey(World(job.medium(), state()), run, check)
