# SPDX-License-Identifier: Apache-2.0
"""On a long, slow link the pipe never idles."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from regraft.engine.ranges import Range
from regraft.server.static import StaticServer
from regraft.testing.link import DelayedLink
from regraft.transports.fetcher import Fetcher


def scattered(count: int, chance: random.Random) -> list[Range]:
    found, at = [], 0
    for _ in range(count):
        length = chance.randrange(2000, 31_000)
        found.append(Range(at, length))
        at += length + chance.randrange(2000, 60_000)
    return found


@pytest.mark.slow
def test_scattered_ranges_at_20_mbit_and_100_ms_take_little_more_than_their_bytes(tmp_path: Path) -> None:
    chance = random.Random(3)
    ranges = scattered(300, chance)
    content = chance.randbytes(ranges[-1].end)
    (tmp_path / "f").write_bytes(content)
    wanted = sum(span.length for span in ranges)
    bandwidth, trip = 2.5e6, 0.1
    with StaticServer(tmp_path) as server:
        port = int(server.url.rpartition(":")[2])
        with DelayedLink("127.0.0.1", port, round_trip=trip, bandwidth=bandwidth) as link, Fetcher() as fetcher:
            source = fetcher.open(link.url + "/f")
            began = time.monotonic()
            got = dict(source.fetch(ranges))
            elapsed = time.monotonic() - began
    assert got == {position: content[span.offset : span.end] for position, span in enumerate(ranges)}
    assert elapsed <= 1.3 * wanted / bandwidth
    assert source.stats.bytes <= 1.02 * wanted
    measured = source.stats.link
    assert measured is not None
    assert 0.7 * bandwidth < measured.bandwidth < 1.3 * bandwidth
    assert measured.round_trip >= trip * 0.9


def test_the_link_delays_and_paces(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(50_000))
    with StaticServer(tmp_path) as server:
        port = int(server.url.rpartition(":")[2])
        with DelayedLink("127.0.0.1", port, round_trip=0.1, bandwidth=250_000) as link, Fetcher() as fetcher:
            began = time.monotonic()
            assert fetcher.get(link.url + "/f", 50_000) == bytes(50_000)
            first = time.monotonic() - began
            began = time.monotonic()
            assert fetcher.get(link.url + "/f", 50_000) == bytes(50_000)
            second = time.monotonic() - began
            assert link.connections == 1
    assert 0.4 <= first < 0.8  # handshake, request, 0.2 s of bytes
    assert 0.3 <= second < first
