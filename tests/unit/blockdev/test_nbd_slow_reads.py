# SPDX-License-Identifier: Apache-2.0
"""Reads that wait for a peer: nothing waits behind them, any order will do for their answers, and none is lost."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from nbd_talk import BLOCK_STATUS, DISC, EIO, ESHUTDOWN, FLUSH, READ, WRITE, Client, PatternExport, request

from regraft.blockdev.export import SlowExport
from regraft.blockdev.nbd.handover import hand_over, take_over
from regraft.blockdev.nbd.server import Server
from regraft.blockdev.nbd.slow import Workers
from regraft.errors import StallError
from regraft.limits import Limits

MIB = 1 << 20
SLOW = 3 * MIB // 4  #: from here on, reads wait


@dataclass
class Behind(PatternExport):
    """The last quarter waits until it is let go."""

    go: threading.Event = field(default_factory=threading.Event)
    waiting: int = 0
    most: int = 0
    fails: bool = False

    def ready(self, offset: int, length: int) -> bool:
        return offset + length <= SLOW or (self.go.is_set() and not self.fails)

    def read_into(self, offset: int, view: memoryview) -> None:
        if offset + len(view) > SLOW:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            try:
                if not self.go.wait(20) or self.fails:
                    raise StallError("the peer is silent")
            finally:
                self.waiting -= 1
        super().read_into(offset, view)


Attach = Callable[..., Client]


@pytest.fixture
def disk() -> Iterator[Behind]:
    export = Behind()
    assert isinstance(export, SlowExport)
    assert not isinstance(PatternExport(), SlowExport)
    yield export
    export.go.set()


@pytest.fixture
def words() -> list[str]:
    return []


@pytest.fixture
def server(disk: Behind, words: list[str]) -> Iterator[Server]:
    with Server([disk], report=words.append, limits=Limits(nbd_slow_reads=4, nbd_pending=8)) as running:
        yield running
        disk.go.set()


@pytest.fixture
def attach(server: Server) -> Iterator[Attach]:
    made: list[Client] = []

    def attached(**how: object) -> Client:
        ours, theirs = socket.socketpair()
        server.serve(theirs)
        made.append(Client(ours))
        made[-1].attach(**how)  # type: ignore[arg-type]
        return made[-1]

    yield attached
    for client in made:
        client.line.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("structured", [True, False])
def test_what_comes_behind_a_slow_read_is_answered_before_it(disk: Behind, attach: Attach, structured: bool) -> None:
    client = attach(structured=structured)
    client.say(request(READ, SLOW, 4096, cookie=1) + request(READ, 0, 512, cookie=2) + request(FLUSH, cookie=3))
    first = client.answer(reads=512)
    assert (first.cookie, first.data(0, 512)) == (2, disk.content[:512])
    assert client.answer().cookie == 3
    disk.go.set()
    slow = client.answer(reads=4096)
    assert slow.cookie == 1
    assert slow.data(SLOW if structured else 0, 4096) == disk.content[SLOW : SLOW + 4096]


def test_the_failure_of_a_slow_read_is_its_own(disk: Behind, attach: Attach, words: list[str]) -> None:
    client = attach()
    disk.fails = True
    client.say(request(READ, SLOW, 4096, cookie=1) + request(READ, 0, 512, cookie=2))
    assert client.answer().cookie == 2
    disk.go.set()
    failed = client.answer()
    assert (failed.cookie, failed.error) == (1, EIO)
    assert words == ["the peer is silent"]
    disk.fails = False
    assert client.command(READ, SLOW, 4096).data(SLOW, 4096) == disk.content[SLOW : SLOW + 4096]


@pytest.mark.parametrize("structured", [True, False])
def test_slow_reads_larger_than_a_buffer_are_not_mixed_up(disk: Behind, attach: Attach, structured: bool) -> None:
    client = attach(structured=structured)
    for row in range(6):
        client.say(request(READ, MIB // 2 + row, MIB // 2 - row, cookie=row))
    client.say(b"".join(request(READ, 100 + row, 1000, cookie=100 + row) for row in range(50)))
    for _ in range(50):
        answer = client.answer(reads=1000)
        assert answer.data(answer.cookie if structured else 0, 1000) == disk.content[answer.cookie :][:1000]
    disk.go.set()
    if structured:
        chunks: dict[int, bytearray] = {row: bytearray(MIB // 2 - row) for row in range(6)}
        left = 6
        while left:
            magic, flags, kind, cookie, length = _chunk_head(client)
            payload = client.take(length)
            assert (magic, kind) == (0x668E33EF, 1)
            start = int.from_bytes(payload[:8], "big") - MIB // 2 - cookie
            chunks[cookie][start : start + length - 8] = payload[8:]
            left -= flags & 1
        found = {row: bytes(content) for row, content in chunks.items()}
    else:
        found = {}
        for _ in range(6):
            _, error, cookie = _simple_head(client)
            assert not error
            found[cookie] = client.take(MIB // 2 - cookie)
    assert found == {row: disk.content[MIB // 2 + row :] for row in range(6)}


def _chunk_head(client: Client) -> tuple[int, int, int, int, int]:
    magic, flags, kind, cookie, length = struct.unpack(">IHHQI", client.take(20))
    return magic, flags, kind, cookie, length


def _simple_head(client: Client) -> tuple[int, int, int]:
    magic, error, cookie = struct.unpack(">IIQ", client.take(16))
    assert magic == 0x67446698
    return magic, error, cookie


def test_one_client_has_only_so_many_slow_reads_at_once(disk: Behind, attach: Attach) -> None:
    client, other = attach(), attach()
    client.say(b"".join(request(READ, SLOW + row, 10, cookie=row) for row in range(40)))
    until(lambda: disk.waiting == 4)
    assert other.command(READ, 0, 100).data(0, 100) == disk.content[:100]
    other.say(request(READ, SLOW, 10, cookie=77))
    until(lambda: disk.waiting == 5)
    disk.go.set()
    assert sorted(client.answer().cookie for _ in range(40)) == list(range(40))
    assert other.answer().cookie == 77
    assert disk.most == 5


def test_bad_requests_and_writes_beside_slow_reads(disk: Behind, attach: Attach) -> None:
    client = attach()
    client.say(
        request(READ, SLOW, 4096, cookie=1)
        + request(READ, MIB, 1, cookie=2)
        + request(WRITE, 0, 5, cookie=3)
        + b"12345"
        + request(BLOCK_STATUS, 0, 10, cookie=4)
        + request(READ, SLOW, 0, cookie=5)
    )
    assert {client.answer().cookie for _ in range(4)} == {2, 3, 4, 5}
    disk.go.set()
    assert client.answer().cookie == 1


def test_good_bye_waits_for_what_was_asked(disk: Behind, attach: Attach) -> None:
    client = attach()
    client.say(request(READ, SLOW, 4096, cookie=1) + request(DISC))
    until(lambda: disk.waiting == 1)
    disk.go.set()
    assert client.answer().data(SLOW, 4096) == disk.content[SLOW : SLOW + 4096]
    assert client.ended()


def test_a_client_that_leaves_in_the_middle_takes_nothing_with_it(
    disk: Behind, server: Server, attach: Attach, words: list[str]
) -> None:
    client, other = attach(), attach()
    client.say(b"".join(request(READ, SLOW, 4096, cookie=row) for row in range(8)))
    until(lambda: disk.waiting == 4)
    client.line.close()
    until(lambda: server.clients == 1)
    disk.go.set()
    assert other.command(READ, SLOW, 100).error == 0
    assert not words


def test_the_end_refuses_slow_reads_that_take_too_long(disk: Behind) -> None:
    server = Server([disk], limits=Limits(nbd_slow_reads=4))
    server.start()
    ours, theirs = socket.socketpair()
    server.serve(theirs)
    client = Client(ours)
    client.attach()
    client.say(b"".join(request(READ, SLOW, 4096, cookie=row) for row in range(6)))
    until(lambda: disk.waiting == 4)
    stopping = threading.Thread(target=server.stop, args=(1.5,))
    stopping.start()
    refused = [client.answer() for _ in range(6)]
    assert sorted((answer.cookie, answer.error) for answer in refused) == [(row, ESHUTDOWN) for row in range(6)]
    stopping.join()
    assert client.ended()
    ours.close()


def test_slow_reads_move_to_the_successor(disk: Behind, server: Server, attach: Attach) -> None:
    client = attach()
    client.say(b"".join(request(READ, SLOW + row, 4096, cookie=row) for row in range(10)))
    until(lambda: disk.waiting == 4)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    open_disk = Behind()
    open_disk.go.set()
    successor = Server([open_disk])
    taking = threading.Thread(target=take_over, args=(successor, theirs))
    taking.start()
    began = time.monotonic()
    assert hand_over(server, ours) == 1
    assert time.monotonic() - began < 5
    taking.join()
    answers = [client.answer() for _ in range(10)]
    assert sorted(answer.cookie for answer in answers) == list(range(10))
    for answer in answers:
        start = SLOW + answer.cookie
        assert answer.data(start, 4096) == disk.content[start : start + 4096]
    disk.go.set()  # those that wait in the old process have nobody to answer
    assert client.command(READ, 0, 10).error == 0
    client.line.close()
    successor.stop()
    ours.close()
    theirs.close()


def test_slow_reads_stay_if_there_is_no_successor(disk: Behind, server: Server, attach: Attach) -> None:
    client = attach()
    client.say(request(READ, SLOW, 4096, cookie=1))
    until(lambda: disk.waiting == 1)
    server.go_on(server.rest(2))
    disk.go.set()
    assert client.answer().data(SLOW, 4096) == disk.content[SLOW : SLOW + 4096]


def test_a_fault_of_the_export_itself_ends_the_connection(disk: Behind, attach: Attach, words: list[str]) -> None:
    client = attach()

    def broken(offset: int, view: memoryview) -> None:
        raise ZeroDivisionError

    disk.read_into = broken  # type: ignore[method-assign]
    client.say(request(READ, SLOW, 4096, cookie=1))
    assert client.ended()
    assert words == ["a read failed: ZeroDivisionError()"]


def test_without_a_thread_for_a_slow_read_the_connection_ends_at_once(
    disk: Behind, server: Server, attach: Attach, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(self: object, work: object) -> None:
        raise RuntimeError("can't start new thread")

    client, other = attach(), attach()
    monkeypatch.setattr(Workers, "submit", exhausted)
    client.say(request(READ, SLOW, 4096, cookie=1) + request(READ, SLOW, 512, cookie=2) + request(DISC))
    assert client.ended()
    until(lambda: server.clients == 1)
    assert words == ["""a read failed: RuntimeError("can't start new thread")"""]
    assert other.command(READ, 0, 100).data(0, 100) == disk.content[:100]
