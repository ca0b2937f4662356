# SPDX-License-Identifier: Apache-2.0
"""The guide "your first delta update", done as it is written."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from images import Pair
from tools import tool

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "first-delta-update.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """What one types, in order."""
    found = []
    for block in _BLOCK.findall(GUIDE.read_text(encoding="utf-8")):
        lines = block.replace("\\\n", " ").splitlines()
        found += [line[2:] for line in lines if line.startswith("$ ")]
    return found


def test_every_step_of_the_guide_works(tmp_path: Path, pair: Pair) -> None:
    tool("openssl")
    bash = tool("bash")
    program = tmp_path / "bin" / "regraft"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom regraft.cli import main\nmain()\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    (tmp_path / "old.ext4").write_bytes(pair.old)
    (tmp_path / "new.ext4").write_bytes(pair.new)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    typed = [command.replace("8080", str(port)) for command in commands()]
    served: list[subprocess.Popen[bytes]] = []
    try:
        for command in typed:
            if command == "regraft serve site":
                options = ["--port", str(port), "--quiet"]
                served.append(
                    subprocess.Popen([program, "serve", "site", *options], cwd=tmp_path, stderr=subprocess.DEVNULL)
                )
                _wait_for(port)
                continue
            done = subprocess.run(
                [bash, "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    finally:
        for process in served:
            process.terminate()
            process.wait()
    assert served, "the guide serves the artifact"
    assert (tmp_path / "slot-b.img").read_bytes() == pair.new


def _wait_for(port: int) -> None:
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.02)
    raise TimeoutError("regraft serve does not listen")
