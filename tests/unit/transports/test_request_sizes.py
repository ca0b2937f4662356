# SPDX-License-Identifier: Apache-2.0
"""How many requests a fetch makes when the caller is slower than the link."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from regraft.engine.ranges import Range
from regraft.limits import MIB, Limits
from regraft.server.static import StaticServer
from regraft.transports.fetcher import Fetcher


@pytest.mark.parametrize("ordered", [False, True])
def test_a_full_buffer_does_not_break_requests_into_crumbs(tmp_path: Path, ordered: bool) -> None:
    content = random.Random(4).randbytes(6 * MIB)
    (tmp_path / "file").write_bytes(content)
    ranges = [Range(offset, 16_000) for offset in range(0, len(content) - 16_000, 16_384)]
    limits = Limits(buffer=MIB, connections=2, request_size=MIB // 2)
    with StaticServer(tmp_path) as server, Fetcher(limits=limits) as fetcher:
        source = fetcher.open(f"{server.url}/file")
        found = {}
        for position, data in source.fetch(ranges, ordered=ordered):
            found[position] = data
            time.sleep(0.001)
        assert source.stats.requests <= 2 * 6 * MIB // limits.request_size
    assert all(found[i] == content[wanted.offset : wanted.end] for i, wanted in enumerate(ranges))
