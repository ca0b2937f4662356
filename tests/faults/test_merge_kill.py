# SPDX-License-Identifier: Apache-2.0
"""`regraft merge` killed at any moment, or told to end: the same command goes on and ends with the new image."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import regraft


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image whose chunks all moved, and its archive: windows and direct batches, some hundred of them."""
    folder = tmp_path_factory.mktemp("merge")
    chance = random.Random(8)
    pieces = [chance.randbytes(chance.randint(9000, 30_000)) for _ in range(120)]
    (folder / "old").write_bytes(b"".join(pieces))
    chance.shuffle(pieces)
    pieces[7] = chance.randbytes(20_000)
    (folder / "new").write_bytes(b"".join(pieces))
    sizes = ["--avg-chunk-size", "8KiB", "--min-chunk-size", "2KiB", "--max-chunk-size", "64KiB"]
    assert regraft("pack", "cba", folder / "new", "-o", folder / "new.cba", "--compression", "none", *sizes) == 0
    return folder


def merging(site: Path, slot: Path, *more: str) -> subprocess.Popen[bytes]:
    command = ["merge", site / "new.cba", "--base", slot, "--window", "128Ki", "--progress", "none", *more]
    return subprocess.Popen([sys.executable, "-m", "regraft.cli", *map(str, command)], stdout=subprocess.PIPE)


def test_killed_at_any_moment_it_goes_on(site: Path, tmp_path: Path) -> None:
    slot = tmp_path / "slot"
    slot.write_bytes((site / "old").read_bytes())
    killed = 0
    for attempt in range(6):
        child = merging(site, slot, "--rate", "1M")
        wait_for_a_change(slot, child)
        time.sleep(0.04 * attempt)
        child.kill()
        child.communicate()
        killed += child.returncode == -signal.SIGKILL
    assert killed > 3, "it ended too early"
    assert slot.read_bytes() != (site / "new").read_bytes()
    child = merging(site, slot, "--json")
    facts = json.loads(child.communicate()[0])
    assert child.returncode == 0
    assert facts["complete"]
    assert slot.read_bytes() == (site / "new").read_bytes()
    assert not [name for name in os.listdir(tmp_path) if "merge" in name]


def wait_for_a_change(slot: Path, child: subprocess.Popen[bytes]) -> None:
    before, patience = slot.read_bytes(), time.monotonic() + 30
    while slot.read_bytes() == before and child.poll() is None:
        assert time.monotonic() < patience
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_finishes_its_batch(site: Path, tmp_path: Path, number: signal.Signals) -> None:
    slot = tmp_path / "slot"
    slot.write_bytes((site / "old").read_bytes())
    child = merging(site, slot, "--rate", "100k", "--json")
    wait_for_a_change(slot, child)
    child.send_signal(number)
    out, _ = child.communicate(timeout=30)
    assert child.returncode == 128 + number
    facts = json.loads(out)
    assert not facts["complete"]
    again = merging(site, slot, "--json")
    resumed = json.loads(again.communicate()[0])
    assert resumed["resumed"]
    assert slot.read_bytes() == (site / "new").read_bytes()
