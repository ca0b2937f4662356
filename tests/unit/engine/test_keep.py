# SPDX-License-Identifier: Apache-2.0
"""Keeping what a view has obtained, and completing it in the background."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from images import CountingSource, small_recipe, small_seed

from regraft.engine.files import FileDirectory, open_target
from regraft.engine.keep import KeepFile
from regraft.engine.match import match
from regraft.engine.ranges import Range, RangeSource
from regraft.engine.read_ahead import Heads, ReadAhead
from regraft.engine.state import State
from regraft.engine.view import Run, View, Whence
from regraft.errors import SpaceError, StateError, TransportError, UnsupportedError
from regraft.limits import Limits
from regraft.model import Algorithm, OpTable, Recipe, Units
from regraft.model.buffers import Buffer
from regraft.testing.crash import MemoryDirectory
from regraft.testing.memory import MemoryMedium
from regraft.transports.faults import ErrorAfter

CHUNK = 1000
IMAGE = random.Random(4).randbytes(40 * CHUNK) + bytes(60 * CHUNK) + random.Random(5).randbytes(20 * CHUNK + 17)
RECIPE = small_recipe(IMAGE, CHUNK)


@dataclass
class Device:
    """The file that takes what is kept, its state, and what was reported."""

    file: MemoryMedium = field(default_factory=lambda: MemoryMedium(name="kept"))
    directory: MemoryDirectory = field(default_factory=MemoryDirectory)
    words: list[str] = field(default_factory=list)

    @property
    def state(self) -> State:
        return State(self.directory, "kept")

    def keep(self, recipe: Recipe = RECIPE) -> KeepFile:
        return KeepFile(recipe, self.file, self.state)

    def view(self, source: RangeSource, keep: KeepFile, *, seed: bytes = b"", **more) -> View:  # type: ignore[no-untyped-def]
        seeds = [small_seed(seed, CHUNK)] if seed else []
        plan = match(RECIPE, [(one.medium.name, one.index) for one in seeds])
        return View(plan, [one.medium for one in seeds], [source], keep=keep, report=self.words.append, **more)


def read(view: View, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    view.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def device() -> Device:
    return Device()


def test_what_was_read_is_not_fetched_again_even_by_a_later_run(device: Device) -> None:
    source = CountingSource(IMAGE)
    keep = device.keep()
    assert read(device.view(source, keep), 1500, 3000) == IMAGE[1500:4500]
    keep.flush()
    assert device.file.content[1000:5000] == IMAGE[1000:5000]
    later = device.view(source, device.keep(), limits=Limits(view_cache=0))
    assert read(later, 1500, 3000) == IMAGE[1500:4500]
    assert source.total == 4 * CHUNK
    assert list(later.runs(0, 6000)) == [Run(1000, Whence.REMOTE), Run(4000, Whence.LOCAL), Run(1000, Whence.REMOTE)]


def test_what_was_not_recorded_is_fetched_again(device: Device) -> None:
    read(device.view(CountingSource(IMAGE), device.keep()), 0, 2000)
    source = CountingSource(IMAGE)
    assert read(device.view(source, device.keep()), 0, 2000) == IMAGE[:2000]
    assert source.total == 2000


def test_what_was_kept_and_is_damaged_since_is_fetched_again_and_mended(device: Device) -> None:
    keep = device.keep()
    read(device.view(CountingSource(IMAGE), keep), 0, 5000)
    keep.flush()
    device.file.content[2345] ^= 1
    device.file.bad.append((3456, 3457))
    source = CountingSource(IMAGE)
    view = device.view(source, device.keep())
    assert read(view, 0, 5000) == IMAGE[:5000]
    assert source.fetched == [Range(2000, CHUNK), Range(3000, CHUNK)]
    assert len(device.words) == 2
    device.file.bad.clear()
    assert device.file.content[2000:4000] == IMAGE[2000:4000]


def test_the_file_becomes_the_image(device: Device) -> None:
    source, keep = CountingSource(IMAGE), device.keep()
    view = device.view(source, keep, seed=IMAGE[: 10 * CHUNK])
    ahead = ReadAhead(view, keep, report=device.words.append)
    ahead.start()
    until(lambda: ahead.completed)
    ahead.close()
    assert bytes(device.file.content) == IMAGE
    assert source.total == len(IMAGE) - 70 * CHUNK
    assert view.medium is device.file
    assert not device.state.directory.exists("kept.journal")
    assert not device.words
    assert read(view, 12_345, 30_000) == IMAGE[12_345:42_345]


def test_a_finished_file_is_taken_as_what_it_is_and_proved_again(device: Device) -> None:
    test_the_file_becomes_the_image(device)
    device.file.content[4444] ^= 1
    source, keep = CountingSource(IMAGE), device.keep()
    view = device.view(source, keep)
    assert view.medium is None
    assert read(view, 6000, 10) == IMAGE[6000:6010]
    assert not source.fetched
    ahead = ReadAhead(view, keep)
    ahead.start()
    until(lambda: ahead.completed)
    ahead.close()
    assert source.fetched == [Range(4000, CHUNK)]
    assert bytes(device.file.content) == IMAGE


def test_a_bad_sector_in_the_finished_file_costs_its_row(device: Device) -> None:
    source, keep = CountingSource(IMAGE), device.keep()
    view = device.view(source, keep)
    view.keep_rows(range(len(RECIPE.table)))
    assert keep.prove() == []
    source.fetched.clear()
    device.file.bad.append((3100, 3101))
    assert read(view, 0, 9000) == IMAGE[:9000]
    assert source.fetched == [Range(3000, CHUNK)]


def test_rows_that_read_back_wrong_are_not_kept(device: Device) -> None:
    keep = device.keep()
    view = device.view(CountingSource(IMAGE), keep)
    view.keep_rows(range(len(RECIPE.table)))
    device.file.content[7000] ^= 1
    read(view, 7000, 10)  # it is in memory too
    assert keep.prove() == [7]
    assert view.medium is None
    view.keep_rows([7])
    assert keep.prove() == []


def test_a_file_of_something_else_is_left_alone(device: Device) -> None:
    device.file.write(0, b"precious")
    with pytest.raises(StateError, match="something else"):
        device.keep()
    assert device.file.content == b"precious"
    other = Device()
    keep = other.keep(small_recipe(IMAGE[:5000], CHUNK))
    keep.flush()
    with pytest.raises(StateError):
        other.keep()


def test_chunks_that_nothing_proves_are_not_kept(device: Device) -> None:
    with pytest.raises(UnsupportedError):
        device.keep(Recipe(OpTable(Algorithm.blake2b(8)), Units(None), (), ()))


class Full(MemoryMedium):
    """Has room for so many bytes of data, and so many syncs."""

    room = 10 * CHUNK
    syncs = 1 << 30

    def write(self, offset: int, data: Buffer) -> None:
        self.room -= len(data)
        if self.room < 0:
            raise SpaceError(f"write {self.name} at {offset}: No space left on device")
        super().write(offset, data)

    def sync(self) -> None:
        self.syncs -= 1
        if self.syncs < 0:
            raise SpaceError(f"sync {self.name}: No space left on device")


def test_a_full_disk_ends_keeping_and_not_serving() -> None:
    device = Device(file=Full(name="kept"))
    source, keep = CountingSource(IMAGE), device.keep()
    view = device.view(source, keep, limits=Limits(view_cache=0))
    assert read(view, 0, 20 * CHUNK) == IMAGE[: 20 * CHUNK]
    assert len(device.words) == 1
    assert "No space" in device.words[0]
    assert read(view, 0, len(IMAGE)) == IMAGE
    ahead = ReadAhead(view, keep, report=device.words.append)
    ahead.start()
    time.sleep(0.1)
    ahead.close()
    assert len(device.words) == 1
    keep.flush()
    assert sum(device.keep().has(row) for row in range(len(RECIPE.table))) == 10


def test_what_could_not_be_synced_is_not_taken_for_kept() -> None:
    medium = Full(name="kept")
    device = Device(file=medium)
    source, keep = CountingSource(IMAGE), device.keep()
    view = device.view(source, keep)
    read(view, 0, 2000)
    keep.flush()
    medium.syncs = 0
    read(view, 2000, 3000)
    with pytest.raises(SpaceError):
        keep.flush()
    medium.content[2000:5000] = bytes(3000)  # the kernel may drop what it could not write
    assert read(view, 0, 5000) == IMAGE[:5000]
    assert [keep.has(row) for row in range(6)] == [True, True, False, False, False, False]


def test_completing_pauses_while_the_peer_is_away(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.engine.read_ahead._LONGEST_PAUSE", 0.05)
    source = ErrorAfter(CountingSource(IMAGE), 5, error=TransportError("gone"), times=3)
    keep = device.keep()
    ahead = ReadAhead(device.view(source, keep), keep, report=device.words.append)
    ahead.start()
    until(lambda: ahead.completed)
    ahead.close()
    assert bytes(device.file.content) == IMAGE
    assert device.words == ["completing the image pauses: gone"]  # once for each time that it is away


def test_completing_waits_for_what_a_reader_is_keeping(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = device.keep()
    view = device.view(CountingSource(IMAGE), keep)
    kept, coming = view.kept, [3, 3, 3]
    # Row 3 is on its way through another thread: nothing that completing does makes it be kept for a while.
    monkeypatch.setattr(view, "kept", lambda row: kept(row) and not (row == 3 and coming and coming.pop()))
    ahead = ReadAhead(view, keep, report=device.words.append)
    ahead.start()
    until(lambda: ahead.completed)
    ahead.close()
    assert bytes(device.file.content) == IMAGE
    assert not device.words


def test_readers_come_before_completing(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.engine.read_ahead._QUIET", 1.5)
    keep = device.keep()
    view = device.view(CountingSource(IMAGE), keep)
    ahead = ReadAhead(view, keep)
    ahead.noticed(0, 10)
    ahead.start()
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        assert read(view, 0, 10) == IMAGE[:10]
    assert sum(map(keep.has, range(len(RECIPE.table)))) == 1
    until(lambda: ahead.completed)
    ahead.close()


@dataclass
class Watched:
    content: bytes
    ranges: list[Range] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)

    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
        self.calls.append(len(ranges))
        for position, (offset, length) in enumerate(ranges):
            self.ranges.append(ranges[position])
            yield position, self.content[offset : offset + length]


def test_sequential_readers_find_what_they_read_next() -> None:
    source = Watched(IMAGE)
    view = View(match(RECIPE, []), [], [source], limits=Limits(view_ahead=5 * CHUNK))
    ahead = ReadAhead(view)
    ahead.start()
    for row in range(3):
        read(view, row * CHUNK, CHUNK)
    until(lambda: view.ready(3000, 5000))
    ahead.close()
    assert sorted(source.ranges) == [Range(row * CHUNK, CHUNK) for row in range(8)]


def test_what_lies_ahead_is_fetched_in_large_requests() -> None:
    source = Watched(IMAGE)
    view = View(match(RECIPE, []), [], [source], limits=Limits(view_ahead=8 * CHUNK, connections=1))
    for row in range(20):
        view.fetch_ahead(row * CHUNK, (row + 8) * CHUNK)
    until(lambda: view.ready(0, 24 * CHUNK))
    assert source.calls == [8, 4, 4, 4, 4]


def test_sequences_are_told_from_jumps() -> None:
    far = 10 << 20
    heads = Heads()
    assert [heads.note(far * row, far * row + 4096) for row in range(20)] == [False] * 20
    heads = Heads()
    found = [
        heads.note(start + row * 4096, start + (row + 1) * 4096) for row in range(4) for start in (0, far, 2 * far)
    ]
    assert found == [False] * 6 + [True] * 6
    heads = Heads()
    assert [heads.note(row * 4096, row * 4096 + 4096) for row in (0, 2, 1, 4, 3)] == [False, False, True, True, True]


def test_a_real_file_with_holes(tmp_path: Path) -> None:
    source, target = CountingSource(IMAGE), open_target(str(tmp_path / "kept"))
    keep = KeepFile(
        RECIPE, target, State(FileDirectory(str(tmp_path)), "kept.regraft"), limits=Limits(journal_interval=0.01)
    )
    keep.start()
    view = View(match(RECIPE, []), [], [source], keep=keep)
    read(view, 0, 3000)
    until(lambda: (tmp_path / "kept.regraft.journal").stat().st_size > 52)
    assert (tmp_path / "kept").read_bytes()[:3000] == IMAGE[:3000]
    view.keep_rows(range(len(RECIPE.table)))
    assert keep.prove() == []
    keep.close()
    assert (tmp_path / "kept").read_bytes() == IMAGE
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["kept", "kept.regraft.index"]
