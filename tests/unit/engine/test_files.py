# SPDX-License-Identifier: Apache-2.0
"""Media on a real system: files in a folder, and loop devices where we may make them."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from loops import loop_device, mounted
from tools import tool

from regraft.engine.files import FileDirectory, open_source, open_target
from regraft.engine.medium import read_all, save
from regraft.errors import BusyError, MediumError, SourceError, SpaceError, TooSmallError

SIZE = 1 << 20
NOISE = bytes(range(1, 256)) * (SIZE // 255 + 1)


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "backing").write_bytes(NOISE[:SIZE])
    with loop_device(tmp_path / "backing") as path:
        yield path


def content(path: str | Path) -> bytes:
    return Path(path).read_bytes()


# files


def test_a_missing_target_file_is_made(tmp_path: Path) -> None:
    medium = open_target(str(tmp_path / "new"))
    medium.write(5, b"abc")
    medium.sync()
    assert (medium.size, medium.sparse, medium.is_device) == (8, True, False)
    medium.close()
    medium.close()
    assert content(tmp_path / "new") == b"\0\0\0\0\0abc"


def test_reading_ends_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    medium, view = open_source(str(tmp_path / "f")), memoryview(bytearray(8))
    assert (medium.read_into(1, view), bytes(view)) == (8, b"12345678")
    assert medium.read_into(7, view) == 3
    assert medium.read_into(10, view) == medium.read_into(99, view) == 0
    medium.close()


def test_zeros_in_a_file_are_holes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(NOISE[:SIZE])
    medium = open_target(str(tmp_path / "f"))
    medium.zero(8192, SIZE // 2)
    medium.zero(3, 0)
    medium.zero(SIZE - 10, 5000)  # beyond the end: it grows
    medium.sync()
    assert os.stat(tmp_path / "f").st_blocks * 512 <= SIZE // 2 + 65_536
    expected = bytearray(NOISE[:SIZE]) + bytes(4990)
    expected[8192 : 8192 + SIZE // 2] = bytes(SIZE // 2)
    expected[SIZE - 10 :] = bytes(5000)
    medium.close()
    assert content(tmp_path / "f") == expected


def test_zeros_where_no_holes_can_be_made_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(NOISE[:9000])
    medium = open_target(str(tmp_path / "f"))
    monkeypatch.setattr("regraft.engine.files._libc", _NoHoles())
    medium.zero(100, 5000)
    medium.close()
    assert content(tmp_path / "f") == NOISE[:100] + bytes(5000) + NOISE[5100:9000]


class _NoHoles:
    """A file system such as FAT."""

    def fallocate(self, *_: int) -> int:
        return -1


def test_resizing_cuts_and_grows(tmp_path: Path) -> None:
    medium = open_target(str(tmp_path / "f"))
    medium.write(0, b"0123456789")
    medium.resize(4)
    medium.resize(6)
    medium.forget()
    medium.close()
    assert content(tmp_path / "f") == b"0123\0\0"


def test_two_writers_are_one_too_many(tmp_path: Path) -> None:
    first = open_target(str(tmp_path / "f"))
    with pytest.raises(BusyError, match="another process"):
        open_target(str(tmp_path / "f"))
    first.close()
    open_target(str(tmp_path / "f")).close()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/null"):  # opening a pipe must not wait for its other end
        with pytest.raises(SourceError):
            open_source(str(path))
    for path in (tmp_path / "pipe", tmp_path, "/dev/null", "/dev/no-such-device", tmp_path / "no" / "f"):
        with pytest.raises(MediumError):
            open_target(str(path))
    assert not os.path.exists("/dev/no-such-device")
    with pytest.raises(SourceError, match="No such file"):
        open_source(str(tmp_path / "missing"))


def test_no_space_left(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=64k", "none") as small:
        medium = open_target(str(small / "f"))
        medium.resize(SIZE)  # sparse: takes nothing
        with pytest.raises(SpaceError):
            medium.write(0, NOISE[:SIZE])
        medium.close()


def test_a_read_error_names_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)
    medium = open_source(str(tmp_path / "f"))

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(SourceError, match="f at 10: Input/output error"):
        medium.read_into(10, memoryview(bytearray(5)))
    medium.close()


# devices


@pytest.mark.parametrize(("offset", "length"), [(0, SIZE), (1, 300_000), (4096, 262_144), (5000, 100), (SIZE - 7, 7)])
def test_zeros_on_a_device(slot: str, offset: int, length: int) -> None:
    medium = open_target(slot)
    assert (medium.is_device, medium.sparse, medium.size) == (True, False, SIZE)
    medium.zero(offset, length)
    medium.sync()
    medium.forget()
    view = memoryview(bytearray(SIZE))
    assert medium.read_into(0, view) == SIZE
    medium.close()
    assert view == NOISE[:offset] + bytes(length) + NOISE[offset + length : SIZE]


def test_zeros_on_a_device_that_cannot_zero_are_written(slot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    medium = open_target(slot)
    monkeypatch.setattr("regraft.engine.files._BLKZEROOUT", 0xDEAD)
    medium.zero(100, 500_000)
    medium.close()
    assert content(slot) == NOISE[:100] + bytes(500_000) + NOISE[500_100:SIZE]


def test_a_device_has_its_size(slot: str) -> None:
    medium = open_target(slot)
    medium.resize(SIZE)
    medium.resize(10)  # nothing to do
    assert medium.size == SIZE
    with pytest.raises(TooSmallError, match=str(SIZE + 1)):
        medium.resize(SIZE + 1)
    with pytest.raises(TooSmallError):
        medium.write(SIZE - 1, b"ab")
    with pytest.raises(TooSmallError):
        medium.zero(SIZE - 100, 200_000)
    medium.close()


def test_a_device_with_a_mounted_file_system_is_busy(slot: str, tmp_path: Path) -> None:
    subprocess.run([tool("mke2fs"), "-q", "-F", slot], check=True, capture_output=True)
    with mounted(tmp_path / "mnt", slot), pytest.raises(BusyError, match="mounted"):
        open_target(slot)


def overwrite(path: str) -> None:
    medium = open_target(path)  # some kernels refuse here, others only the write
    try:
        medium.write(0, b"x")
        medium.sync()
    finally:
        medium.close()


def test_a_read_only_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "backing").write_bytes(bytes(SIZE))
    with loop_device(tmp_path / "backing", "-r") as path:
        with pytest.raises(MediumError):
            overwrite(path)
        open_source(path).close()


# folders


def test_a_folder_of_small_files(tmp_path: Path) -> None:
    folder = FileDirectory(str(tmp_path / "a" / "b"))
    assert not folder.exists("one")
    with pytest.raises(FileNotFoundError):
        folder.open("one")
    folder.remove("one")
    save(folder, "one", b"content")
    medium = folder.open("one")
    assert read_all(medium, 7) == b"content"
    with pytest.raises(ValueError, match="more than 6"):
        read_all(medium, 6)
    medium.close()
    save(folder, "one", b"c")
    folder.replace("one", "two")
    assert os.listdir(tmp_path / "a" / "b") == ["two"]
    folder.create("two").close()
    assert content(tmp_path / "a" / "b" / "two") == b""
    folder.remove("two")
    folder.close()
    folder.close()
    assert os.listdir(tmp_path / "a" / "b") == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"mine")
    folder = FileDirectory(str(tmp_path / "state"))
    (tmp_path / "state" / "link").symlink_to(tmp_path / "outside")
    for attempt in (folder.open, folder.create):
        with pytest.raises(MediumError):
            attempt("link")
    folder.close()
    assert content(tmp_path / "outside") == b"mine"


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MediumError):
        FileDirectory(str(tmp_path / "file" / "folder"))
