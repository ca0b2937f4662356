# SPDX-License-Identifier: Apache-2.0
"""`regraft nbd URL --keep STORE/NAME`: killed, cut off from its server, beside a collection."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import pytest
from chunk_stores import content_of
from nbd_talk import EIO, READ, Client
from test_view_faults import MIB, Published, end, published, start

from regraft.stores.gc import collect
from regraft.stores.store import Store, open_store
from regraft.stores.verify import verify
from regraft.testing.link import DelayedLink

__all__ = ["published"]


def wait_for(store: Store, name: str, seconds: float = 30) -> None:
    """Until the image is there."""
    deadline = time.monotonic() + seconds
    while name not in store.images():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_killed_and_started_again_it_fetches_nothing_twice(published: Published, tmp_path: Path) -> None:
    place = tmp_path / "store"
    options = ("--socket", str(tmp_path / "socket"), "--keep", str(place / "disk"))
    chance, total = random.Random(1), 0  # a kill costs what came since the last record, a second earlier
    with DelayedLink("127.0.0.1", published.port, round_trip=0.01, bandwidth=1.5e6) as link:
        for moment in (0.4, 1.6, 1.5, 0.3):
            process, line = start(f"{link.url}/disk.zck", *options)
            client = Client(line)
            client.attach()
            stopping = threading.Timer(moment, process.kill)
            stopping.start()
            try:
                while True:
                    offset = chance.randrange(3 * MIB - 4096)
                    answer = client.command(READ, offset, 4096)
                    assert answer.data(offset, 4096) == published.image[offset : offset + 4096]
                    total += 1
            except (EOFError, OSError):
                pass
            process.communicate(timeout=20)
            line.close()
            stopping.join()
            with open_store(str(place)) as store:
                assert verify(store, full=True).sound
                collect(store)
        assert total > 10
        before = link.received
        process, line = start(f"{link.url}/disk.zck", *options)
        with open_store(str(place)) as store:
            wait_for(store, "disk")
            assert store.in_use("disk")
            assert end(process, signal.SIGTERM) == ""
            line.close()
            assert link.received - before < 0.9 * len(published.image), "what was recorded was fetched again"
            assert content_of(store, "disk") == published.image
            assert not store.in_use("disk")
            assert store.partials() == []


def test_a_server_that_dies_under_a_read_and_comes_back(published: Published, tmp_path: Path) -> None:
    place = tmp_path / "store"
    options = ("--socket", str(tmp_path / "socket"), "--keep", str(place / "disk"), "--no-read-ahead")
    process, line = start(published.url, *options)
    client = Client(line)
    client.attach()
    image = published.image
    assert client.command(READ, 0, 5000).data(0, 5000) == image[:5000]
    published.down()
    line.settimeout(60)
    assert client.command(READ, 2 * MIB, 5000).error == EIO
    assert client.command(READ, 0, 5000).data(0, 5000) == image[:5000]
    published.up()
    deadline = time.monotonic() + 20
    while (answer := client.command(READ, 2 * MIB, 5000)).error and time.monotonic() < deadline:
        time.sleep(0.1)
    assert answer.data(2 * MIB, 5000) == image[2 * MIB : 2 * MIB + 5000]
    line.close()
    end(process, signal.SIGTERM)
    assert process.returncode == 0
    with open_store(str(place)) as store:
        assert store.partials() == ["disk"]


@pytest.mark.parametrize("times", [12])
def test_collections_beside_it_cost_nothing(published: Published, tmp_path: Path, times: int) -> None:
    place = tmp_path / "store"
    options = ("--socket", str(tmp_path / "socket"), "--keep", str(place / "disk"))
    with DelayedLink("127.0.0.1", published.port, round_trip=0.005, bandwidth=3e6) as link:
        process, line = start(f"{link.url}/disk.zck", *options)
        client, chance = Client(line), random.Random(3)
        client.attach()
        with open_store(str(place)) as store:
            for _ in range(times):
                collect(store)
                offset = chance.randrange(3 * MIB - 70_000)
                answer = client.command(READ, offset, 70_000)
                assert answer.data(offset, 70_000) == published.image[offset : offset + 70_000]
                time.sleep(0.05)
            wait_for(store, "disk")
            collect(store)
            # From here on it is served from the packs, the server being needless.
            published.down()
            for offset in range(0, 3 * MIB, 512 * 1024):
                answer = client.command(READ, offset, 512 * 1024)
                assert answer.data(offset, 512 * 1024) == published.image[offset : offset + 512 * 1024]
            line.close()
            end(process, signal.SIGTERM)
            assert verify(store, full=True).sound
            assert content_of(store, "disk") == published.image
