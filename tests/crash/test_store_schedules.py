# SPDX-License-Identifier: Apache-2.0
"""Clones, collections and readers of one store at the same time, in thousands of orders of their calls."""

from __future__ import annotations

from typing import Any

import pytest
from chunk_stores import SMALL, Image, content_of, image, new_store, put

from regraft.engine import verify as engine_verify
from regraft.engine import write as engine_write
from regraft.engine.medium import Directory
from regraft.errors import BusyError
from regraft.stores.gc import collect
from regraft.stores.store import open_store
from regraft.stores.verify import verify
from regraft.testing.memory import MemoryDirectory, MemoryMedium
from regraft.testing.schedules import Inline, Schedule

OLD, DEAD, NEW, OTHER = image(1, 2, 3, 0, 4), image(5, 6, 7, 8, 3), image(1, 5, 9, 0, 8), image(9, 2, 10, 7)


def copied(directory: MemoryDirectory) -> MemoryDirectory:
    return MemoryDirectory({name: MemoryMedium(medium.content, name=name) for name, medium in directory.files.items()})


@pytest.fixture(scope="module")
def start() -> MemoryDirectory:
    """A store with one image to keep, and chunks of removed ones that a clone may want just when gc drops them."""
    store = new_store()
    put(store, "old", OLD)
    put(store, "dead", DEAD)
    store.remove("dead")
    assert isinstance(store.directory, MemoryDirectory)
    return store.directory


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (engine_write, engine_verify):
        monkeypatch.setattr(module, "ThreadPoolExecutor", Inline)


def cloning(name: str, wanted: Image) -> Any:
    def work(directory: Directory) -> None:
        assert not put(directory, name, wanted).unchanged

    return work


def reading(directory: Directory) -> None:
    for _ in range(2):
        assert content_of(open_store(directory, limits=SMALL), "old") == OLD.content


def collecting(directory: Directory) -> None:
    for _ in range(2):
        try:
            collect(open_store(directory, limits=SMALL), limits=SMALL)
        except BusyError:  # another one runs
            return


def replacing(directory: Directory) -> None:
    put(directory, "spare", NEW)
    try:
        put(directory, "spare", OTHER, replace=True)
        open_store(directory, limits=SMALL).remove("spare")
    except BusyError:
        raise AssertionError("nobody has it open") from None


def play(start: MemoryDirectory, seed: int) -> None:
    directory = copied(start)
    order = Schedule(directory, seed=seed)
    order.actor(cloning("new", NEW))
    order.actor(collecting)
    order.actor(reading)
    if seed % 2:
        order.actor(cloning("other", OTHER))
        order.actor(collecting)
    else:
        order.actor(replacing)
    order.run()
    store = open_store(directory, limits=SMALL)
    expected = {"old": OLD, "new": NEW, **({"other": OTHER} if seed % 2 else {})}
    report = verify(store, full=True, workers=1, limits=SMALL)
    assert report.sound, (seed, report.damage)
    assert report.bad == 0
    assert store.images() == sorted(expected)
    for name, wanted in expected.items():
        assert content_of(store, name) == wanted.content, (seed, name)
    collect(store, limits=SMALL)
    for name, wanted in expected.items():
        assert content_of(store, name) == wanted.content, (seed, name)


def test_no_order_of_some_hundred_loses_a_chunk(start: MemoryDirectory) -> None:
    for seed in range(300):
        play(start, seed)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(10))
def test_no_order_of_ten_thousand_loses_a_chunk(start: MemoryDirectory, part: int) -> None:
    for seed in range(1000 * part, 1000 * part + 1000):
        play(start, seed)


def test_the_same_seed_is_the_same_order(start: MemoryDirectory) -> None:
    orders = []
    for seed in (3, 3, 4):
        schedule = Schedule(copied(start), seed=seed)
        schedule.actor(cloning("new", NEW))
        schedule.actor(collecting)
        schedule.run()
        orders.append(schedule.order)
    assert orders[0] == orders[1] != orders[2]


def test_without_the_intent_a_collection_takes_chunks_from_a_clone(
    start: MemoryDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schedules find what the lock and the intent are there for."""
    from regraft.stores.task import Task

    monkeypatch.setattr(Task, "begin", lambda *_: False)
    monkeypatch.setattr(Task, "_lacks", lambda *_: 0)  # the last look, which would find it
    assert any(loses(start, seed) for seed in range(300))


def loses(start: MemoryDirectory, seed: int) -> bool:
    try:
        play(start, seed)
    except AssertionError:
        return True
    return False


def test_an_open_image_outlives_the_packs_it_was_opened_with() -> None:
    store = new_store()
    put(store, "old", OLD)
    put(store, "dead", image(1, 2, 3, 20, 21, 22, 23, 24))
    with store.image("old") as opened:
        store.remove("dead")
        collect(store, limits=SMALL)
        with pytest.raises(BusyError, match="in use"):
            store.remove("old", force=True)
        data = bytearray(opened.size)
        opened.medium.read_into(0, memoryview(data))
        assert data == OLD.content
    store.remove("old")
