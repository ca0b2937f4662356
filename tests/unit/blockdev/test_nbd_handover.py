# SPDX-License-Identifier: Apache-2.0
"""Live connections move to another process without their clients noticing, or stay where they are."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbd_talk import BLOCK_STATUS, READ, WRITE, Client, PatternExport, request

from regraft.blockdev.export import FileExport
from regraft.blockdev.nbd import handover
from regraft.blockdev.nbd.handover import VERSION, hand_over, take_over
from regraft.blockdev.nbd.server import Server, listen_unix
from regraft.errors import StateError

MIB = 1 << 20
SUCCESSOR = """
import os, socket, sys
from regraft.blockdev.export import FileExport
from regraft.blockdev.nbd.handover import take_over
from regraft.blockdev.nbd.server import Server
server = Server([FileExport(sys.argv[1])])
channel = socket.socket(fileno=int(sys.argv[2]))
print(take_over(server, channel), os.getpid(), flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ours, theirs
    ours.close()
    theirs.close()


def attached(server: Server, contexts: tuple[bytes, ...] = ()) -> Client:
    ours, theirs = socket.socketpair()
    server.serve(theirs)
    client = Client(ours)
    client.attach(contexts=contexts)
    return client


def test_clients_go_on_in_another_process(tmp_path: Path, channel: tuple[socket.socket, socket.socket]) -> None:
    disk = PatternExport()
    image, path = tmp_path / "image", str(tmp_path / "s")
    image.write_bytes(disk.content)
    server = Server([FileExport(str(image))], [listen_unix(path)])
    server.start()
    idle = attached(server, (b"base:allocation",))
    half = attached(server)
    half.say(request(READ, 100, 4096)[:11])
    writing = attached(server)
    writing.say(request(WRITE, 0, 1000) + bytes(300))
    busy = attached(server)
    answered = 0
    over = threading.Event()

    def keep_reading() -> None:
        nonlocal answered
        while not over.is_set():
            at = answered * 4096 % MIB
            assert busy.command(READ, at, 4096).data(at, 4096) == disk.content[at : at + 4096]
            answered += 1

    reader = threading.Thread(target=keep_reading)
    reader.start()
    ours, theirs = channel
    command = [sys.executable, "-c", SUCCESSOR, str(image), str(theirs.fileno())]
    with subprocess.Popen(
        command, pass_fds=[theirs.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as successor:
        assert successor.stdout is not None
        theirs.close()
        assert hand_over(server, ours, timeout=20) == 4
        assert successor.stdout.readline().split() == ["4", str(successor.pid)]
        assert server.clients == 0
        server.stop()
        before = answered
        half.say(request(READ, 100, 4096)[11:])
        assert half.answer().data(100, 4096) == disk.content[100:4196]
        writing.say(bytes(700) + request(READ, 5, 5))
        assert writing.answer().error == 1
        assert writing.answer().data(5, 5) == disk.content[5:10]
        assert idle.command(BLOCK_STATUS, 0, 512).statuses.keys() == {1}
        line = socket.socket(socket.AF_UNIX)
        line.connect(path)
        newcomer = Client(line)
        assert newcomer.attach()[0] == MIB
        while answered <= before + 10:
            assert reader.is_alive()
        over.set()
        reader.join()
        for client in (idle, half, writing, busy, newcomer):
            client.line.close()
        successor.communicate("")
    assert successor.returncode == 0
    assert not os.path.exists(path)


def test_clients_stay_whatever_fails(
    channel: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(connection: object) -> None:
        raise MemoryError

    monkeypatch.setattr(handover, "_describe", exhausted)
    disk = PatternExport()
    with Server([disk]) as server:
        client = attached(server)
        with pytest.raises(MemoryError):
            hand_over(server, channel[0])
        assert client.command(READ, 0, 512).data(0, 512) == disk.content[:512]
        client.line.close()


def test_clients_stay_if_the_successor_dies(channel: tuple[socket.socket, socket.socket]) -> None:
    disk = PatternExport()
    ours, theirs = channel
    with Server([disk]) as server:
        client = attached(server)
        client.say(request(READ, 0, 512)[:20])
        theirs.close()
        with pytest.raises(StateError):
            hand_over(server, ours)
        client.say(request(READ, 0, 512)[20:])
        assert client.answer().data(0, 512) == disk.content[:512]
        another = attached(server)
        assert another.command(READ, 0, 512).error == 0
        client.line.close()
        another.line.close()


@pytest.mark.parametrize("other", [PatternExport("other"), PatternExport(size=2 * MIB)])
def test_clients_stay_if_the_successor_serves_something_else(
    channel: tuple[socket.socket, socket.socket], other: PatternExport
) -> None:
    ours, theirs = channel
    failed: list[StateError] = []

    def succeed() -> None:
        server = Server([other])
        try:
            take_over(server, theirs)
        except StateError as error:
            failed.append(error)
        finally:
            server.stop()
            theirs.close()

    with Server([PatternExport()]) as server:
        client = attached(server)
        thread = threading.Thread(target=succeed)
        thread.start()
        with pytest.raises(StateError):
            hand_over(server, ours)
        thread.join()
        assert failed
        assert client.command(READ, 0, 512).error == 0
        client.line.close()


CONNECTION = {
    "kind": "connection", "export": "disk", "size": MIB, "structured": True, "contexts": [],
    "header": "", "skip": 0, "write": "", "unanswered": "",
}  # fmt: skip
BEGIN = {"kind": "begin", "version": VERSION, "listeners": 0, "connections": 1}


@pytest.mark.parametrize(
    "records",
    [
        [],
        [b"x"],
        [b"[]"],
        [b"\xff"],
        [{}],
        [BEGIN | {"version": VERSION - 1}],
        [BEGIN | {"connections": -1}],
        [BEGIN | {"connections": 1 << 40}],
        [BEGIN | {"listeners": True}],
        [BEGIN],
        [BEGIN, {"kind": "listener"}],
        [BEGIN, CONNECTION | {"export": ["disk"]}],
        [BEGIN, CONNECTION | {"contexts": "base:allocation"}],
        [BEGIN, CONNECTION | {"contexts": [1]}],
        [BEGIN, CONNECTION | {"header": "zz"}],
        [BEGIN, CONNECTION | {"header": "00" * 28}],
        [BEGIN, CONNECTION | {"skip": 5}],
        [BEGIN, CONNECTION | {"write": "00"}],
        [BEGIN, CONNECTION | {"unanswered": "00"}],
        [BEGIN, CONNECTION],
        [BEGIN, CONNECTION, {"kind": "stop"}],
    ],
)
def test_a_predecessor_in_disorder(channel: tuple[socket.socket, socket.socket], records: list[object]) -> None:
    ours, theirs = channel
    client, passed = socket.socketpair()
    for record in records:
        data = record if isinstance(record, bytes) else json.dumps(record).encode()
        descriptors = [passed.fileno()] if isinstance(record, dict) and "export" in record else []
        socket.send_fds(ours, [data], descriptors)
    ours.shutdown(socket.SHUT_WR)
    passed.close()
    server = Server([PatternExport()])
    with pytest.raises(StateError):
        take_over(server, theirs, timeout=2)
    assert server.clients == 0
    if any(isinstance(record, dict) and "export" in record for record in records):
        client.settimeout(5)
        assert client.recv(1) == b""  # what was received is closed
    client.close()
    server.stop()
