# SPDX-License-Identifier: Apache-2.0
"""Thousands of mutated conversations over real sockets: the server outlives them, and leaks nothing."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import threading
import time
from pathlib import Path
from random import Random

import pytest
from nbd_talk import READ, Client, PatternExport

from regraft.blockdev.nbd.server import Server
from regraft.limits import Limits

FUZZ = Path(__file__).resolve().parents[3] / "fuzz"


def resident() -> int:
    """Bytes of memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def attack(server: Server, good: Client, content: bytes, conversations: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many messages were sent."""
    monkeypatch.syspath_prepend(str(FUZZ))
    material, mutations = importlib.import_module("fuzz_nbd"), importlib.import_module("mutate")
    random = Random(5)
    talk = material.conversations(random)
    pool = [next(talk) for _ in range(50)]
    messages = 0
    for row in range(conversations):
        data = next(talk)
        if row % 5:
            data = mutations.mutate(data, pool, random)
        messages += data.count(b"IHAVEOPT") + data.count(b"\x25\x60\x95\x13") + 1
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        connection = server.serve(theirs)
        ours.setblocking(False)
        try:
            ours.send(data)
            if row % 3 == 0:
                ours.shutdown(socket.SHUT_WR)
                ours.settimeout(10)
                while ours.recv(65_536):  # the server ends it; it may not hang
                    pass
        except (BrokenPipeError, ConnectionResetError, BlockingIOError):
            pass
        finally:
            ours.close()
        if row % 100 == 0:
            at = random.randrange(len(content) - 5000)
            assert good.command(READ, at, 5000).data(at, 5000) == content[at : at + 5000]
        while server.clients > 30:
            time.sleep(0.001)
        del connection
    return messages


@pytest.mark.parametrize(
    ("conversations", "least"), [(2_000, 10_000), pytest.param(170_000, 1_000_000, marks=pytest.mark.slow)]
)
@pytest.mark.timeout(600)
def test_mutated_messages(conversations: int, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    disk = PatternExport(broken=range(777_777, 777_778))
    content = disk.content[:700_000]
    ours, theirs = socket.socketpair()
    words: list[str] = []
    descriptors = len(os.listdir("/proc/self/fd"))
    with Server(
        [disk], report=lambda word: words.append(word) if len(words) < 100 else None, limits=Limits()
    ) as server:
        server.serve(theirs)
        good = Client(ours)
        good.attach()
        attack(server, good, content, 200, monkeypatch)
        before = resident()
        assert attack(server, good, content, conversations, monkeypatch) >= least
        assert good.command(READ, 0, 4096).data(0, 4096) == content[:4096]
        end = time.monotonic() + 10
        while server.clients > 1 and time.monotonic() < end:
            time.sleep(0.01)
        assert server.clients == 1
        assert resident() < before + (16 << 20)
        good.line.close()
    assert not failed
    assert words
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("regraft-nbd")]
    sys.modules.pop("fuzz_nbd", None)
