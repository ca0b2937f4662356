# SPDX-License-Identifier: Apache-2.0
"""The guide "keep a casync store", done as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from images import Pair
from tools import tool

from regraft.formats import caibx

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "casync-stores.md"
_COMMAND = re.compile(r"^\$ (.*)$", re.MULTILINE)


def test_every_step_of_the_guide_works(tmp_path: Path, pair: Pair) -> None:
    bash = tool("bash")
    program = tmp_path / "bin" / "regraft"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom regraft.cli import main\nmain()\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    (tmp_path / "old.ext4").write_bytes(pair.old)
    (tmp_path / "new.ext4").write_bytes(pair.new)
    commands = _COMMAND.findall(GUIDE.read_text(encoding="utf-8"))
    assert len(commands) == 7
    for command in commands:
        done = subprocess.run([bash, "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stderr)
    assert (tmp_path / "copy.ext4").read_bytes() == (tmp_path / "again.ext4").read_bytes() == pair.new
    digests = caibx.parse_header((tmp_path / "new.caibx").read_bytes()).digests
    left = {str(file.relative_to(tmp_path / "all.castr")) for file in (tmp_path / "all.castr").rglob("*.cacnk")}
    assert left == {caibx.paths(digest)[0] for digest in digests}
