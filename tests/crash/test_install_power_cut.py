# SPDX-License-Identifier: Apache-2.0
"""A power cut at any instant of an update: the same call continues, and what the journal covers is never fetched again.

Every prefix of the recorded calls is visited, with un-flushed writes lost, alone, or torn at 512 bytes.
"""

from __future__ import annotations

import random

import pytest
from images import CountingSource, small_recipe, small_seed

from regraft.engine import apply as engine
from regraft.engine.state import Journal, State, identity_of
from regraft.formats import journal as journal_format
from regraft.limits import Limits
from regraft.model import Recipe
from regraft.testing.crash import Log, MemoryDirectory, World
from regraft.testing.memory import MemoryMedium

CHUNK = 2000
OFTEN = Limits(journal_bytes=6000, journal_interval=1e9, batch=5000)
STEM = "slot"


def images() -> tuple[bytes, bytes]:
    chance = random.Random(7)
    chunks = [chance.randbytes(CHUNK) for _ in range(48)]
    old = b"".join(chunks)
    order = [0, 1, 2, 12, 4, 5, 20, 21, 8, 3, 10, 11, 9, 13, 14, *range(40, 30, -1), 44, 45, 46]
    new = b"".join(chunks[i] for i in order) + bytes(3 * CHUNK) + chance.randbytes(9 * CHUNK + 123)
    return old, new


def journaled_rows(world: World, recipe: Recipe) -> list[int]:
    medium = world.directory.files.get(f"{STEM}.journal")
    if medium is None:
        return []
    try:
        finished, _ = journal_format.parse(medium.content, identity_of(recipe), len(recipe.table))
    except Exception:
        return []
    return [row for row, flag in enumerate(finished) if flag]


def update(target, directory, recipe: Recipe, old: bytes, new: bytes) -> CountingSource:  # type: ignore[no-untyped-def]
    source = CountingSource(new)
    engine.apply(recipe, [small_seed(old)], [source], target, state=State(directory, STEM), limits=OFTEN, workers=1)
    return source


def worlds(device: bool) -> list[World]:
    old, _ = images()
    content = (old + bytes(24_000))[:120_000] if device else old[:18000]
    fresh = World(MemoryMedium(content, name="slot", device=device))
    known = World(MemoryMedium(content, name="slot", device=device), MemoryDirectory())
    seed = small_seed(old[:18000])
    State(known.directory, STEM).keep_index(seed.index)
    return [fresh, known]


def broken_promises(world: World, recipe: Recipe, new: bytes) -> list[int]:
    """Rows that the journal promises and the target does not hold."""
    bounds = recipe.table.bounds
    return [
        row
        for row in journaled_rows(world, recipe)
        if world.target.content[bounds[row] : bounds[row + 1]] != new[bounds[row] : bounds[row + 1]]
    ]


@pytest.mark.parametrize("device", [True, False], ids=["device", "file"])
def test_every_power_cut_is_survived(device: bool) -> None:
    old, new = images()
    recipe = small_recipe(new, CHUNK)
    visited = 0
    for world in worlds(device):
        log = Log(world.copy())
        update(log.target, log.directory, recipe, old, new)
        for state in log.states():
            visited += 1
            assert not broken_promises(state, recipe, new)
            covered = set(journaled_rows(state, recipe))
            source = update(state.target, state.directory, recipe, old, new)
            assert state.target.content[: len(new)] == new
            fetched = {part.offset // CHUNK for part in source.fetched}
            assert not fetched & covered, "what the journal covers was transferred again"
            assert f"{STEM}.journal" not in state.directory.files
            kept = State(state.directory, STEM).load_index()
            assert kept is not None
            assert kept.digests == recipe.table.digests
    assert visited > 300


@pytest.mark.slow
def test_a_second_cut_during_the_second_run_is_survived_too() -> None:
    old, new = images()
    recipe = small_recipe(new, CHUNK)
    log = Log(worlds(True)[0])
    update(log.target, log.directory, recipe, old, new)
    states = list(log.states())
    for state in random.Random(3).sample(states, 12):
        again = Log(state.copy())
        update(again.target, again.directory, recipe, old, new)
        for second in again.states():
            update(second.target, second.directory, recipe, old, new)
            assert second.target.content[: len(new)] == new


def test_a_journal_that_records_before_it_syncs_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The laboratory must be able to fail: this journal promises what is not yet durable."""

    def hasty(self: Journal) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if pending and self._medium is not None:
            record = journal_format.build_record(pending)
            self._medium.write(self._position, record)
            self._medium.sync()
            self._position += len(record)
        self._target.sync()

    monkeypatch.setattr(Journal, "_flush", hasty)
    old, new = images()
    recipe = small_recipe(new, CHUNK)
    log = Log(worlds(True)[0])
    update(log.target, log.directory, recipe, old, new)
    assert any(broken_promises(state, recipe, new) for state in log.states())
