# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from regraft.transports.fetcher import Fetcher


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "regraft.cli", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_json_tells_the_address_and_each_request(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    with start(str(tmp_path), "--port", "0", "--json") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["schema"], first["kind"]) == (1, "listening")
        with Fetcher() as fetcher:
            assert fetcher.get(first["url"] + "/f", 10) == b"hello"
        told = json.loads(process.stdout.readline())
        assert (told["kind"], told["path"], told["status"], told["bytes"]) == ("request", "/f", 200, 5)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with start(str(tmp_path), "--port", "0", "--json") as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["url"].rpartition(":")[2]
        with start(str(tmp_path), "--port", port) as second:
            _, words = second.communicate(timeout=20)
            assert second.returncode == 2
            assert port in words
            assert "Traceback" not in words
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
