# SPDX-License-Identifier: Apache-2.0
"""Chunk files of stores as a RangeSource: from whichever store has them, in order or not, in bounded memory."""

from __future__ import annotations

import os
import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from casync_stores import SMALL, MemoryStore, Packed, chunk_file, pack, source

from regraft.build.caibx import Options
from regraft.engine.apply import apply
from regraft.engine.chunkfiles import ChunkSource
from regraft.engine.chunkstores import LocalStore
from regraft.engine.match import match
from regraft.engine.ranges import Range
from regraft.engine.stream import Streamer
from regraft.errors import DigestError, FormatError, LimitError, SourceError
from regraft.formats import caibx
from regraft.limits import DEFAULT
from regraft.model import Algorithm, DigestColumn
from regraft.testing.memory import MemoryMedium

#: Different chunks, then equal ones, then zeros.
IMAGE = random.Random(3).randbytes(60_000) + bytes(range(256)) * 40 + bytes(30_000)


@pytest.fixture
def made(tmp_path: Path) -> Packed:
    return pack(IMAGE, tmp_path / "store")


def rebuilt(made: Packed, *folders: Path) -> bytes:
    target = MemoryMedium()
    apply(made.recipe, [], [source(made.header, *folders)], target)
    return bytes(target.content)


def numbered(store: MemoryStore, count: int, *, buffer: int = 1000, length: int = 100, threads: int = 3) -> ChunkSource:
    """A source of `count` chunks that are named by their numbers."""
    names = DigestColumn(Algorithm.SHA512_128, b"".join(number.to_bytes(16, "big") for number in range(count)))
    limits = replace(DEFAULT, buffer=buffer)
    return ChunkSource([store], names, path, [length] * count, threads=threads, limits=limits)


def path(digest: bytes) -> tuple[str]:
    return (str(int.from_bytes(digest, "big")),)


def full(count: int) -> MemoryStore:
    return MemoryStore({str(number): b"%d" % number for number in range(count)})


def test_an_image_is_written_and_streamed_from_a_store(made: Packed, tmp_path: Path) -> None:
    assert rebuilt(made, tmp_path / "store") == IMAGE
    streamer = Streamer(match(made.recipe, []), [], [source(made.header, tmp_path / "store")])
    assert b"".join(streamer.pieces()) == IMAGE


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 16])
def test_each_chunk_comes_once(threads: int, ordered: bool) -> None:
    store = full(200)
    wanted = [Range(number, 1) for number in range(0, 200, 3)]
    found = list(numbered(store, 200, threads=threads).fetch(wanted, ordered=ordered))
    assert sorted(found) == [(position, b"%d" % (3 * position)) for position in range(len(wanted))]
    assert not ordered or found == sorted(found)
    assert sorted(store.asked, key=int) == [str(number) for number, _ in wanted]


def test_nothing_is_asked_for_nothing() -> None:
    store = full(1)
    assert list(numbered(store, 1).fetch([])) == []
    assert not store.asked


def test_what_is_read_ahead_fits_into_half_of_the_buffer() -> None:
    store = full(100)
    arriving = numbered(store, 100, buffer=2000, length=100, threads=16).fetch([Range(n, 1) for n in range(100)])
    next(arriving)
    for _ in range(200):
        if len(store.asked) == 11:
            break
        threading.Event().wait(0.01)
    threading.Event().wait(0.05)
    assert len(store.asked) == 11  # ten, and one in the place of that which was taken
    arriving.close()


def test_a_chunk_longer_than_the_buffer_is_read_alone() -> None:
    found = list(numbered(full(5), 5, buffer=10, length=100).fetch([Range(n, 1) for n in range(5)]))
    assert len(found) == 5


def test_the_one_that_is_waited_for_does_not_wait_for_the_others() -> None:
    store = full(50)
    store.waiting = frozenset("0")
    arriving = numbered(store, 50, buffer=600, length=100).fetch([Range(n, 1) for n in range(50)], ordered=True)
    timer = threading.Timer(0.1, store.stuck.set)
    timer.start()
    assert [position for position, _ in arriving] == list(range(50))


def test_closing_ends_what_is_being_read() -> None:
    store = full(50)
    store.waiting = frozenset(("7",))
    arriving = numbered(store, 50).fetch([Range(n, 1) for n in range(50)])
    next(arriving)
    arriving.close()
    assert store.aborted == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("regraft-chunks")]


def test_an_error_comes_after_what_had_arrived_and_ends_all() -> None:
    store = full(1000)
    del store.files["500"]
    arriving = numbered(store, 1000).fetch([Range(n, 1) for n in range(1000)])
    found: list[int] = []
    with pytest.raises(SourceError, match="memory has no 500"):
        found.extend(position for position, _ in arriving)
    assert 450 <= len(found) < 600
    assert len(store.asked) < 600


def test_only_single_chunks_can_be_asked_for() -> None:
    with pytest.raises(ValueError, match="2 chunks at once"):
        list(numbered(full(5), 5).fetch([Range(0, 2)]))


def test_stores_are_looked_in_one_after_the_other(made: Packed, tmp_path: Path) -> None:
    first, second = tmp_path / "store", tmp_path / "second"
    for number in range(0, 30, 2):
        file = chunk_file(first, made.header, number)
        there = second / file.relative_to(first)
        there.parent.mkdir(parents=True, exist_ok=True)
        file.rename(there)
    with pytest.raises(SourceError, match="is not in"):
        rebuilt(made, first)
    assert rebuilt(made, first, second) == rebuilt(made, tmp_path / "none", second, first) == IMAGE


def test_the_store_that_had_the_last_chunk_is_looked_in_first() -> None:
    empty, store = MemoryStore({}), full(20)
    names = DigestColumn(Algorithm.SHA512_128, b"".join(number.to_bytes(16, "big") for number in range(20)))
    found = ChunkSource([empty, store], names, path, [9] * 20, threads=1)
    assert len(list(found.fetch([Range(n, 1) for n in range(20)]))) == 20
    assert empty.asked == ["0"]


def test_a_wrong_chunk_is_replaced_by_that_of_the_next_store(made: Packed, tmp_path: Path) -> None:
    bad, good = tmp_path / "store", tmp_path / "good"
    pack(IMAGE, good)
    for number in range(0, 30, 3):
        file = chunk_file(bad, made.header, number)
        file.write_bytes(b"\0" * file.stat().st_size)
    with pytest.raises((DigestError, FormatError)):
        rebuilt(made, bad)
    assert rebuilt(made, bad, good) == IMAGE


@pytest.mark.parametrize("compression", ["zstd", "xz", "gzip", "none"])
def test_compressed_and_plain_files_are_told_apart(tmp_path: Path, compression: str) -> None:
    made = pack(IMAGE, tmp_path / "store", replace(SMALL, compression=compression))
    assert rebuilt(made, tmp_path / "store") == IMAGE


def test_all_kinds_of_files_may_be_in_one_store(tmp_path: Path) -> None:
    for number, compression in enumerate(("zstd", "xz", "gzip", "none")):
        pack(IMAGE[: 25_000 * (number + 1)], tmp_path / "store", replace(SMALL, compression=compression))
    made = pack(IMAGE, tmp_path / "store")
    assert rebuilt(made, tmp_path / "store") == IMAGE


def test_an_image_of_compressed_files_may_be_stored_plain(tmp_path: Path) -> None:
    options = Options(sizes=replace(SMALL.sizes, minimum=300, average=300, maximum=300), compression="none")
    image = b"".join(
        magic + os.urandom(294) for magic in (b"\x28\xb5\x2f\xfd\0\0", b"\xfd7zXZ\0", b"\x1f\x8b\x08\0\0\0")
    )
    made = pack(image, tmp_path / "store", options)
    assert rebuilt(made, tmp_path / "store") == image


class TestBadStores:
    def first(self, made: Packed, tmp_path: Path) -> Path:
        return chunk_file(tmp_path / "store", made.header, 2)

    def test_a_link_to_the_null_device_is_a_missing_chunk(self, made: Packed, tmp_path: Path) -> None:
        file = self.first(made, tmp_path)
        file.unlink()
        file.symlink_to("/dev/null")
        with pytest.raises(SourceError, match=f"the chunk {file.parent.name}/{file.name} is not in"):
            rebuilt(made, tmp_path / "store")
        pack(IMAGE, tmp_path / "other")
        assert rebuilt(made, tmp_path / "store", tmp_path / "other") == IMAGE

    def test_a_folder_or_a_pipe_is_a_missing_chunk(self, made: Packed, tmp_path: Path) -> None:
        file = self.first(made, tmp_path)
        for make in (os.mkdir, os.mkfifo):
            if file.is_dir():
                file.rmdir()
            else:
                file.unlink()
            make(file)
            with pytest.raises(SourceError, match="is not in"):
                rebuilt(made, tmp_path / "store")

    def test_a_file_in_the_place_of_a_folder_is_a_missing_chunk(self, made: Packed, tmp_path: Path) -> None:
        folder = self.first(made, tmp_path).parent
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        folder.write_bytes(b"")
        with pytest.raises(SourceError, match="is not in"):
            rebuilt(made, tmp_path / "store")

    def test_a_file_too_long_for_its_chunk_is_not_read(self, made: Packed, tmp_path: Path) -> None:
        file = self.first(made, tmp_path)
        with file.open("r+b") as opened:
            opened.truncate(1 << 40)
        with pytest.raises(LimitError, match="more than the"):
            rebuilt(made, tmp_path / "store")
        pack(IMAGE, tmp_path / "other")
        assert rebuilt(made, tmp_path / "store", tmp_path / "other") == IMAGE

    @pytest.mark.parametrize("size", [0, 1, 4, 20])
    def test_a_file_that_is_cut_off_is_found_out(self, made: Packed, tmp_path: Path, size: int) -> None:
        file = self.first(made, tmp_path)
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises((FormatError, DigestError)):
            rebuilt(made, tmp_path / "store")

    def test_swapped_chunks_are_found_out(self, made: Packed, tmp_path: Path) -> None:
        one, two = (chunk_file(tmp_path / "store", made.header, number) for number in (1, 3))
        one_content = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(one_content)
        with pytest.raises((FormatError, DigestError, LimitError)):
            rebuilt(made, tmp_path / "store")

    def test_an_index_that_gives_one_chunk_two_lengths_is_found_out(self, made: Packed, tmp_path: Path) -> None:
        """The bytes of the shorter one have the digest that is asked for."""
        index = bytearray(made.content)
        first, third = 64, 64 + 2 * 40
        index[third + 8 : third + 40] = index[first + 8 : first + 40]
        header = caibx.parse_header(index)
        assert header.lengths[0] != header.lengths[2]
        store = tmp_path / "store"
        streamer = Streamer(match(caibx.recipe(header, ""), []), [], [source(header, store)])
        with pytest.raises((FormatError, DigestError, LimitError)):
            b"".join(streamer.pieces())
        with pytest.raises((FormatError, DigestError, LimitError)):
            apply(caibx.recipe(header, ""), [], [source(header, store)], MemoryMedium())

    def test_what_was_written_before_stays_written(self, made: Packed, tmp_path: Path) -> None:
        self.first(made, tmp_path).unlink()
        target = MemoryMedium()
        with pytest.raises(SourceError):
            apply(made.recipe, [], [source(made.header, tmp_path / "store", threads=1)], target)
        first = made.header.bounds[2]
        assert target.content[:first] == IMAGE[:first]


def test_a_store_needs_a_place() -> None:
    with pytest.raises(ValueError, match="one store"):
        ChunkSource([], DigestColumn(Algorithm.SHA256), path, [], threads=1)


def test_a_store_that_is_not_there_has_no_chunks(tmp_path: Path) -> None:
    assert LocalStore(str(tmp_path / "none")).read(("ab/abc",), 10) is None
