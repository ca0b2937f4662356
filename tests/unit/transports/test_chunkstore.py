# SPDX-License-Identifier: Apache-2.0
"""Chunk files behind a URL: a plain GET each, several at once, tried again as all that is fetched."""

from __future__ import annotations

import http.server
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from casync_stores import SMALL, Packed, pack

from regraft.engine.apply import apply
from regraft.engine.chunkfiles import ChunkSource
from regraft.engine.chunkstores import LocalStore
from regraft.engine.ranges import Range
from regraft.errors import LimitError, StatusError, TransportError
from regraft.formats import caibx
from regraft.limits import DEFAULT, Limits
from regraft.server.static import StaticServer
from regraft.testing.memory import MemoryMedium
from regraft.transports.chunkstore import UrlStore
from regraft.transports.fetcher import Fetcher, Timing
from regraft.transports.policy import Policy

IMAGE = random.Random(1).randbytes(150_000)

#: What a server may do with a request instead of answering it: (handler, how often this path was asked for) -> done.
Quirk = Callable[["Handler", int], bool]


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.active += 1
            self.server.most = max(self.server.most, self.server.active)
            count = self.server.asked.setdefault(self.path, 0)
            self.server.asked[self.path] += 1
        try:
            if self.server.quirk is None or not self.server.quirk(self, count):
                super().do_GET()
        finally:
            with self.server.lock:
                self.server.active -= 1

    def refuse(self, status: int) -> bool:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True

    def send(self, content: bytes) -> bool:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return True

    def log_message(self, *_: object) -> None: ...


@dataclass
class Server(http.server.ThreadingHTTPServer):
    folder: Path
    quirk: Quirk | None = None
    asked: dict[str, int] = field(default_factory=dict)
    active: int = 0
    most: int = 0
    connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        super().__init__(("127.0.0.1", 0), lambda *given: Handler(*given, directory=str(self.folder)))  # type: ignore[arg-type]

    __hash__ = object.__hash__

    def get_request(self) -> tuple[socket.socket, object]:
        self.connections += 1
        return super().get_request()

    def handle_error(self, *_: object) -> None: ...

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(folder: Path, quirk: Quirk | None = None) -> Iterator[Server]:
    with Server(folder, quirk) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def fetching(limits: Limits = DEFAULT, **policy: str) -> Iterator[Fetcher]:
    timing = Timing(sleep=lambda seconds: time.sleep(min(seconds, 0.01)))
    with Fetcher(Policy(**policy), limits, timing=timing) as fetcher:  # type: ignore[arg-type]
        yield fetcher


def over(made: Packed, *stores: UrlStore | LocalStore, limits: Limits = DEFAULT) -> ChunkSource:
    return ChunkSource(stores, made.header.digests, caibx.paths, made.header.lengths, threads=8, limits=limits)


def rebuilt(made: Packed, source: ChunkSource) -> bytes:
    target = MemoryMedium()
    apply(made.recipe, [], [source], target)
    return bytes(target.content)


@pytest.fixture
def made(tmp_path: Path) -> Packed:
    return pack(IMAGE, tmp_path / "all.castr")


def test_each_chunk_is_one_request_over_connections_that_are_kept(made: Packed, tmp_path: Path) -> None:
    with serving(tmp_path) as server, fetching() as fetcher:
        store = UrlStore(fetcher, f"{server.url}/all.castr")
        assert rebuilt(made, over(made, store)) == IMAGE
        digests = set(made.header.digests)
        assert set(server.asked) == {f"/all.castr/{caibx.paths(digest)[0]}" for digest in digests}
        assert set(server.asked.values()) == {1}
        assert server.connections <= 8 < len(digests)
        assert store.received == sum(file.stat().st_size for file in (tmp_path / "all.castr").rglob("*.cacnk"))


def test_several_requests_are_in_flight(made: Packed, tmp_path: Path) -> None:
    everyone = threading.Barrier(8)

    def wait(_: Handler, __: int) -> bool:
        everyone.wait(20)  # until eight are here together
        return False

    with serving(tmp_path, wait) as server, fetching() as fetcher:
        wanted = [Range(number, 1) for number in range(64)]
        assert len(list(over(made, UrlStore(fetcher, f"{server.url}/all.castr")).fetch(wanted))) == 64
        assert server.most == 8


def test_in_order_or_as_they_come(made: Packed, tmp_path: Path) -> None:
    with serving(tmp_path) as server, fetching() as fetcher:
        source = over(made, UrlStore(fetcher, f"{server.url}/all.castr/"))
        wanted = [Range(number, 1) for number in range(0, len(made.header), 2)]
        found = list(source.fetch(wanted, ordered=True))
        assert [position for position, _ in found] == list(range(len(wanted)))
        assert dict(source.fetch(wanted)) == dict(found)


def test_our_own_server_serves_a_store(made: Packed, tmp_path: Path) -> None:
    with StaticServer(tmp_path) as server, fetching() as fetcher:
        assert rebuilt(made, over(made, UrlStore(fetcher, f"{server.url}/all.castr"))) == IMAGE


def test_the_name_in_use_is_learnt(tmp_path: Path) -> None:
    made = pack(IMAGE, tmp_path / "plain.castr", replace(SMALL, compression="none"))
    with serving(tmp_path) as server, fetching() as fetcher:
        source = over(made, UrlStore(fetcher, f"{server.url}/plain.castr"))
        source.threads = 1
        wanted = [Range(number, 1) for number in range(len(made.header))]
        assert len(list(source.fetch(wanted))) == len(wanted)
        assert [path for path in server.asked if path.endswith(".cacnk")] == [
            f"/plain.castr/{caibx.paths(made.header.digests[0])[0]}"
        ]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_chunk_that_is_not_there_is_named(made: Packed, tmp_path: Path, status: int) -> None:
    missing = caibx.paths(made.header.digests[5])[0]

    def refuse(handler: Handler, _: int) -> bool:
        return made.header.digests[5].hex() in handler.path and handler.refuse(status)

    with serving(tmp_path, refuse) as server, fetching() as fetcher:
        with pytest.raises(StatusError, match=missing.removesuffix(".cacnk")) as caught:
            rebuilt(made, over(made, UrlStore(fetcher, f"{server.url}/all.castr")))
        assert caught.value.status == (403 if status == 403 else 404)
        assert caught.value.cure
        assert server.asked[f"/all.castr/{missing}"] == 1
        other = LocalStore(str(tmp_path / "all.castr"))
        assert rebuilt(made, over(made, UrlStore(fetcher, f"{server.url}/all.castr"), other)) == IMAGE


def test_what_may_pass_is_tried_again(made: Packed, tmp_path: Path) -> None:
    def trouble(handler: Handler, count: int) -> bool:
        if count > 1:
            return False
        kind = len(handler.path) and int(handler.path.split("/")[2], 16) % 4
        if kind == 0:
            return handler.refuse(503)
        if kind == 1:  # an answer that breaks off
            handler.send_response(200)
            handler.send_header("Content-Length", "300")
            handler.end_headers()
            handler.wfile.write(b"half")
        handler.close_connection = True
        return kind != 2

    with serving(tmp_path, trouble) as server, fetching() as fetcher:
        assert rebuilt(made, over(made, UrlStore(fetcher, f"{server.url}/all.castr"))) == IMAGE
        assert max(server.asked.values()) == 3


@pytest.mark.parametrize("status", [401, 500])
def test_other_refusals_are_errors(made: Packed, tmp_path: Path, status: int) -> None:
    with serving(tmp_path, lambda handler, _: handler.refuse(status)) as server, fetching() as fetcher:
        with pytest.raises(StatusError) as caught:
            rebuilt(made, over(made, UrlStore(fetcher, f"{server.url}/all.castr")))
        assert caught.value.status == status


def test_a_server_that_is_gone_is_an_error(made: Packed, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with fetching(replace(DEFAULT, retries=2)) as fetcher, pytest.raises(TransportError, match="2 tries"):
        rebuilt(made, over(made, UrlStore(fetcher, f"http://127.0.0.1:{port}/all.castr")))


def test_an_answer_without_end_is_not_read(made: Packed, tmp_path: Path) -> None:
    def endless(handler: Handler, _: int) -> bool:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        for _ in range(10_000):
            handler.wfile.write(bytes(1 << 16))
        return True

    with serving(tmp_path, endless) as server, fetching() as fetcher:
        store = UrlStore(fetcher, f"{server.url}/all.castr")
        with pytest.raises(LimitError, match="more than"):
            rebuilt(made, over(made, store))
        assert store.received < 16 << 20


def test_a_wrong_chunk_is_fetched_once_more(made: Packed, tmp_path: Path) -> None:
    with (
        serving(tmp_path, lambda handler, count: count == 0 and handler.send(b"wrong")) as server,
        fetching() as fetcher,
    ):
        assert rebuilt(made, over(made, UrlStore(fetcher, f"{server.url}/all.castr"))) == IMAGE
        assert set(server.asked.values()) == {2}


def test_closing_ends_the_transfers(made: Packed, tmp_path: Path) -> None:
    released = threading.Event()

    def hang(handler: Handler, _: int) -> bool:
        return made.header.digests[0].hex() not in handler.path and not released.wait(20)

    with serving(tmp_path, hang) as server, fetching() as fetcher:
        arriving = over(made, UrlStore(fetcher, f"{server.url}/all.castr")).fetch([Range(n, 1) for n in range(50)])
        assert next(arriving)[0] == 0
        began = time.monotonic()
        arriving.close()
        assert time.monotonic() - began < 5
        for _ in range(300):
            if not [t for t in threading.enumerate() if t.name.startswith("regraft-chunks")]:
                break
            time.sleep(0.01)
        assert not [t for t in threading.enumerate() if t.name.startswith("regraft-chunks")]
        assert max(server.asked.values()) == 1
        released.set()


def test_credentials_and_queries_go_with_every_request(made: Packed, tmp_path: Path) -> None:
    seen: set[tuple[str | None, str]] = set()

    def note(handler: Handler, _: int) -> bool:
        seen.add((handler.headers["Authorization"], handler.path.partition("?")[2]))
        return False

    with serving(tmp_path, note) as server, fetching(authorization="TargetToken x") as fetcher:
        store = UrlStore(fetcher, f"{server.url.replace('//', '//me:secret@')}/all.castr?key=1")
        assert "secret" not in store.location
        assert rebuilt(made, over(made, store)) == IMAGE
    assert seen == {("TargetToken x", "key=1")}
