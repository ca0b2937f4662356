# SPDX-License-Identifier: Apache-2.0
"""A casync store gives up only what no index needs, and nothing at all when anything is in doubt."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from casync_stores import SMALL, MemoryFolders, Packed, pack, packed

from regraft.build.caibx import Store
from regraft.engine.chunkstores import LocalStore
from regraft.engine.medium import Directory
from regraft.errors import BusyError, FormatError, StateError
from regraft.formats import caibx
from regraft.formats.caibx import Header
from regraft.stores.prune import TEMPORARY_AGE, Report, prune
from regraft.testing.crash import Log, World

COMMON = random.Random(1).randbytes(20_000)
OLD, NEW = COMMON + random.Random(2).randbytes(9000), COMMON + random.Random(3).randbytes(9000)
NOW = 1_000_000.0


def run(store: LocalStore, *headers: Header, incomplete: bool = False, dry_run: bool = False) -> Report:
    indexes = {f"{number}.caibx": header for number, header in enumerate(headers)}
    return prune(store, lambda: indexes, incomplete=incomplete, dry_run=dry_run, now=lambda: NOW)


@pytest.fixture
def folders() -> MemoryFolders:
    return MemoryFolders()


@pytest.fixture
def store(folders: MemoryFolders) -> LocalStore:
    return LocalStore("memory", folders)


def add(store: LocalStore, image: bytes) -> Packed:
    return packed(image, Store(store, SMALL), SMALL)


def names(*headers: Header) -> set[str]:
    return {caibx.paths(digest)[0] for header in headers for digest in header.digests}


def test_chunks_that_no_index_names_go(store: LocalStore, folders: MemoryFolders) -> None:
    old, new = add(store, OLD), add(store, NEW)
    before = folders.contents()
    planned = run(store, new.header, dry_run=True)
    assert folders.contents() == before
    report = run(store, new.header)
    assert report == planned
    after = folders.contents()
    assert set(after) == names(new.header) < names(old.header, new.header) == set(before)
    assert (report.kept, report.removed) == (len(after), len(before) - len(after))
    assert report.kept_bytes + report.removed_bytes == sum(map(len, before.values()))
    assert report.kept_bytes == sum(map(len, after.values()))
    assert run(store, new.header).removed == 0


def test_what_several_indexes_name_stays(store: LocalStore, folders: MemoryFolders) -> None:
    old, new = add(store, OLD), add(store, NEW)
    before = folders.contents()
    assert run(store, old.header, new.header).removed == 0
    assert folders.contents() == before


def test_both_forms_of_a_chunk_stay(store: LocalStore, folders: MemoryFolders) -> None:
    new = add(store, NEW)
    plain = caibx.paths(new.header.digests[0])[1]
    store.put(plain, b"as it is")
    run(store, new.header)
    assert {plain, *names(new.header)} == set(folders.contents())


def test_a_chunk_that_is_missing_stops_all(store: LocalStore, folders: MemoryFolders) -> None:
    """An index has no checksum: one flipped bit in it names a chunk that there is not."""
    add(store, OLD)
    new = add(store, NEW)
    before = folders.contents()
    content = bytearray(new.content)
    for place in range(caibx.HEAD_SIZE + 8, len(content) - caibx.TAIL_SIZE, caibx.ITEM_SIZE):
        content[place] ^= 0x10
        with pytest.raises(StateError, match=r"lacks 1 chunks .* of 0\.caibx: nothing was removed"):
            run(store, caibx.parse_header(content))
        content[place] ^= 0x10
    assert folders.contents() == before
    content[caibx.HEAD_SIZE + 8] ^= 1
    report = run(store, caibx.parse_header(content), incomplete=True)
    assert report.missing == 1
    assert report.removed > 1


def test_an_index_that_cannot_be_read_stops_all(store: LocalStore, folders: MemoryFolders) -> None:
    new = add(store, NEW)
    before = folders.contents()
    with pytest.raises(FormatError):
        prune(store, lambda: {"bad.caibx": caibx.parse_header(new.content[:-1])}, incomplete=True)
    assert folders.contents() == before


def test_only_old_temporary_files_go_and_nothing_unknown(store: LocalStore, folders: MemoryFolders) -> None:
    new = add(store, NEW)
    path = caibx.paths(bytes(32))[0]
    old, young, others = f"{path}.00aa.tmp", f"{path}.00bb.tmp", ("0000/README", f"0001/{path[5:]}", "0000/x.tmp")
    for name in (old, young, *others):
        store.put(name, b"12345")
        folders.ages[name] = NOW - TEMPORARY_AGE - 1
    folders.ages[young] = NOW - TEMPORARY_AGE + 1
    report = run(store, new.header)
    assert (report.temporary, report.temporary_bytes, report.others) == (1, 5, 4)
    assert set(folders.contents()) == {young, *others, *names(new.header)}


def test_indexes_are_read_when_nobody_can_add_any_more(tmp_path: Path) -> None:
    """A new image replaces the index, and its chunks come first: not to be taken for dead in between."""
    place = str(tmp_path / "store")
    old = pack(OLD, tmp_path / "store")
    current = [old.header]
    began = threading.Event()

    def packing() -> None:
        store = LocalStore(place)
        with store.adding():
            began.set()
            current[0] = packed(NEW, Store(store, SMALL), SMALL).header

    thread = threading.Thread(target=packing)
    thread.start()
    began.wait(10)
    while thread.is_alive():
        try:
            prune(LocalStore(place), lambda: {"image.caibx": current[0]})
            break
        except BusyError:
            time.sleep(0.005)
    thread.join()
    assert {str(file.relative_to(tmp_path / "store")) for file in (tmp_path / "store").rglob("*.cacnk")} >= names(
        current[0]
    )
    assert prune(LocalStore(place), lambda: {"image.caibx": current[0]}).kept == len(names(current[0]))


def test_a_power_cut_never_takes_what_is_needed() -> None:
    log = Log(World())

    class Recorded(MemoryFolders):
        """All chunks in one folder: the names of files tell their own."""

        @contextmanager
        def open(self, name: str) -> Iterator[Directory]:
            yield log.directory

        def files(self) -> Iterator[tuple[str, int, float]]:
            for name in log.directory.names():
                yield f"{name[:4]}/{name}", 1, 0.0

    store = LocalStore("memory", Recorded())
    old, new = (packed(image[-12_000:], Store(store, SMALL), replace(SMALL, workers=1)) for image in (OLD, NEW))
    begun = len(log.events)
    needed = {path.partition("/")[2] for path in names(new.header)}
    assert run(store, new.header).removed > 3
    after = Log(World(directory=_directory(old, new)))
    for event in log.events[begun:]:
        if event.call == "remove":
            after.directory.remove(event.old)
        elif event.call == "sync_directory":
            after.directory.sync_directory()
    states = list(after.states())
    assert len(states) > 3
    assert all(needed <= set(state.directory.files) for state in states)
    assert min(len(state.directory.files) for state in states) == len(needed)


def _directory(*made: Packed):  # type: ignore[no-untyped-def]
    from regraft.testing.memory import MemoryDirectory, MemoryMedium

    files = {path.partition("/")[2] for path in names(*(each.header for each in made))}
    return MemoryDirectory({name: MemoryMedium(b"chunk", name=name) for name in files})


def test_a_real_folder_is_pruned(tmp_path: Path) -> None:
    pack(OLD, tmp_path / "store")
    new = pack(NEW, tmp_path / "store")
    forgotten = tmp_path / "store" / "0000" / f"{bytes(32).hex()}.cacnk.0123456789abcdef.tmp"
    forgotten.parent.mkdir(exist_ok=True)
    forgotten.write_bytes(b"half")
    os.utime(forgotten, (5, 5))
    (tmp_path / "store" / "0000" / f"{bytes(32).hex()}.cacnk").symlink_to("/dev/null")
    report = prune(LocalStore(str(tmp_path / "store")), lambda: {"new": new.header})
    left = {str(file.relative_to(tmp_path / "store")) for file in (tmp_path / "store").rglob("*") if file.is_file()}
    assert left == names(new.header)
    assert report.temporary == 1
