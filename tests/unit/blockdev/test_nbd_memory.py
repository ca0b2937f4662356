# SPDX-License-Identifier: Apache-2.0
"""The memory of the server is bounded, whatever its clients ask for and do not take."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from nbd_talk import READ, Client, request

MIB = 1 << 20


def test_sixty_four_clients_that_ask_for_all_and_take_nothing(tmp_path: Path) -> None:
    image, path = tmp_path / "image", tmp_path / "socket"
    image.write_bytes(b"x" * (33 * MIB))
    command = [sys.executable, "-m", "regraft.cli", "nbd", str(image), "--socket", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        clients = []
        for row in range(64):
            line = socket.socket(socket.AF_UNIX)
            line.connect(str(path))
            clients.append(Client(line))
            clients[-1].attach(structured=row % 2 == 0)
        for client in clients:
            client.say(request(READ, 0, 300_000) * 200 + request(READ, 0, 32 * MIB) * 100)
        time.sleep(1)  # for all of them to be served until they are stuck
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        for client in clients:
            client.line.close()
        process.terminate()
        assert process.wait(20) == 0
    assert found is not None
    assert 20 * MIB < int(found[1]) * 1024 < 64 * MIB
