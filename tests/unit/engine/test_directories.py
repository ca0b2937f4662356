# SPDX-License-Identifier: Apache-2.0
"""What every directory does alike: the real one, that in memory, and the ones that record or call hooks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.engine.files import FileDirectory
from regraft.engine.medium import Directory, save
from regraft.errors import BusyError
from regraft.testing.crash import Log, World
from regraft.testing.hooks import HookedDirectory
from regraft.testing.memory import MemoryDirectory

Make = Callable[[Path], Directory]


def hooked(path: Path) -> Directory:
    def hook(call: str, _name: str) -> None:
        if call == "wait":
            time.sleep(0.001)

    return HookedDirectory(FileDirectory(str(path)), hook)


@pytest.fixture(params=["file", "memory", "recorded", "hooked"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Directory:
    makers: dict[str, Make] = {
        "file": lambda path: FileDirectory(str(path)),
        "memory": lambda _: MemoryDirectory(),
        "recorded": lambda _: Log(World()).directory,
        "hooked": hooked,
    }
    return makers[request.param](tmp_path)


def test_names_are_sorted_and_space_is_told(directory: Directory) -> None:
    assert directory.names() == []
    for name in ("b", "a", "c"):
        save(directory, name, name.encode())
    directory.remove("b")
    assert directory.names() == ["a", "c"]
    assert directory.free_space() > 1 << 20
    assert directory.path


def test_a_lock_keeps_others_out(directory: Directory) -> None:
    with pytest.raises(FileNotFoundError):
        directory.lock("file")
    save(directory, "file", b"")
    held = directory.lock("file")
    for shared in (False, True):
        with pytest.raises(BusyError):
            directory.lock("file", shared=shared, wait=False)
    held.release()
    held.release()
    readers = [directory.lock("file", shared=True), directory.lock("file", shared=True)]
    with pytest.raises(BusyError):
        directory.lock("file", wait=False)
    readers[0].release()
    with pytest.raises(BusyError):
        directory.lock("file", wait=False)
    readers[1].release()
    directory.lock("file", wait=False).release()


def test_a_lock_is_waited_for(directory: Directory) -> None:
    save(directory, "file", b"")
    held = directory.lock("file")
    got: list[object] = []

    def wait() -> None:
        lock = directory.lock("file", shared=True)
        got.append(lock)
        lock.release()

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.05)
    assert not got
    held.release()
    waiting.join(30)
    assert got


def test_a_lock_belongs_to_the_file_and_not_to_its_name(directory: Directory) -> None:
    save(directory, "file", b"old")
    held = directory.lock("file")
    save(directory, "file", b"new")
    directory.lock("file", wait=False).release()
    held.release()


def test_who_waited_for_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    directory = FileDirectory(str(tmp_path))
    save(directory, "file", b"")
    held = directory.lock("file")
    told: list[type[BaseException]] = []

    def wait() -> None:
        try:
            directory.lock("file")
        except FileNotFoundError as error:
            told.append(type(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.05)
    directory.remove("file")
    held.release()
    waiting.join(30)
    assert told == [FileNotFoundError]
