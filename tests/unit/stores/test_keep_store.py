# SPDX-License-Identifier: Apache-2.0
"""A lazy clone: an image is read before it is in the store, and is there once it was read, or completed."""

from __future__ import annotations

import random
import time

import pytest
from chunk_stores import CHUNK, SMALL, Image, content_of, files, image, new_store, put
from images import CountingSource, small_recipe, small_seed

from regraft.engine.match import match
from regraft.engine.read_ahead import ReadAhead
from regraft.engine.view import View
from regraft.errors import BusyError, SpaceError, StateError, TransportError, UnsupportedError
from regraft.model import OpTable, Recipe, Units
from regraft.stores.gc import collect
from regraft.stores.keep import KeepStore, open_keep
from regraft.stores.packs import sound_packs
from regraft.stores.store import Store
from regraft.stores.verify import verify
from regraft.testing.memory import MemoryDirectory, MemoryMedium
from regraft.transports.faults import ErrorAfter

OLD = image(1, 2, 0, 3)
WANTED = image(1, 7, 8, 0, 0, 9, 7, 3, 10, 11, 12, tail=55)


class Lazy:
    """A view of an image whose rows are kept in a store."""

    def __init__(self, store: Store, wanted: Image = WANTED, *, source: CountingSource | None = None, **more) -> None:  # type: ignore[no-untyped-def]
        self.source = source or wanted.source()
        self.words: list[str] = []
        found = open_keep(store, "v", wanted.recipe, limits=store.limits, source="here", **more)
        assert found is not None
        self.keep: KeepStore = found
        seeds = list(more.get("seeds", ()))
        plan = match(wanted.recipe, [(one.medium.name, one.index) for one in seeds])
        self.view = View(plan, [one.medium for one in seeds], [self.source], keep=self.keep, report=self.words.append)

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray(length)
        self.view.read_into(offset, memoryview(data))
        return bytes(data)

    def complete(self) -> None:
        rows = range(len(self.view.plan.table))
        self.view.keep_rows(rows)
        while wrong := self.keep.prove():
            self.view.keep_rows(wrong)

    def close(self) -> None:
        self.view.close()
        self.keep.close()


def fetched(lazy: Lazy) -> set[int]:
    return {part.offset // CHUNK for part in lazy.source.fetched}


def test_what_was_read_is_kept_and_what_is_there_is_not_fetched() -> None:
    store = new_store()
    put(store, "old", OLD)
    lazy = Lazy(store, metadata={"release": b"2"})
    assert lazy.read(0, len(WANTED.content)) == WANTED.content
    assert fetched(lazy) == {1, 2, 5, 8, 9, 10, 11}  # of the two rows of one chunk, one
    assert store.images() == ["old"]
    lazy.complete()
    assert store.images() == ["old", "v"]
    assert store.partials() == []
    assert lazy.read(0, len(WANTED.content)) == WANTED.content
    lazy.close()
    assert content_of(store, "v") == WANTED.content
    assert store.description("v").metadata == {"release": b"2"}
    assert verify(store, full=True).sound


def test_it_makes_what_a_clone_makes() -> None:
    one, other = new_store(), new_store()
    lazy = Lazy(one)
    lazy.complete()
    lazy.close()
    put(other, "v", WANTED)
    mine, theirs = one.description("v"), other.description("v")
    assert (mine.bounds, mine.digests, mine.zero, mine.identity) == (
        theirs.bounds, theirs.digests, theirs.zero, theirs.identity
    )  # fmt: skip
    assert open_keep(other, "v", WANTED.recipe, limits=SMALL) is None


def test_the_next_run_goes_on_and_so_does_a_clone() -> None:
    store = new_store()
    lazy = Lazy(store)
    lazy.read(CHUNK, 3 * CHUNK)
    lazy.close()
    again = Lazy(store)
    assert again.keep.resumed
    assert again.read(0, 4 * CHUNK) == WANTED.content[: 4 * CHUNK]
    assert fetched(again) == {0}
    again.close()
    outcome = put(store, "v", WANTED)
    assert outcome.resumed
    assert outcome.fetched == 5 * CHUNK + 55  # 9, 3, 10, 11, 12 and the tail; and not 1, 7, 8
    assert content_of(store, "v") == WANTED.content


def test_a_seed_serves_first() -> None:
    store = new_store()
    lazy = Lazy(store, seeds=[small_seed(WANTED.content[: 9 * CHUNK], CHUNK)])
    lazy.complete()
    lazy.close()
    assert fetched(lazy) == {9, 10, 11}


def test_only_one_brings_an_image_into_a_store() -> None:
    store = new_store()
    lazy = Lazy(store)
    with pytest.raises(BusyError, match="being cloned"):
        open_keep(store, "v", WANTED.recipe, limits=SMALL)
    with pytest.raises(BusyError, match="being cloned"):
        put(store, "v", WANTED)
    lazy.complete()
    with pytest.raises(BusyError, match="in use"):
        store.remove("v")
    lazy.close()
    store.remove("v")


def test_another_image_of_the_name_is_not_replaced() -> None:
    store = new_store()
    put(store, "v", OLD)
    with pytest.raises(StateError, match="another image already"):
        open_keep(store, "v", WANTED.recipe, limits=SMALL)


def test_without_digests_nothing_is_kept() -> None:
    content = bytes(10)
    table = OpTable(None)
    recipe = small_recipe(content, 5)
    table.bounds = recipe.table.bounds
    store = new_store()
    with pytest.raises(UnsupportedError, match="no digests"):
        open_keep(store, "v", Recipe(table, Units(None), (), ()), limits=SMALL)
    assert files(store).keys() == files(new_store()).keys()


def test_space_is_looked_for_first() -> None:
    store = new_store()
    assert isinstance(store.directory, MemoryDirectory)
    store.directory.free_space = lambda: 4096  # type: ignore[method-assign]
    with pytest.raises(SpaceError):
        open_keep(store, "v", WANTED.recipe, limits=SMALL)


def test_gc_beside_it_drops_nothing_that_is_needed() -> None:
    store, chance = new_store(), random.Random(5)
    put(store, "old", OLD)
    put(store, "other", image(30, 31, 32, 33))
    lazy = Lazy(store)
    store.remove("old")
    store.remove("other")
    for row in chance.sample(range(11), 11):
        lazy.read(row * CHUNK, 50)
        collect(store, limits=SMALL)
        lazy.keep.flush()
        collect(store, limits=SMALL)
    lazy.complete()
    collect(store, limits=SMALL)
    assert not fetched(lazy) & {0, 3, 4, 7}
    assert lazy.read(0, len(WANTED.content)) == WANTED.content
    lazy.close()
    collect(store, limits=SMALL)
    assert content_of(store, "v") == WANTED.content
    assert verify(store, full=True).sound


def test_a_chunk_of_the_store_that_is_damaged_is_fetched_and_takes_its_place() -> None:
    store = new_store()
    put(store, "old", OLD)
    assert isinstance(store.directory, MemoryDirectory)
    pack = store.directory.files["00000001.pack"]
    assert isinstance(pack, MemoryMedium)
    pack.content[5] ^= 1
    lazy = Lazy(store)
    assert lazy.read(0, CHUNK) == WANTED.content[:CHUNK]
    assert fetched(lazy) == {0}
    assert any("damaged" in word for word in lazy.words)
    assert lazy.read(0, CHUNK) == WANTED.content[:CHUNK]
    assert len(lazy.source.fetched) == 1
    lazy.complete()
    lazy.close()
    assert content_of(store, "v") == WANTED.content
    assert content_of(store, "old") == OLD.content  # mended too


def test_damage_that_comes_later_is_found_before_the_image_appears() -> None:
    store = new_store()
    lazy = Lazy(store)
    lazy.view.keep_rows(range(12))
    lazy.keep.flush()
    assert isinstance(store.directory, MemoryDirectory)
    pack = store.directory.files["00000001.pack"]
    assert isinstance(pack, MemoryMedium)
    pack.content[5] ^= 1
    recorded = [pack.index.digests[0] for pack in sound_packs(store.directory) if pack.number == 1]
    assert lazy.keep.prove() == [0]
    assert store.images() == []
    assert recorded
    assert not any(recorded[0] in list(pack.index.digests) for pack in sound_packs(store.directory))  # taken back
    lazy.complete()
    lazy.close()
    assert content_of(store, "v") == WANTED.content


def test_a_server_that_dies_costs_its_reads_only() -> None:
    store = new_store()
    lazy = Lazy(store, source=ErrorAfter(WANTED.source(), 2, times=9))  # type: ignore[arg-type]
    assert lazy.read(0, 2 * CHUNK) == WANTED.content[: 2 * CHUNK]
    for _ in range(2):
        with pytest.raises(TransportError):
            lazy.read(8 * CHUNK, 3 * CHUNK)
    assert lazy.read(0, 2 * CHUNK) == WANTED.content[: 2 * CHUNK]
    lazy.close()
    again = Lazy(store)
    again.complete()
    again.close()
    assert not fetched(again) & {0, 1}
    assert content_of(store, "v") == WANTED.content


def test_it_is_completed_while_nobody_reads() -> None:
    store = new_store()
    lazy = Lazy(store)
    lazy.keep.start()
    ahead = ReadAhead(lazy.view, lazy.keep, report=lazy.words.append)
    ahead.start()
    until = time.monotonic() + 20
    while not ahead.completed and time.monotonic() < until:
        time.sleep(0.01)
    ahead.close()
    assert lazy.words == []
    assert lazy.view.medium is not None
    lazy.close()
    assert content_of(store, "v") == WANTED.content
