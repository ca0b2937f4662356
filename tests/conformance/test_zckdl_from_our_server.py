# SPDX-License-Identifier: Apache-2.0
"""Clients of others fetch ranges from our server."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from tools import tool

from regraft.server.static import StaticServer


def test_zckdl_moves_only_what_changed(tmp_path: Path) -> None:
    zck, zckdl = tool("zck"), tool("zckdl")
    chance = random.Random(1)
    old = chance.randbytes(2_000_000)
    new = bytearray(old)
    for _ in range(8):
        new[chance.randrange(len(new))] ^= 1
    www = tmp_path / "www"
    www.mkdir()
    (tmp_path / "old").write_bytes(old)
    (www / "new").write_bytes(new)
    subprocess.run([zck, "old"], cwd=tmp_path, check=True)
    subprocess.run([zck, "new"], cwd=www, check=True)
    with StaticServer(www) as server:
        subprocess.run([zckdl, "-s", "old.zck", server.url + "/new.zck"], cwd=tmp_path, check=True, capture_output=True)
        assert (tmp_path / "new.zck").read_bytes() == (www / "new.zck").read_bytes()
        assert server.counts.body < 1_000_000
        assert any(line.endswith("206") for line in server.requests)


def test_curl_gets_several_ranges(tmp_path: Path) -> None:
    curl = tool("curl")
    (tmp_path / "f").write_bytes(bytes(range(256)))
    with StaticServer(tmp_path) as server:
        done = subprocess.run([curl, "-sS", "-r", "1-2,5-6", server.url + "/f"], check=True, capture_output=True)
    assert done.stdout.count(b"Content-Range: bytes ") == 2
    assert b"\r\n\r\n\x01\x02\r\n--" in done.stdout
