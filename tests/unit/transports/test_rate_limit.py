# SPDX-License-Identifier: Apache-2.0
"""A limit of the rate holds for all connections together, and does not make a stalled peer look well."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from regraft.errors import StallError
from regraft.limits import DEFAULT
from regraft.server.static import StaticServer
from regraft.transports.fetcher import Fetcher, Pace, Timing


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self._lock = threading.Lock()

    def timing(self) -> Timing:
        return Timing(clock=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds


def test_bytes_of_all_take_their_turn() -> None:
    clock = Clock()
    pace = Pace(1000, Timing(clock=lambda: clock.now, sleep=lambda _: None))
    assert [pace.wait(500) for _ in range(3)] == [0.5, 1.0, 1.5]  # as if three asked at the same time
    clock.now += 60
    assert pace.wait(100) == pytest.approx(0.1)  # idle time is not saved up


def test_a_file_takes_as_long_as_the_rate_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(50_000))
    clock = Clock()
    with StaticServer(tmp_path) as server, Fetcher(timing=clock.timing(), rate=10_000) as fetcher:
        assert len(fetcher.get(f"{server.url}/file", 100_000)) == 50_000
    assert clock.now - 100 == pytest.approx(5, rel=0.01)


def test_a_rate_below_the_low_speed_is_no_stall(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(20_000))
    clock, limits = Clock(), replace(DEFAULT, low_speed=5000, low_speed_time=1)
    with StaticServer(tmp_path) as server, Fetcher(limits=limits, timing=clock.timing(), rate=1000) as fetcher:
        assert len(fetcher.get(f"{server.url}/file", 100_000)) == 20_000
    assert clock.now - 100 == pytest.approx(20, rel=0.01)


def test_a_trickling_peer_is_still_noticed() -> None:
    clock, limits = Clock(), replace(DEFAULT, low_speed=1000, low_speed_time=3, retries=1)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(4096)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            try:
                for _ in range(1000):
                    clock.sleep(1)
                    peer.sendall(b"x")
                    threading.Event().wait(0.002)
            except OSError:
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
    with Fetcher(limits=limits, timing=clock.timing(), rate=1e6) as fetcher, pytest.raises(StallError, match="less"):
        fetcher.get(url, 10_000)
    listener.close()
    thread.join(10)
