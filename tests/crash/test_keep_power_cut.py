# SPDX-License-Identifier: Apache-2.0
"""A power cut at any instant while a view keeps what it obtains: the next run reads right, and fetches nothing that was
recorded."""

from __future__ import annotations

import random

import pytest
from images import CountingSource, small_recipe, small_seed

from regraft.engine.keep import KeepFile
from regraft.engine.match import match
from regraft.engine.state import Journal, State, identity_of
from regraft.engine.view import View
from regraft.formats import journal as journal_format
from regraft.model import Recipe
from regraft.testing.crash import Log, World
from regraft.testing.memory import MemoryMedium

CHUNK = 1300
STEM = "kept"
_CHANCE = random.Random(11)
SEED = _CHANCE.randbytes(4 * CHUNK)
IMAGE = _CHANCE.randbytes(6 * CHUNK) + bytes(3 * CHUNK) + SEED + _CHANCE.randbytes(3 * CHUNK + 7)
RECIPE = small_recipe(IMAGE, CHUNK)


def serve(target, directory, *, check: bool) -> CountingSource:  # type: ignore[no-untyped-def]
    """Some reads, recorded now and then, until all is kept and proved; what had to be fetched."""
    source, seed = CountingSource(IMAGE), small_seed(SEED, CHUNK)
    keep = KeepFile(RECIPE, target, State(directory, STEM))
    view = View(match(RECIPE, [("seed", seed.index)]), [seed.medium], [source], keep=keep)
    chance = random.Random(2)
    for _ in range(4):
        offset = chance.randrange(len(IMAGE) - 3000)
        buffer = bytearray(3000)
        view.read_into(offset, memoryview(buffer))
        assert not check or buffer == IMAGE[offset : offset + 3000]
        keep.flush()
    rows = range(len(RECIPE.table))
    view.keep_rows(rows)
    while wrong := keep.prove():
        view.keep_rows(wrong)
    return source


def recorded(world: World, recipe: Recipe) -> set[int]:
    medium = world.directory.files.get(f"{STEM}.journal")
    if medium is None or not medium.content:
        return set()
    try:
        finished, _ = journal_format.parse(medium.content, identity_of(recipe), len(recipe.table))
    except Exception:
        return set()
    return {row for row, flag in enumerate(finished) if flag}


def broken_promises(world: World) -> set[int]:
    bounds = RECIPE.table.bounds
    return {
        row
        for row in recorded(world, RECIPE)
        if world.target.content[bounds[row] : bounds[row + 1]] != IMAGE[bounds[row] : bounds[row + 1]]
    }


def test_every_power_cut_is_survived() -> None:
    log = Log(World(MemoryMedium(name=STEM)))
    serve(log.target, log.directory, check=True)
    visited = 0
    for state in log.states():
        visited += 1
        assert not broken_promises(state)
        covered = recorded(state, RECIPE)
        source = serve(state.target, state.directory, check=True)
        assert state.target.content == IMAGE
        assert not {part.offset // CHUNK for part in source.fetched} & covered, "what was recorded was fetched again"
        assert f"{STEM}.journal" not in state.directory.files
    assert visited > 100


def test_a_second_cut_during_the_second_run_is_survived_too() -> None:
    log = Log(World(MemoryMedium(name=STEM)))
    serve(log.target, log.directory, check=True)
    for state in random.Random(3).sample(list(log.states()), 8):
        again = Log(state.copy())
        serve(again.target, again.directory, check=True)
        for second in again.states():
            serve(second.target, second.directory, check=True)
            assert second.target.content == IMAGE


def test_keeping_that_records_before_it_syncs_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The laboratory must be able to fail."""

    def hasty(self: Journal) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if pending and self._medium is not None:
            record = journal_format.build_record(pending)
            self._medium.write(self._position, record)
            self._medium.sync()
            self._position += len(record)
        self._target.sync()

    monkeypatch.setattr(Journal, "_flush", hasty)
    log = Log(World(MemoryMedium(name=STEM)))
    serve(log.target, log.directory, check=True)
    assert any(broken_promises(state) for state in log.states())
