# SPDX-License-Identifier: Apache-2.0
"""A power cut at any instant of what changes a store: verify accepts what is left, and the same command finishes.

Every prefix of the recorded calls is visited, with un-flushed writes lost, alone, or torn at 512 bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from chunk_stores import SMALL, Image, content_of, files, image, put

from regraft.engine.medium import Directory
from regraft.formats import pack_index
from regraft.stores.gc import collect
from regraft.stores.repair import repair
from regraft.stores.store import Store, open_store
from regraft.stores.verify import verify
from regraft.testing.crash import Log, MemoryDirectory, World

OLD, NEW = image(1, 2, 3, 0, 4, 5, 1), image(6, 2, 7, 0, 0, 4, 8, 9, 6, tail=300)


def stored(*images: Image) -> World:
    world = World()
    for number, each in enumerate(images):
        put(world.directory, f"v{number}", each)
    return world


def reopened(directory: MemoryDirectory) -> Store:
    return open_store(directory, create=True, limits=SMALL)


def states(world: World, run: Callable[[Directory], object]) -> list[MemoryDirectory]:
    """Every state that a power cut during `run` could leave, the end included."""
    log = Log(world)
    run(log.directory)
    return [state.directory for state in log.states()]


def check(store: Store, **expected: Image) -> None:
    """The store is sound and has these images, down to their last byte."""
    report = verify(store, full=True, workers=1, limits=SMALL)
    assert report.sound, report.damage
    assert report.bad == 0
    for name, wanted in expected.items():
        assert content_of(store, name) == wanted.content


def test_a_clone_into_no_store_yet() -> None:
    found = states(World(), lambda directory: put(directory, "new", NEW))
    assert len(found) > 50
    for directory in found:
        store = reopened(directory)
        complete = "new" in store.images()
        check(store, **({"new": NEW} if complete else {}))
        outcome = put(store, "new", NEW)
        assert outcome.unchanged == complete
        check(store, new=NEW)
        assert store.partials() == []


def test_a_clone_beside_another_image() -> None:
    fetched = set()
    for directory in states(stored(OLD), lambda directory: put(directory, "new", NEW)):
        store = reopened(directory)
        check(store, v0=OLD)
        outcome = put(store, "new", NEW)
        fetched.add(outcome.fetched)
        check(store, v0=OLD, new=NEW)
    assert min(fetched) == 0  # all was recorded
    assert len(fetched) > 2  # part of it was: what is recorded is not fetched again


def test_a_clone_that_takes_the_name_of_another_image() -> None:
    for directory in states(stored(OLD), lambda directory: put(directory, "v0", NEW, replace=True)):
        store = reopened(directory)
        assert content_of(store, "v0") in (OLD.content, NEW.content)
        put(store, "v0", NEW, replace=True)
        check(store, v0=NEW)


def interrupted() -> World:
    """Two images, one of them to be removed, what a cut in a clone left, and waste."""
    cut = states(stored(OLD, NEW), lambda directory: put(directory, "third", image(1, 20, 21, 22, 23, 24, 25)))
    partial = [d for d in cut if "third.partial" in d.files and b"RGGR" in d.files.get("00000004.index", _NONE).content]
    world = World(directory=partial[len(partial) // 2])
    reopened(world.directory).remove("v1")
    return world


_NONE = MemoryDirectory().create("none")


def test_a_collection() -> None:
    world = interrupted()
    before = sum(map(len, files(reopened(world.copy().directory)).values()))
    found = states(world, lambda directory: collect(open_store(directory, limits=SMALL), limits=SMALL))
    sizes = set()
    for directory in found:
        store = reopened(directory)
        check(store, v0=OLD)
        collect(store, limits=SMALL)
        check(store, v0=OLD)
        sizes.add(sum(map(len, files(store).values())))
        put(store, "third", image(1, 20, 21, 22, 23, 24, 25))
        check(store, v0=OLD, third=image(1, 20, 21, 22, 23, 24, 25))
    assert max(sizes) < before


def test_a_compaction() -> None:
    world = stored(image(1, 2, 3, 4, 5, 6, 7, 8), image(1, 7, 30, 31, 32))
    reopened(world.directory).remove("v0")
    kept = image(1, 7, 30, 31, 32)
    copied = []
    found = states(
        world, lambda directory: copied.append(collect(open_store(directory, limits=SMALL), limits=SMALL).copied)
    )
    assert copied[0] > 0
    for directory in found:
        store = reopened(directory)
        check(store, v1=kept)
        collect(store, limits=SMALL)
        check(store, v1=kept)


@pytest.mark.parametrize("pinned", [False, True])
def test_a_removal(pinned: bool) -> None:
    world = stored(OLD, NEW)
    if pinned:
        reopened(world.directory).pin("v0")
    for directory in states(world, lambda directory: open_store(directory, limits=SMALL).remove("v0", force=True)):
        store = reopened(directory)
        check(store, v1=NEW)
        if "v0" in store.images():
            store.remove("v0", force=True)
        assert store.images() == ["v1"]
        assert not store.pinned("v0")
        collect(store, limits=SMALL)
        check(store, v1=NEW)


def test_a_repair() -> None:
    world = stored(OLD)
    pack = world.directory.files["00000001.pack"]
    for block in (0, 2):
        pack.content[4096 * block] ^= 1
    broken = reopened(world.directory)
    assert not verify(broken, full=True, limits=SMALL).sound

    def mend(directory: Directory) -> object:
        return repair(open_store(directory, limits=SMALL), "v0", OLD.recipe, [OLD.source()], workers=1, limits=SMALL)

    for directory in states(world, mend):
        store = reopened(directory)
        assert set(verify(store, limits=SMALL).damage) <= {"v0"}
        mend(directory)
        check(store, v0=OLD)


def test_taking_damaged_chunks_out() -> None:
    world = stored(OLD)
    world.directory.files["00000001.pack"].content[4100] ^= 1
    for directory in states(world, lambda directory: verify(open_store(directory, limits=SMALL), full=True)):
        store = reopened(directory)
        report = verify(store, full=True, limits=SMALL)
        assert list(report.damage) == ["v0"]
        put(store, "v0", OLD)
        check(store, v0=OLD)


def test_a_pin() -> None:
    for directory in states(stored(OLD), lambda directory: open_store(directory, limits=SMALL).pin("v0")):
        store = reopened(directory)
        check(store, v0=OLD)
        store.pin("v0")
        assert store.pinned("v0")


def test_the_order_of_writing_is_what_keeps_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the sync between chunks and record, a record can promise what a cut took: the laboratory finds it."""
    from regraft.stores import packs

    def hasty(self: packs.PackWriter) -> None:
        pending, self._pending = self._pending, [[] for _ in self._pending]
        for number, records in enumerate(pending):
            if records:
                self._append(number, sorted(records))

    monkeypatch.setattr(packs.PackWriter, "_flush", hasty)
    found = states(World(), lambda directory: put(directory, "new", NEW))
    monkeypatch.undo()
    bad = [verify(reopened(directory), full=True, limits=SMALL).bad for directory in found]
    assert max(bad) > 0


def test_an_index_that_grows_is_always_a_prefix() -> None:
    for directory in states(World(), lambda directory: put(directory, "new", NEW)):
        for name, medium in directory.files.items():
            if name.endswith(".index") and len(medium.content) > 60:
                try:
                    index = pack_index.parse(medium.content)
                except Exception:
                    continue
                for row in range(len(index)):
                    start = 4096 * index.blocks[row]
                    data = directory.files[name.replace("index", "pack")].content[start : start + index.lengths[row]]
                    assert index.algorithm.of(data) == index.digests[row]
