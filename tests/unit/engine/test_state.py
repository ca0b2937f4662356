# SPDX-License-Identifier: Apache-2.0
"""What an update keeps beside its target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from images import small_recipe, small_seed
from loops import loop_device

from regraft.engine.state import Journal, State, identity_of, state_of
from regraft.errors import MediumError
from regraft.formats import journal as journal_format
from regraft.limits import DEFAULT
from regraft.testing.crash import MemoryDirectory
from regraft.testing.memory import MemoryMedium

IMAGE = bytes(range(256)) * 40
RECIPE = small_recipe(IMAGE)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def rows(state: State) -> list[int]:
    assert isinstance(state.directory, MemoryDirectory)
    content = state.directory.files[state.journal_name].content
    flags, _ = journal_format.parse(content, identity_of(RECIPE), len(RECIPE.table))
    return [row for row, flag in enumerate(flags) if flag]


def test_records_come_after_a_time_or_many_bytes() -> None:
    state, clock = State(MemoryDirectory(), "slot"), Clock()
    limits = replace(DEFAULT, journal_interval=1.0, journal_bytes=3000)
    journal = Journal(state, RECIPE, MemoryMedium(IMAGE), limits=limits, clock=clock)
    journal.begin()
    journal.done(0, 1)
    assert rows(state) == []
    clock.now = 1.0
    journal.done(1, 1)
    assert rows(state) == [0, 1]
    journal.done(5, 2)
    assert rows(state) == [0, 1]
    journal.done(7, 1)
    assert rows(state) == [0, 1, 5, 6, 7]
    journal.done(3, 1)
    journal.flush()
    assert rows(state) == [0, 1, 3, 5, 6, 7]
    journal.remove()
    assert state.directory.files == {}  # type: ignore[attr-defined]


def test_the_target_is_synced_before_a_record_counts() -> None:
    order: list[str] = []

    class Target(MemoryMedium):
        def sync(self) -> None:
            order.append(f"sync with {len(rows(state))} recorded")

    state = State(MemoryDirectory(), "slot")
    journal = Journal(state, RECIPE, Target(IMAGE))
    journal.begin()
    journal.done(0, 4)
    journal.flush()
    journal.flush()  # nothing new, nothing to sync
    assert order == ["sync with 0 recorded"]
    assert rows(state) == [0, 1, 2, 3]


def test_after_a_failed_sync_nothing_is_recorded_any_more() -> None:
    class Target(MemoryMedium):
        failures = 1

        def sync(self) -> None:  # as of Linux: the error is told once, and the pages are dropped
            self.failures -= 1
            if self.failures == 0:
                raise MediumError("Input/output error")

    state = State(MemoryDirectory(), "slot")
    journal = Journal(state, RECIPE, Target(IMAGE))
    journal.begin()
    journal.done(0, 4)
    with pytest.raises(MediumError):
        journal.flush()
    journal.done(4, 1)  # by another thread, written before the sync failed
    with pytest.raises(MediumError):
        journal.flush()
    assert rows(state) == []


def test_a_second_run_continues_and_appends() -> None:
    state = State(MemoryDirectory(), "slot")
    first = Journal(state, RECIPE, MemoryMedium(IMAGE))
    assert not first.resumed
    first.begin()
    first.done(2, 2)
    first.flush()
    first.close()
    second = Journal(state, RECIPE, MemoryMedium(IMAGE))
    assert second.resumed
    assert [row for row, flag in enumerate(second.finished) if flag] == [2, 3]
    second.begin()
    second.done(9, 1)
    second.flush()
    assert rows(state) == [2, 3, 9]


@pytest.mark.parametrize("damage", ["other", "cut", "empty", "large"])
def test_a_journal_that_cannot_be_used_is_begun_anew(damage: str) -> None:
    state = State(MemoryDirectory(), "slot")
    old = Journal(state, small_recipe(IMAGE + b"more") if damage == "other" else RECIPE, MemoryMedium(IMAGE))
    old.begin()
    old.done(0, 5)
    old.flush()
    files = state.directory.files  # type: ignore[attr-defined]
    medium = files[state.journal_name]
    if damage in ("cut", "empty"):
        medium.resize(20 if damage == "cut" else 0)
    limits = replace(DEFAULT, journal_size=medium.size - 1) if damage == "large" else DEFAULT
    journal = Journal(state, RECIPE, MemoryMedium(IMAGE), limits=limits)
    assert not journal.resumed
    assert not any(journal.finished)
    journal.begin()
    assert rows(state) == []


def test_two_recipes_share_an_identity_only_if_they_are_the_same() -> None:
    assert identity_of(RECIPE) == identity_of(small_recipe(IMAGE))
    others = [small_recipe(IMAGE[:-1]), small_recipe(IMAGE, 999), small_recipe(b"\1" + IMAGE[1:])]
    others += [replace(RECIPE, identity=b"another header")]
    assert len({identity_of(recipe) for recipe in [RECIPE, *others]}) == 5


def test_a_journal_without_state_records_nothing() -> None:
    journal = Journal(None, RECIPE, MemoryMedium(IMAGE))
    journal.begin()
    journal.done(0, 1)
    journal.flush()
    journal.remove()
    assert not journal.resumed


def test_the_state_of_a_file_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "image")
    for name in ("image", "link"):
        state = state_of(str(tmp_path / name))
        assert state is not None
        assert state.journal_name == "image.regraft.journal"
        state.keep_index(small_seed(IMAGE).index)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.regraft.index", "link"]


def test_the_state_of_a_device_lies_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "backing").write_bytes(bytes(8192))
    monkeypatch.setenv("REGRAFT_STATE", str(tmp_path / "state"))
    with loop_device(tmp_path / "backing") as path:
        assert state_of(path, create=False) is None
        state = state_of(path)
        assert state is not None
        assert state.stem == path.strip("/").replace("/", "-")
        state.keep_index(small_seed(IMAGE).index)
        found = state_of(path, create=False)
        assert found is not None
        assert found.load_index() == small_seed(IMAGE).index
        state.drop_index()
        assert found.load_index() is None
        state.drop_index()


@pytest.mark.parametrize("content", [b"", b"RGINDEX\x01 and nothing else", bytes(100)])
def test_a_damaged_index_is_no_index(content: bytes, tmp_path: Path) -> None:
    state = state_of(str(tmp_path / "image"))
    assert state is not None
    assert state.load_index() is None
    (tmp_path / state.index_name).write_bytes(content)
    assert state.load_index() is None


def test_an_index_behind_a_link_is_no_index(tmp_path: Path) -> None:
    state = state_of(str(tmp_path / "image"))
    assert state is not None
    (tmp_path / state.index_name).symlink_to(tmp_path / "elsewhere")
    assert state.load_index() is None
