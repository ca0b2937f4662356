# SPDX-License-Identifier: Apache-2.0
"""What a daemon does with its connections, before a kernel that is a client of the same sockets."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from nbd_talk import PatternExport

from regraft.blockdev import mounts, records
from regraft.blockdev.attachment import Disk
from regraft.blockdev.daemon import Control
from regraft.blockdev.mounts import Faults, NbdMount
from regraft.blockdev.records import Record
from regraft.blockdev.views import joined
from regraft.errors import BusyError, RegraftError, StateError


class Kernel:
    """An attachment that keeps the sockets as the kernel does: a new one counts only in the place of a dead one."""

    can_reconfigure = True

    def __init__(self) -> None:
        self.lines: list[socket.socket] = []
        self.disk: Disk | None = None

    def attach(self, device: str, sockets: Sequence[socket.socket], disk: Disk) -> str:
        self.disk, self.lines = disk, [each.dup() for each in sockets]
        return "/dev/nbd9" if device == "auto" else device

    def reconfigure(self, device: str, sockets: Sequence[socket.socket], disk: Disk) -> None:
        fresh = [each.dup() for each in sockets]
        for row, line in enumerate(self.lines):
            if fresh and dead(line):
                line.close()
                self.lines[row] = fresh.pop()
        for each in fresh:
            each.close()

    def disconnect(self, device: str) -> None:
        self.disk = None
        for line in self.lines:
            line.close()

    def connected(self, device: str) -> bool:
        return self.disk is not None

    def read(self, line: int, offset: int, length: int) -> bytes:
        self.lines[line].sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, offset, length))
        magic, error, cookie = struct.unpack(">IIQ", self._receive(line, 16))
        assert (magic, error, cookie) == (0x67446698, 0, 7)
        return self._receive(line, length)

    def _receive(self, line: int, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.lines[line].recv(count - len(data))
            assert piece
            data += piece
        return data


def dead(line: socket.socket) -> bool:
    try:
        return line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.fixture(autouse=True)
def _no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "hold_unused", lambda device: -1)
    monkeypatch.setattr(mounts, "set_queue", lambda index, values: None)


DISK = PatternExport(size=100_000)
RECORD = Record("nbd", "auto", "/image", 102_400, 1, identifier="regraft-1", connections=2, timeout=5, dead_timeout=9)


def begun(kernel: Kernel, faults: Faults | None = None) -> NbdMount:
    mount = NbdMount(joined([DISK], name="disk"), kernel, RECORD, faults or Faults())
    mount.attach()
    return mount


def test_the_kernel_gets_sockets_that_are_served(state_folder: Path) -> None:
    kernel = Kernel()
    mount = begun(kernel)
    assert mount.record.target == "/dev/nbd9"
    assert kernel.disk == Disk(102_400, timeout=5, dead_timeout=9, identifier="regraft-1")
    for line in range(2):
        assert kernel.read(line, 98_304, 4096) == DISK.content[98_304:] + bytes(2400)
    assert mount.tend()
    assert mount.status()["live_connections"] == 2
    mount.detach()
    assert not mount.tend()
    mount.detach()  # a second time is nothing


def test_a_connection_that_is_lost_is_replaced(state_folder: Path) -> None:
    kernel, faults = Kernel(), Faults()
    mount = begun(kernel, faults)
    kernel.lines[0].sendall(bytes(28))  # no request: the server hangs up
    while not dead(kernel.lines[0]):
        pass
    while mount.status()["live_connections"] == 2:
        pass
    assert mount.tend()
    assert kernel.read(0, 0, 512) == DISK.content[:512]
    assert mount.status()["live_connections"] == 2
    assert "replaced" in mount.status()["last_errors"][-1]["what"]
    mount.detach()


def test_a_device_that_others_detached_is_gone(state_folder: Path) -> None:
    kernel = Kernel()
    mount = begun(kernel)
    kernel.disconnect("/dev/nbd9")
    while mount.status()["live_connections"]:
        pass
    assert not mount.tend()
    mount.close()


def test_a_device_in_use_stays(state_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(device: str) -> int:
        raise BusyError(f"{device} is mounted")

    kernel = Kernel()
    mount = begun(kernel)
    monkeypatch.setattr(mounts, "hold_unused", busy)
    with pytest.raises(BusyError):
        mount.detach()
    assert kernel.read(1, 0, 512) == DISK.content[:512]
    mount.detach(force=True)
    assert kernel.disk is None


def test_asking_the_daemon(state_folder: Path) -> None:
    kernel, wake = Kernel(), threading.Event()
    mount = begun(kernel, Faults())
    control = Control(mount, wake, Faults())
    assert (records.ask("nbd9", "status") or {})["status"]["state"] == "serving"
    assert "nobody knows" in (records.ask("nbd9", "dance") or {})["error"]["cause"]
    assert records.ask("nbd9", "detach") == {"detached": True}
    assert wake.wait(5)
    assert control.detached
    control.close()


def test_a_question_that_fails_is_not_the_last_one(state_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults()
    mount = begun(Kernel(), faults)
    control = Control(mount, threading.Event(), faults)
    with monkeypatch.context() as patch:
        patch.setattr(mount, "status", lambda: 1 // 0)
        assert "ZeroDivisionError" in (records.ask("nbd9", "status") or {})["error"]["cause"]
    assert (records.ask("nbd9", "status") or {})["status"]["errors"] == 1
    assert records.ask("nbd9", "detach") == {"detached": True}
    control.close()


def test_a_hand_over_keeps_every_connection(state_folder: Path) -> None:
    kernel, wake = Kernel(), threading.Event()
    old = begun(kernel)
    control = Control(old, wake, Faults())
    new = NbdMount(joined([DISK], name="disk"), kernel, old.record, Faults())
    kernel.lines[0].sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, 16)[:11])  # half a request
    line = records.connect("nbd9")
    assert line is not None
    with line:
        records.say(line, {"ask": "hand-over"})
        assert "error" not in records.peek(line)
        new.take_over(line)
    assert wake.wait(5)
    assert control.handed_over
    assert not old.tend()
    kernel.lines[0].sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, 16)[11:])
    assert kernel._receive(0, 32)[16:] == DISK.content[:16]
    assert kernel.read(1, 4096, 512) == DISK.content[4096:4608]
    assert new.status()["live_connections"] == 2
    new.detach()
    control.close()


def test_a_hand_over_to_somebody_else_leaves_all_as_it_was(state_folder: Path) -> None:
    kernel = Kernel()
    old = begun(kernel)
    other = NbdMount(joined([PatternExport(size=5000)], name="disk"), kernel, old.record, Faults())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    failed: list[RegraftError] = []

    def give() -> None:
        try:
            old.hand_over(ours)
        except StateError as error:
            failed.append(error)

    thread = threading.Thread(target=give)
    thread.start()
    with theirs, pytest.raises(StateError):
        other.take_over(theirs)
    thread.join()
    ours.close()
    assert failed
    assert old.tend()
    assert kernel.read(0, 0, 512) == DISK.content[:512]
    old.detach()
    other.close()


def test_a_dead_daemon_is_replaced_only_by_one_with_the_same_image(
    state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel()
    first = begun(kernel)
    monkeypatch.setattr(mounts, "size_of", lambda index: 102_400)
    for known, words in (("", "another program"), ("regraft-2", "another image"), ("regraft-1", "lives")):
        monkeypatch.setattr(mounts, "identifier_of", lambda index, known=known: known)
        other = NbdMount(joined([DISK], name="disk"), kernel, first.record, Faults())
        with pytest.raises(BusyError, match=words):
            other.reattach()
        other.close()
    assert kernel.read(0, 0, 512) == DISK.content[:512]
    first.close()  # as if it were killed
    second = NbdMount(joined([DISK], name="disk"), kernel, first.record, Faults())
    second.reattach()
    assert kernel.read(1, 0, 512) == DISK.content[:512]
    second.detach()
