# SPDX-License-Identifier: Apache-2.0
"""The guide "run a device from a chunk store", done as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from chunk_stores import content_of
from images import Pair
from tools import tool

from regraft.stores.store import open_store

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "chunk-store.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """What one types, in order."""
    lines = [line for block in _BLOCK.findall(GUIDE.read_text(encoding="utf-8")) for line in block.splitlines()]
    return [line[2:] for line in lines if line.startswith("$ ")]


def test_every_step_of_the_guide_works(tmp_path: Path, pair: Pair) -> None:
    bash = tool("bash")
    program = tmp_path / "bin" / "regraft"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom regraft.cli import main\nmain()\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    (tmp_path / "old.ext4").write_bytes(pair.old)
    (tmp_path / "new.ext4").write_bytes(pair.new)
    assert len(commands()) > 10
    for command in commands():
        done = subprocess.run([bash, "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stderr)
    with open_store(str(tmp_path / "images")) as store:
        assert store.images() == ["v2"]
        assert store.pinned("v2")
        assert content_of(store, "v2") == pair.new
        assert store.description("v2").metadata == {"release": b"2"}
