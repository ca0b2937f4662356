# SPDX-License-Identifier: Apache-2.0
"""Collecting: what goes, and what stays."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from chunk_stores import CHUNK, SMALL, content_of, files, image, new_store, put

from regraft.errors import BusyError, StateError
from regraft.stores.gc import collect
from regraft.stores.store import Store, open_store
from regraft.stores.verify import verify
from regraft.testing.memory import MemoryDirectory

OLD, NEW = image(1, 2, 3, 0, 4), image(1, 5, 0, 3, 6, 5, tail=9)


def folder(store: Store) -> MemoryDirectory:
    assert isinstance(store.directory, MemoryDirectory)
    return store.directory


def test_nothing_goes_that_an_image_needs() -> None:
    store = new_store()
    put(store, "old", OLD)
    put(store, "new", NEW)
    before = files(store)
    report = collect(store, limits=SMALL)
    assert (report.freed, report.packs, report.copied, report.debris) == (0, 0, 0, [])
    assert report.live == 7 * 4096
    assert files(store) == before


def test_what_no_image_needs_goes() -> None:
    store = new_store()
    put(store, "old", OLD)
    put(store, "new", NEW)
    for name in ("old", "new"):
        store.remove(name)
    assert collect(store, limits=SMALL).live == 0
    assert sorted(files(store)) == ["lock", "store"]


def test_a_mostly_dead_pack_is_compacted() -> None:
    store = new_store()
    put(store, "old", image(1, 2, 3, 4))
    put(store, "new", image(9, 2))
    store.remove("old")
    report = collect(store, limits=SMALL)
    assert report.copied == CHUNK
    assert content_of(store, "new") == image(9, 2).content
    assert sum(len(content) for name, content in files(store).items() if name.endswith(".pack")) == 2 * CHUNK
    assert collect(store, limits=SMALL).freed == 0


def test_more_sparse_packs_than_descriptors_are_compacted(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store"), create=True, limits=replace(SMALL, journal_bytes=1 << 20)) as store:
        put(store, "old", image(*range(1, 801)))
        put(store, "new", image(*range(1, 801, 5)))
        store.remove("old")
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 130, before[1]))
        try:
            report = collect(store, limits=SMALL)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert (report.packs, report.copied) == (160, 160 * CHUNK)
        assert content_of(store, "new") == image(*range(1, 801, 5)).content


def test_a_pack_that_is_half_alive_stays_as_it_is() -> None:
    store = new_store()
    put(store, "old", image(1, 2, 3, 4))
    put(store, "new", image(3, 2))
    store.remove("old")
    before = files(store)
    assert collect(store, limits=SMALL).copied == 0
    assert files(store) == before


def test_of_a_chunk_that_is_there_twice_one_goes() -> None:
    store = new_store()
    put(store, "a", image(1, 2, 3))
    twin = files(store)
    second = new_store()
    put(second, "z", image(50))
    put(second, "a", image(1, 2, 3))
    for name in ("00000002.pack", "00000002.index"):
        folder(store).create(name).write(0, files(second)[name])
    assert len(files(store)) == len(twin) + 2
    report = collect(store, limits=SMALL)
    assert report.packs == 1
    assert content_of(store, "a") == image(1, 2, 3).content


def test_an_interrupted_clone_keeps_what_it_has() -> None:
    store = new_store()
    put(store, "old", OLD)
    folder(store).files["old.partial"] = folder(store).files.pop("old.image")
    collect(store, limits=SMALL)
    assert put(store, "old", OLD).fetched == 0


def test_debris_of_crashes_is_swept() -> None:
    store = new_store()
    put(store, "old", OLD)
    before = files(store)
    for name in ("old.image.new", "gone.pin", "00000009.pack", "00000008.index"):
        folder(store).create(name).write(0, b"left")
    store.pin("old")
    folder(store).open("00000001.pack").write(4 * 4096, b"written, never recorded")
    report = collect(store, limits=SMALL)
    assert sorted(report.debris) == ["00000008.index", "00000009.pack", "gone.pin", "old.image.new"]
    assert files(store) == before | {"old.pin": b""}


def test_a_pack_whose_index_cannot_be_read_now_stays() -> None:
    store = new_store()
    put(store, "old", OLD)
    before = files(store)
    index = folder(store).files["00000001.index"]
    index.bad.append((0, index.size))
    assert collect(store, limits=SMALL).debris == []
    assert collect(store, limits=replace(SMALL, pack_index_size=10)).debris == []
    index.bad.clear()
    assert files(store) == before
    assert content_of(store, "old") == OLD.content


def test_a_dry_run_says_the_same_and_does_nothing() -> None:
    store = new_store()
    put(store, "old", image(1, 2, 3, 4))
    put(store, "new", image(9, 2))
    store.remove("old")
    folder(store).create("x.image.new")
    before = files(store)
    said = collect(store, dry_run=True, limits=SMALL)
    assert files(store) == before
    done = collect(store, limits=SMALL)
    assert said.debris == done.debris == ["x.image.new"]
    assert said.packs == done.packs == 1
    assert 0 < said.freed <= done.freed


def test_with_a_damaged_description_nothing_goes() -> None:
    store = new_store()
    put(store, "old", OLD)
    put(store, "new", NEW)
    store.remove("new")
    folder(store).files["old.image"].content[30] ^= 1
    before = files(store)
    with pytest.raises(StateError, match=r"old\.image"):
        collect(store, limits=SMALL)
    assert files(store) == before


def test_one_collection_at_a_time() -> None:
    store = new_store()
    with store.collecting(), pytest.raises(BusyError):
        collect(store, limits=SMALL)


def test_without_room_a_pack_is_not_compacted() -> None:
    store = new_store()
    put(store, "old", image(1, 2, 3, 4))
    put(store, "new", image(9, 2))
    store.remove("old")
    folder(store).space = 1000
    before = files(store)
    assert collect(store, limits=SMALL).copied == 0
    assert files(store) == before


def test_a_damaged_chunk_is_not_copied_and_its_pack_stays_for_verify() -> None:
    store = new_store()
    put(store, "old", image(1, 2, 3, 4))
    put(store, "new", image(9, 2))
    store.remove("old")
    folder(store).files["00000001.pack"].content[4096] ^= 1
    assert collect(store, limits=SMALL).copied == 0
    report = verify(store, full=True)
    assert (report.bad, list(report.damage)) == (1, ["new"])
