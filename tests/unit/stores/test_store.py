# SPDX-License-Identifier: Apache-2.0
"""A store: its folder, its images, its locks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from chunk_stores import CHUNK, SMALL, content_of, image, new_store, put

from regraft.engine.apply import apply
from regraft.engine.match import match
from regraft.engine.view import View
from regraft.errors import BusyError, DigestError, MissingError, StateError, UnsupportedError, UsageError
from regraft.stores.listing import listing
from regraft.stores.names import check_name, split
from regraft.stores.store import open_store
from regraft.testing.memory import MemoryDirectory, MemoryMedium

IMAGE, OTHER = image(1, 0, 2, 1, tail=50), image(2, 3, 0)


def test_a_store_is_made_once_and_found_again(tmp_path: Path) -> None:
    place = str(tmp_path / "images")
    with pytest.raises(StateError, match="not a chunk store"):
        open_store(place)
    assert not os.path.exists(place)
    for create in (True, True, False):
        open_store(place, create=create).close()
    assert sorted(os.listdir(place)) == ["lock", "store"]


def test_a_folder_of_other_things_does_not_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(StateError, match=r"holiday\.jpg"):
        open_store(str(tmp_path), create=True)
    assert os.listdir(tmp_path) == ["holiday.jpg"]
    for content, error in ((b"regraft chunk store\nversion 2\n", UnsupportedError), (b"else", StateError)):
        (tmp_path / "store").write_bytes(content)
        with pytest.raises(error):
            open_store(str(tmp_path), create=True)


def test_a_lock_file_that_was_removed_is_made_again(tmp_path: Path) -> None:
    open_store(str(tmp_path), create=True).close()
    (tmp_path / "lock").unlink()
    with open_store(str(tmp_path)) as store, store.locked():
        pass


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".hidden", "a b", "ü", "a\n", "x" * 202, "a\0b"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)
    store = new_store()
    for call in (store.description, store.pin, store.unpin, store.remove):
        with pytest.raises(UsageError):
            call(name)


def test_a_place_is_a_store_and_a_name() -> None:
    assert split("/data/images/v1.2-rc_3") == ("/data/images", "v1.2-rc_3")
    assert split("v1") == (".", "v1")
    for bad in ("images/", "/data/..", "images/a b"):
        with pytest.raises(UsageError):
            split(bad)


@pytest.mark.parametrize("name", ["x.image", "store", "lock", "00000001", "00000001.pack", "a.new", "a.pin", "x" * 201])
def test_a_name_may_look_like_one_of_our_files(name: str) -> None:
    store = new_store()
    put(store, name, IMAGE)
    put(store, "other", OTHER)
    store.pin(name)
    assert store.images() == sorted([name, "other"])
    assert content_of(store, name) == IMAGE.content
    store.remove(name, force=True)
    assert content_of(store, "other") == OTHER.content


def test_an_image_is_a_recipe_that_any_way_out_can_execute() -> None:
    store, target = new_store(), MemoryMedium()
    put(store, "old", OTHER)
    put(store, "new", IMAGE)
    with store.image("new") as opened:
        assert len(opened.packs) == 2  # it shares a chunk with the other
        apply(opened.recipe(), [], opened.blobs, target)
        for row in range(len(opened.recipe().table)):
            at = opened.at(row)
            start, end = opened.description.bounds[row], opened.description.bounds[row + 1]
            data = bytearray(end - start)
            if at is None:
                assert row == 1
            else:
                assert at[1] % 4096 == 0
                opened.packs[at[0]].read_into(at[1], memoryview(data))
            assert data == IMAGE.content[start:end]
    assert target.content == IMAGE.content


def test_a_view_of_it_verifies_what_it_reads() -> None:
    store = new_store()
    put(store, "new", IMAGE)
    assert isinstance(store.directory, MemoryDirectory)
    store.directory.files["00000001.pack"].content[4096] ^= 1
    with store.image("new") as opened:
        recipe = opened.recipe()
        view = View(match(recipe, []), [], opened.blobs, local=range(len(opened.blobs)))
        try:
            data = bytearray(2 * CHUNK)
            view.read_into(0, memoryview(data))
            assert data == IMAGE.content[: 2 * CHUNK]
            with pytest.raises(DigestError):
                view.read_into(2 * CHUNK + 5, memoryview(data)[:10])
            view.read_into(3 * CHUNK, memoryview(data)[:CHUNK])  # the damage costs nothing else
            assert data[:CHUNK] == IMAGE.content[3 * CHUNK : 4 * CHUNK]
        finally:
            view.close()


def test_reads_may_begin_and_end_anywhere() -> None:
    store = new_store()
    put(store, "new", IMAGE)
    with store.image("new") as opened:
        for start in (0, 1, 699, 700, 1399, 1400, 2799, 2800, len(IMAGE.content)):
            for length in (0, 1, 700, 1500, 5000):
                data = bytearray(length)
                count = opened.medium.read_into(start, memoryview(data))
                assert data[:count] == IMAGE.content[start : start + length]


def test_what_is_not_there_is_missing() -> None:
    store = new_store()
    with pytest.raises(MissingError, match="no image v1"), store.image("v1"):
        pass
    for call in (store.description, store.pin, store.unpin, store.remove):
        with pytest.raises(MissingError):
            call("v1")
    assert listing(store).images == []


def test_an_open_image_is_neither_removed_nor_replaced() -> None:
    store = new_store()
    put(store, "v1", IMAGE)
    with store.image("v1"), store.image("v1"):
        assert store.in_use("v1")
        for attempt in (lambda: store.remove("v1", force=True), lambda: put(store, "v1", OTHER, replace=True)):
            with pytest.raises(BusyError, match="in use"):
                attempt()
    assert not store.in_use("v1")
    put(store, "v1", OTHER, replace=True)
    assert content_of(store, "v1") == OTHER.content
    store.remove("v1")
    assert store.images() == []


def test_a_pinned_image_stays_unless_it_is_forced() -> None:
    store = new_store()
    put(store, "v1", IMAGE)
    store.pin("v1")
    store.pin("v1")
    for attempt in (lambda: store.remove("v1"), lambda: put(store, "v1", OTHER, replace=True)):
        with pytest.raises(StateError, match="pinned"):
            attempt()
    store.unpin("v1")
    store.unpin("v1")
    put(store, "v1", OTHER, replace=True)
    store.pin("v1")
    store.remove("v1", force=True)
    put(store, "v1", IMAGE)
    assert not store.pinned("v1")


def test_an_image_counts_what_only_it_has() -> None:
    store = new_store()
    put(store, "a", image(1, 2, 2, 0, 0))
    put(store, "b", image(2, 3))
    put(store, "c", image(4))
    store.pin("b")
    with store.image("c"):
        found = {entry.name: entry for entry in listing(store).images}
    assert {name: (e.size, e.unique, e.shared, e.zeros) for name, e in found.items()} == {
        "a": (3500, 700, 700, 1400),
        "b": (1400, 700, 700, 0),
        "c": (700, 700, 0, 0),
    }
    assert [found[name].marks for name in "abc"] == [[], ["pinned"], ["in use"]]


def test_a_damaged_description_is_listed_and_can_be_removed() -> None:
    store = new_store()
    put(store, "v1", IMAGE)
    assert isinstance(store.directory, MemoryDirectory)
    store.directory.files["v1.image"].content[20] ^= 1
    (entry,) = listing(store).images
    assert entry.marks == ["damaged"]
    with pytest.raises(StateError, match="own digest"):
        put(store, "v1", IMAGE)
    put(store, "v1", IMAGE, replace=True)
    assert content_of(store, "v1") == IMAGE.content
    store.directory.files["v1.image"].content[20] ^= 1
    store.remove("v1")
    assert store.images() == []


def test_a_lock_does_not_outlive_its_owner(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), create=True)
    put(store, "v1", IMAGE)
    script = (
        "import sys, time\n"
        "from regraft.stores.store import open_store\n"
        f"store = open_store({str(tmp_path)!r})\n"
        "with store.image('v1'), store.collecting():\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(BusyError):
            store.remove("v1")
        with pytest.raises(BusyError), store.collecting():
            pass
        process.kill()
        process.wait()
    with store.collecting():
        store.remove("v1")


def test_a_store_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), create=True, limits=SMALL)
    put(store, "v1", IMAGE)
    for file in tmp_path.iterdir():
        file.chmod(0o444)
    assert content_of(open_store(str(tmp_path), limits=SMALL), "v1") == IMAGE.content
