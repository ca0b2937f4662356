# SPDX-License-Identifier: Apache-2.0
"""A full disk at every write, processes that are killed, and what is wrong with ihop's store."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import archives
import pytest
from chunk_stores import SMALL, content_of, files, image, new_store, put
from commands import regraft
from images import Pair

from regraft.build import cba as packer
from regraft.engine.medium import Directory
from regraft.errors import SpaceError
from regraft.server.static import StaticServer
from regraft.stores.gc import collect
from regraft.stores.repair import repair
from regraft.stores.store import Store, open_store
from regraft.stores.verify import verify
from regraft.testing.hooks import FullDisk, HookedDirectory
from regraft.testing.link import DelayedLink
from regraft.testing.memory import MemoryDirectory, MemoryMedium

OLD, NEW = image(1, 2, 3, 0, 4, 11, 12), image(1, 5, 0, 3, 6, 7, 8, tail=99)


def copied(store: Store) -> MemoryDirectory:
    return MemoryDirectory({name: MemoryMedium(content, name=name) for name, content in files(store).items()})


def start() -> Store:
    store = new_store()
    put(store, "old", OLD)
    put(store, "dead", image(20, 21, 22, 23))
    put(store, "part", image(20, 24))
    store.remove("dead")
    return store


def lost_chunk() -> Store:
    store = start()
    assert isinstance(store.directory, MemoryDirectory)
    store.directory.files["00000001.pack"].content[0] ^= 1
    verify(store, full=True, limits=SMALL)
    return store


COMMANDS: dict[str, tuple[Callable[[], Store], Callable[[Directory], object]]] = {
    "clone": (start, lambda d: put(d, "new", NEW)),
    "replace": (start, lambda d: put(d, "old", NEW, replace=True)),
    "gc": (start, lambda d: collect(open_store(d, limits=SMALL), limits=SMALL)),
    "rm": (start, lambda d: open_store(d, limits=SMALL).remove("part")),
    "pin": (start, lambda d: open_store(d, limits=SMALL).pin("part")),
    "repair": (lost_chunk, lambda d: repair(open_store(d), "old", OLD.recipe, [OLD.source()], limits=SMALL)),
    "first clone": (lambda: Store(MemoryDirectory()), lambda d: put(d, "old", OLD)),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_at_every_write_loses_nothing(command: str) -> None:
    begin, run = COMMANDS[command]
    before = begin()
    writes = 0
    while True:
        directory, disk = copied(before), FullDisk(writes)
        with suppress(SpaceError):
            run(HookedDirectory(directory, disk))
        full = disk.left < 0
        if directory.exists("store"):
            store = open_store(directory, limits=SMALL)
            report = verify(store, full=True, workers=1, limits=SMALL)
            assert report.bad == 0
            assert set(report.damage) <= ({"old"} if command == "repair" else set())
        if full:  # even a gc that had no room to compact has done the rest
            run(directory)  # there is room again
        store = open_store(directory, limits=SMALL)
        assert verify(store, full=True, workers=1, limits=SMALL).sound
        for name in {"old", "part"} & set(store.images()):
            content_of(store, name)
        if not full:
            break
        writes += 1
    assert (writes == 0) == (command == "rm")


# -- ihop's defects ----------------------------------------------------------------------------------------------------


#: Quickly made.
FIXED = packer.Options(chunker="fixed", average=16384, compression="none")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: Pair) -> Path:
    (tmp_path / "old.cba").write_bytes(archives.pack(pair.old, packer.Options()).content)
    (tmp_path / "new.cba").write_bytes(archives.pack(pair.new, packer.Options()).content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_options_have_an_effect(folder: Path) -> None:
    """ihop reads options that it never defined. Ours are tried in tests/unit/cli; here: none is ignored silently."""
    assert regraft("clone", "old.cba", "s/v1", "--http-retry-count", "3") == 2
    assert regraft("clone", "old.cba", "s/v1", "--naive") == 2


def test_a_short_chunk_is_not_trusted(folder: Path) -> None:
    assert regraft("clone", "old.cba", "s/v1") == 0
    with (folder / "s/00000001.pack").open("r+b") as pack:
        pack.truncate(100_000)
    assert regraft("store", "verify", "s") == 60
    assert regraft("clone", "old.cba", "s/v2") == 0  # fetches what is gone
    assert regraft("store", "verify", "s", "--full") == 0


def test_a_longer_file_leaves_no_trailing_bytes_in_a_chunk(folder: Path, pair: Pair) -> None:
    assert regraft("clone", "old.cba", "s/v1") == 0
    with (folder / "s/00000001.pack").open("ab") as pack:
        pack.write(b"more")
    assert regraft("store", "verify", "s", "--full") == 0
    with open_store("s") as store:
        assert content_of(store, "v1") == pair.old


def test_an_unreadable_chunk_counts_as_missing() -> None:
    store = new_store()
    put(store, "old", OLD)
    assert isinstance(store.directory, MemoryDirectory)
    store.directory.files["00000001.pack"].bad.append((0, 512))
    assert verify(store, full=True, limits=SMALL).bad == 1
    store.directory.files["00000001.pack"].bad.clear()
    source = OLD.source()
    repair(store, "old", OLD.recipe, [source], limits=SMALL)
    assert len(source.fetched) == 1


def test_a_failed_clone_needs_no_force_to_be_run_again(folder: Path, pair: Pair) -> None:
    content = (folder / "new.cba").read_bytes()
    (folder / "cut.cba").write_bytes(content)
    with StaticServer(folder) as server:
        (folder / "new.cba").write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
        assert regraft("clone", f"{server.url}/new.cba", "s/v1") != 0
        assert not (folder / "s/v1.image").exists()
        (folder / "new.cba").write_bytes(content)
        assert regraft("clone", f"{server.url}/new.cba", "s/v1") == 0
    with open_store("s") as store:
        assert content_of(store, "v1") == pair.new


def test_every_command_that_ihop_lacks_is_there(folder: Path) -> None:
    assert regraft("clone", "old.cba", "s/v1") == 0
    for words in (["ls"], ["verify"], ["gc"]):
        assert regraft("store", *words, "s") == 0
    assert regraft("store", "rm", "s", "v1") == 0


def test_an_error_is_typed_and_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert regraft("clone", "old.cba", "s/v1") == 0
    assert regraft("clone", "missing.cba", "s/v2") == 52
    assert regraft("clone", "s/store", "s/v2") == 10
    assert regraft("clone", "new.cba", "s/v1") == 60
    assert "Traceback" not in capsys.readouterr().err
    assert regraft("store", "verify", "s", "--full") == 0


# -- killed ------------------------------------------------------------------------------------------------------------


def slowly(server: StaticServer) -> DelayedLink:
    return DelayedLink("127.0.0.1", int(server.url.rpartition(":")[2]), round_trip=0.001, bandwidth=8e6)


@pytest.mark.slow
def test_a_killed_clone_leaves_a_sound_store_and_continues(folder: Path, pair: Pair) -> None:
    """SIGKILL at random moments, again and again, until it gets through."""
    content = random.Random(1).randbytes(12_000_000)
    (folder / "large.cba").write_bytes(archives.pack(content, FIXED).content)
    chance = random.Random(2)
    with StaticServer(folder) as server, slowly(server) as link:
        for attempt in range(60):
            with subprocess.Popen(
                [sys.executable, "-m", "regraft.cli", "clone", f"{link.url}/large.cba", "s/v", "--progress", "none"],
                stderr=subprocess.DEVNULL,
            ) as process:
                try:
                    process.wait(0.4 + 0.1 * attempt + chance.random() / 4)
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
            if (folder / "s/store").exists():
                with open_store("s") as store:
                    report = verify(store, full=True)
                    assert (report.sound, report.bad) == (True, 0)
            if process.returncode == 0:
                break
    assert 0 < attempt < 59
    with open_store("s") as store:
        assert content_of(store, "v") == content
        collect(store)
        assert content_of(store, "v") == content


def test_a_second_clone_reads_nothing_of_what_the_store_has(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else it would stumble over the damage, which is for `verify --full` to find."""
    content = random.Random(3).randbytes(1_000_000)
    (folder / "large.cba").write_bytes(archives.pack(content, FIXED).content)
    assert regraft("clone", "large.cba", "s/a", "--json") == 0
    (pack,) = (folder / "s").glob("*.pack")
    damaged = bytearray(pack.read_bytes())
    damaged[5000] ^= 1
    pack.write_bytes(damaged)
    capsys.readouterr()
    for name, unchanged in (("a", True), ("b", False)):
        assert regraft("clone", "large.cba", f"s/{name}", "--json") == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["unchanged"], facts["written"], facts["fetched"]) == (unchanged, 0, 0)
    with open_store("s") as store:
        assert verify(store, full=True).bad == 1
