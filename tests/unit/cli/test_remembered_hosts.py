# SPDX-License-Identifier: Apache-2.0
"""What a host can do is remembered from one run to the next, and never gets in the way."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from regraft.cli._network import Network, remembered_hosts
from regraft.engine.ranges import Range
from regraft.server.static import StaticServer
from regraft.transports.ladder import Level


def test_a_host_is_known_in_the_next_run(tmp_path: Path, state_folder: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 1000)
    with StaticServer(str(tmp_path)) as server:
        with Network().connect() as fetcher:
            list(fetcher.open(f"{server.url}/file").fetch([Range(0, 10), Range(5000, 10)]))
        with remembered_hosts() as hosts:
            known = hosts.recall(server.url, time.time())
    assert known is not None
    assert known.level is Level.MANY
    assert (state_folder / "hosts.json").exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 1, "hosts": 7}', b"\xff" * 100])
def test_a_damaged_memory_is_an_empty_one(state_folder: Path, content: bytes) -> None:
    (state_folder / "hosts.json").write_bytes(content)
    with remembered_hosts() as hosts:
        assert b"origin" not in hosts.dump()


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_STATE", "/proc/no/such/place")
    with remembered_hosts() as hosts:
        assert hosts is not None
