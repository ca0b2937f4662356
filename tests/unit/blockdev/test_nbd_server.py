# SPDX-License-Identifier: Apache-2.0
"""A client over a real socket: reads and their errors, block status, several clients, limits, and the end."""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nbd_talk import (
    ABORT,
    ACK,
    BLOCK_STATUS,
    CACHE,
    DF,
    DISC,
    EINVAL,
    EIO,
    EPERM,
    ESHUTDOWN,
    EXPORT_NAME,
    FLUSH,
    FUA,
    GO,
    LIST,
    READ,
    REQ_ONE,
    STRUCTURED,
    TRIM,
    WRITE,
    WRITE_ZEROES,
    Client,
    PatternExport,
    go,
    option,
    request,
)

from regraft.blockdev.export import BlockSizes, FileExport, Piece
from regraft.blockdev.nbd.exports import Session
from regraft.blockdev.nbd.server import Server, listen_tcp, listen_unix
from regraft.errors import BusyError, SourceError, UsageError
from regraft.limits import Limits

MIB = 1 << 20


class Bench:
    """A server of one export, and clients of it."""

    def __init__(self, export: PatternExport | FileExport, limits: Limits) -> None:
        self.words: list[str] = []
        self.server = Server([export], report=self.words.append, limits=limits)
        self.clients: list[Client] = []

    def client(self) -> Client:
        ours, theirs = socket.socketpair()
        self.server.serve(theirs)
        self.clients.append(Client(ours))
        return self.clients[-1]

    def attached(self, *, structured: bool = True, contexts: tuple[bytes, ...] = ()) -> Client:
        client = self.client()
        client.attach(structured=structured, contexts=contexts)
        return client


Make = Callable[..., Bench]


@pytest.fixture
def bench() -> Iterator[Make]:
    made: list[Bench] = []

    def make(export: PatternExport | FileExport | None = None, limits: Limits | None = None) -> Bench:
        made.append(Bench(export or PatternExport(), limits or Limits()))
        return made[-1]

    yield make
    for one in made:
        for client in one.clients:
            client.line.close()
        one.server.stop()
        assert one.server.clients == 0


RANGES = [
    (0, 1),
    (0, 4096),
    (1, 4095),
    (MIB // 4 - 10, 20),
    (MIB // 4, 4096),
    (MIB // 2 - 1, 70_000),
    (0, MIB),
    (MIB - 1, 1),
    (MIB // 4, MIB // 4),
]


@pytest.mark.parametrize(("offset", "length"), RANGES)
@pytest.mark.parametrize("flags", [0, DF, FUA, DF | FUA])
def test_structured_reads(bench: Make, offset: int, length: int, flags: int) -> None:
    disk = PatternExport()
    answer = bench(disk).attached().command(READ, offset, length, flags=flags)
    assert not answer.simple
    assert answer.data(offset, length) == disk.content[offset : offset + length]
    if flags & DF:
        assert len(answer.pieces) + len(answer.holes) == 1


@pytest.mark.parametrize(("offset", "length"), RANGES)
def test_simple_reads(bench: Make, offset: int, length: int) -> None:
    disk = PatternExport()
    answer = bench(disk).attached(structured=False).command(READ, offset, length, simple=True)
    assert answer.pieces == [(0, disk.content[offset : offset + length])]


def test_holes_are_not_sent(bench: Make) -> None:
    client = bench().attached()
    assert client.command(READ, 0, MIB).holes == [(MIB // 4, MIB // 4)]
    assert client.command(READ, MIB // 4, 4096).holes == [(MIB // 4, 4096)]


def test_zero_length_is_answered(bench: Make) -> None:
    client = bench().attached()
    for command in (READ, FLUSH):
        answer = client.command(command)
        assert (answer.error, answer.pieces) == (0, [])
    plain = bench().attached(structured=False)
    assert plain.command(READ, simple=True).error == 0


@pytest.mark.parametrize("structured", [True, False])
@pytest.mark.parametrize(
    ("command", "offset", "length", "flags", "error"),
    [
        (READ, MIB, 1, 0, EINVAL),
        (READ, 0, MIB + 1, 0, EINVAL),
        (READ, 0, (32 << 20) + 1, 0, EINVAL),
        (READ, 0, 0xFFFFFFFF, 0, EINVAL),
        (READ, (1 << 64) - 1, 2, 0, EINVAL),
        (READ, 0, 512, 0x40, EINVAL),
        (TRIM, 0, 512, 0, EPERM),
        (WRITE_ZEROES, 0, 512, 0, EPERM),
        (CACHE, 0, 512, 0, EINVAL),
        (BLOCK_STATUS, 0, 512, 0, EINVAL),
        (8, 0, 512, 0, EINVAL),
        (0xFFFF, 0, 512, 0, EINVAL),
    ],
)
def test_bad_requests_are_answered_and_the_next_one_works(
    bench: Make, structured: bool, command: int, offset: int, length: int, flags: int, error: int
) -> None:
    disk = PatternExport()
    client = bench(disk).attached(structured=structured)
    client.say(request(command, offset, length, flags=flags))
    answer = client.answer()
    assert answer.error == error
    if command == READ:
        assert answer.simple is not structured
    assert client.command(FLUSH, flags=FUA).error == 0


@pytest.mark.parametrize("length", [0, 1, 512, 100_000])
def test_a_write_is_refused_behind_its_payload(bench: Make, length: int) -> None:
    client = bench().attached()
    client.say(request(WRITE, 0, length) + (request(READ) * (length // 28 + 1))[:length])
    assert client.answer().error == EPERM
    assert client.command(FLUSH).error == 0


def test_requests_behind_the_payload_of_a_write_are_in_step(bench: Make) -> None:
    client = bench().attached()
    client.say(request(WRITE, 0, 56) + request(READ, 0, 99) * 2 + request(READ, 0, 0, cookie=9))
    assert client.answer().error == EPERM
    assert client.answer().cookie == 9


def test_a_write_above_the_limit_ends_the_connection(bench: Make) -> None:
    one = bench()
    client = one.attached()
    client.say(request(WRITE, 0, (32 << 20) + 1))
    assert client.ended()
    assert any("write" in words for words in one.words)


def test_pipelined_requests_are_all_answered(bench: Make) -> None:
    disk = PatternExport()
    client = bench(disk).attached()
    starts = [(at * 7919) % (MIB - 4096) for at in range(3000)]
    sender = threading.Thread(
        target=lambda: client.say(b"".join(request(READ, at, 1000, cookie=row) for row, at in enumerate(starts)))
    )
    sender.start()
    for row, at in enumerate(starts):
        answer = client.answer()
        assert answer.cookie == row
        assert answer.data(at, 1000) == disk.content[at : at + 1000]
    sender.join()


def test_requests_sent_right_behind_go(bench: Make) -> None:
    client = bench().client()
    client.greet()
    client.say(option(STRUCTURED) + option(GO, go(b"")) + request(READ, 0, 512, cookie=1) * 500)
    assert [client.reply()[1] for _ in range(3)] == [ACK, 3, ACK]
    for _ in range(500):
        assert client.answer().cookie == 1


def test_export_name_of_old_clients(bench: Make) -> None:
    disk = PatternExport()
    client = bench(disk).client()
    client.greet(0)
    client.say(option(EXPORT_NAME, b"disk"))
    assert client.take(134)[:8] == struct.pack(">Q", MIB)
    assert client.command(READ, 5, 100, simple=True).pieces == [(0, disk.content[5:105])]


@pytest.mark.parametrize("structured", [True, False])
@pytest.mark.parametrize("length", [4096, 200_000, MIB])
def test_a_read_that_fails_is_eio_for_this_request_only(bench: Make, structured: bool, length: int) -> None:
    one = bench(PatternExport(broken=range(1000, 1001)))
    client = one.attached(structured=structured)
    client.say(request(READ, 0, length))
    answer = client.answer()
    assert answer.error == EIO
    assert not answer.holes
    assert all(start != 0 for start, _ in answer.pieces)
    assert b"secret" not in answer.words
    assert any("a bad block" in words for words in one.words)
    assert client.command(READ, 2000, 100, simple=True).error == 0


def test_data_before_a_bad_block_may_come_but_nothing_for_it(bench: Make) -> None:
    disk = PatternExport(broken=range(MIB - 5000, MIB))
    answer = bench(disk).attached().command(READ, 0, MIB)
    assert answer.error == EIO
    for start, piece in answer.pieces:
        assert piece == disk.content[start : start + len(piece)]
        assert start + len(piece) <= MIB - 5000


def test_with_df_a_large_read_fails_before_anything_is_sent(bench: Make) -> None:
    client = bench(PatternExport(broken=range(MIB - 1, MIB))).attached()
    answer = client.command(READ, 0, MIB, flags=DF)
    assert (answer.error, answer.pieces) == (EIO, [])


@pytest.mark.parametrize("structured", [True, False])
def test_a_reply_that_breaks_half_way_ends_the_connection(bench: Make, structured: bool) -> None:
    one = bench(PatternExport(broken=range(MIB - 1, MIB), works=4))
    client = one.attached(structured=structured)
    client.say(request(READ, 0, MIB, flags=DF if structured else 0))
    with pytest.raises(EOFError):
        client.answer(reads=MIB)
    assert one.attached().command(READ, 0, 512).error == 0


def test_block_status(bench: Make) -> None:
    client = bench().attached(contexts=(b"base:allocation", b"x-regraft:origin"))
    quarter = MIB // 4
    assert client.command(BLOCK_STATUS, 0, MIB).statuses == {
        1: [(quarter, 0), (quarter, 3), (2 * quarter, 0)],
        2: [(quarter, 2), (quarter, 1), (quarter, 0), (quarter, 4)],
    }
    assert client.command(BLOCK_STATUS, 100, MIB - 100, flags=REQ_ONE).statuses == {
        1: [(quarter - 100, 0)],
        2: [(quarter - 100, 2)],
    }
    assert client.command(BLOCK_STATUS, quarter, 10).statuses == {1: [(10, 3)], 2: [(10, 1)]}


def test_only_the_selected_context_is_told(bench: Make) -> None:
    client = bench().attached(contexts=(b"x-regraft:origin",))
    assert client.command(BLOCK_STATUS, 0, 512).statuses == {2: [(512, 2)]}


def test_block_status_is_bounded(bench: Make) -> None:
    client = bench(limits=Limits(nbd_extents=2)).attached(contexts=(b"x-regraft:origin",))
    assert client.command(BLOCK_STATUS, 0, MIB).statuses == {2: [(MIB // 4, 2), (MIB // 4, 1)]}


def test_blocks_that_are_not_aligned_are_refused_not_rounded(bench: Make) -> None:
    disk = PatternExport(blocks=BlockSizes(512, 4096))
    client = bench(disk).attached()
    assert client.command(READ, 1, 511).error == EINVAL
    assert client.command(READ, 512, 512).data(512, 512) == disk.content[512:1024]


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n" * 3, bytes(100), b"\xff" * 100])
def test_garbage_ends_the_connection_and_no_other(bench: Make, garbage: bytes) -> None:
    one = bench()
    good, bad, worse = one.attached(), one.attached(), one.client()
    bad.say(garbage)
    worse.say(garbage)
    assert bad.ended()
    assert worse.ended()
    assert good.command(READ, 0, 4096).error == 0


CONVERSATION = (
    struct.pack(">I", 3)
    + option(STRUCTURED)
    + option(LIST)
    + option(GO, go(b"disk", 3))
    + request(READ, 0, 4096)
    + request(WRITE, 0, 40)
    + bytes(40)
    + request(READ, 0, MIB)
)


def test_a_client_that_dies_at_any_byte_harms_nobody(bench: Make) -> None:
    one = bench(limits=Limits(nbd_connections=1000))
    good = one.attached()
    for end in range(len(CONVERSATION) + 1):
        dying = one.client()
        dying.say(CONVERSATION[:end])
        dying.line.close()
    assert good.command(READ, 0, MIB).error == 0
    deadline = time.monotonic() + 10
    while one.server.clients > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert one.server.clients == 1


def test_disc_and_abort_close(bench: Make) -> None:
    one = bench()
    client = one.attached()
    client.say(request(READ, 0, 512) + request(DISC) + request(READ, 0, 512))
    assert client.answer().error == 0
    assert client.line.recv(1) == b""
    other = one.client()
    other.greet()
    assert other.ask(ABORT) == [(ACK, b"")]
    assert other.line.recv(1) == b""
    assert not one.words


def test_a_handshake_has_its_time(bench: Make) -> None:
    one = bench(limits=Limits(nbd_handshake_time=0.3))
    silent, busy = one.client(), one.client()
    busy.greet()

    def keep_asking() -> None:
        for _ in range(900):
            busy.ask(LIST)
            time.sleep(0.01)

    with pytest.raises((EOFError, ConnectionError)):
        keep_asking()
    assert silent.ended()


def test_a_client_that_takes_no_answers_stops_only_itself(bench: Make) -> None:
    disk = PatternExport()
    one = bench(disk)
    greedy, good = one.attached(), one.attached()
    greedy.line.settimeout(0.5)
    with pytest.raises(TimeoutError):
        greedy.say(request(READ, 0, MIB) * 1_000_000)
    assert disk.reads < 200
    assert good.command(READ, 0, 4096).error == 0


def test_clients_above_the_limit_are_turned_away() -> None:
    with Server([PatternExport()], [listen_tcp()], limits=Limits(nbd_connections=2)) as server:
        address = server.listeners[0].getsockname()
        clients = [Client(socket.create_connection(address)) for _ in range(3)]
        for client in clients[:2]:
            client.attach()
        assert clients[2].ended()
        clients[0].line.close()
        while server.clients > 1:
            time.sleep(0.01)
        again = Client(socket.create_connection(address))
        again.attach()
        for client in (*clients, again):
            client.line.close()


def test_sixty_clients_at_once() -> None:
    disk = PatternExport()
    failed: list[BaseException] = []

    def use(address: tuple[str, int]) -> None:
        try:
            client = Client(socket.create_connection(address))
            client.attach()
            for at in range(0, MIB, MIB // 16):
                assert client.command(READ, at, 5000).data(at, 5000) == disk.content[at : at + 5000]
            client.line.close()
        except BaseException as error:
            failed.append(error)

    with Server([disk], [listen_tcp()]) as server:
        address = server.listeners[0].getsockname()
        threads = [threading.Thread(target=use, args=(address,)) for _ in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed


class SlowExport(PatternExport):
    """Each read takes its time."""

    def read_into(self, offset: int, view: memoryview) -> None:
        time.sleep(0.05)
        super().read_into(offset, view)


def test_the_end_comes_behind_the_answers_to_what_was_asked() -> None:
    ours, theirs = socket.socketpair()
    disk = SlowExport()
    server = Server([disk])
    server.serve(theirs)
    client = Client(ours)
    client.attach()
    client.say(b"".join(request(READ, at, 512, cookie=at) for at in range(10)))
    while not disk.reads:
        time.sleep(0.001)
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    time.sleep(0.02)
    client.say(request(READ, 0, 512, cookie=99))
    for at in range(10):
        answer = client.answer()
        assert (answer.cookie, answer.error) == (at, 0)
        assert answer.data(at, 512) == disk.content[at : at + 512]
    late = client.answer()
    assert (late.cookie, late.error) == (99, ESHUTDOWN)
    assert client.line.recv(1) == b""
    client.line.close()
    stopper.join()


def test_the_end_does_not_wait_for_a_client_that_takes_nothing() -> None:
    ours, theirs = socket.socketpair()
    server = Server([PatternExport()])
    server.serve(theirs)
    client = Client(ours)
    client.attach()
    client.say(request(READ, 0, MIB) * 100)
    start = time.monotonic()
    server.stop(timeout=0.5)
    assert time.monotonic() - start < 5
    assert server.clients == 0
    ours.close()


def test_a_kernel_is_served_without_a_handshake() -> None:
    ours, theirs = socket.socketpair()
    disk = PatternExport()
    server = Server([disk])
    server.adopt(theirs, Session(disk))
    client = Client(ours)
    assert client.command(READ, 0, 4096, simple=True).pieces == [(0, disk.content[:4096])]
    ours.close()
    server.stop()


def test_a_unix_socket_is_private_replaced_when_dead_and_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    with Server([PatternExport()], [listen_unix(path)]) as server:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with pytest.raises(BusyError):
            listen_unix(path)
        line = socket.socket(socket.AF_UNIX)
        line.connect(path)
        client = Client(line)
        assert client.attach() == (MIB, 0x010F | 0x80)
        line.close()
        assert server.uris(PatternExport("a b/ü")) == [f"nbd+unix:///a%20b%2F%C3%BC?socket={path}"]
    assert not os.path.exists(path)


def test_addresses_that_cannot_be_listened_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "no" / "s", tmp_path / ("x" * 200)):
        with pytest.raises(UsageError):
            listen_unix(str(path))
    assert (tmp_path / "file").exists()
    taken = listen_tcp()
    with pytest.raises(UsageError):
        listen_tcp(port=taken.getsockname()[1])
    taken.close()


def test_a_file_with_holes(bench: Make, tmp_path: Path) -> None:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(MIB)
        file.seek(MIB // 2)
        file.write(b"x" * 65_536)
    export = FileExport(str(path))
    client = bench(export).attached(contexts=(b"base:allocation",))
    statuses = client.command(BLOCK_STATUS, 0, MIB).statuses[1]
    assert sum(length for length, _ in statuses) == MIB
    answer = client.command(READ, 0, MIB)
    assert answer.data(0, MIB) == path.read_bytes()
    if (MIB // 2, 3) in statuses:  # where the file system knows holes
        assert (0, MIB // 2) in answer.holes
    export.close()


def test_a_file_that_is_truncated_gives_eio_not_zeros(bench: Make, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"x" * MIB)
    export = FileExport(str(path))
    client = bench(export).attached()
    os.truncate(path, 10_000)
    for offset, length in ((8192, 4096), (MIB - 512, 512), (0, MIB), (16_384, 131_072)):
        answer = client.command(READ, offset, length)
        assert answer.error == EIO
        assert not answer.holes
        assert all(set(piece) == {ord("x")} for _, piece in answer.pieces)
    assert client.command(READ, 0, 10_000).data(0, 10_000) == b"x" * 10_000
    export.close()


class ShortFileExport(PatternExport):
    """Says that a file has all of its bytes; but that ends after 100,000."""

    file = -1

    def direct(self, offset: int, length: int) -> Piece:
        return Piece(self.file, offset, length)


@pytest.mark.parametrize("broken", [range(0), range(600_000, 600_001), range(100_000, 100_001)])
def test_a_file_that_ends_while_it_is_sent(bench: Make, tmp_path: Path, broken: range) -> None:
    disk = ShortFileExport(broken=broken)
    (tmp_path / "short").write_bytes(disk.content[:100_000])
    with (tmp_path / "short").open("rb") as file:
        disk.file = file.fileno()
        client = bench(disk).attached()
        answer = client.command(READ, 0, MIB)
        assert answer.error == (EIO if broken else 0)
        if not broken:
            assert answer.data(0, MIB) == disk.content
        assert client.command(READ, 0, 90_000).data(0, 90_000) == disk.content[:90_000]


def test_pipelined_reads_of_all_sizes_from_a_file(bench: Make, tmp_path: Path) -> None:
    content = PatternExport().content
    (tmp_path / "image").write_bytes(content)
    export = FileExport(str(tmp_path / "image"))
    client = bench(export).attached()
    ranges = [(at * 7919 % 500_000, (1, 4096, 40_000, 131_072, 500_000)[at % 5]) for at in range(60)]
    client.say(b"".join(request(READ, *both, cookie=row) for row, both in enumerate(ranges)))
    for row, (offset, length) in enumerate(ranges):
        answer = client.answer()
        assert answer.cookie == row
        assert answer.data(offset, length) == content[offset : offset + length]
    export.close()


def test_files_that_cannot_be_served(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SourceError):
            FileExport(str(path))
