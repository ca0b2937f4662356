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
    assert regraft("pack", "zck", folder / "new", "-o", folder / "new.zck") == 0
    return folder


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of blocks that were swapped, rotated, changed in a byte, and replaced; and its deltas."""
    folder = tmp_path_factory.mktemp("blocks")
    chance = random.Random(9)
    old = [chance.randbytes(4096) for _ in range(400)]
    new = old[:]
    for start in range(0, 240, 6):  # cycles of six
        new[start : start + 6] = [*old[start + 1 : start + 6], old[start]]
    for number in range(240, 300):  # xor
        new[number] = old[number][:-1] + bytes([old[number][-1] ^ 9])
    for number in range(300, 380):
        new[number] = chance.randbytes(4096)
    (folder / "old").write_bytes(b"".join(old))
    (folder / "new").write_bytes(b"".join(new) + b"tail")
    for name, *options in (("new.diff", "dm-update", "-a", "none"), ("new.cow", "cow", "-a", "none")):
        assert regraft("delta", folder / "old", folder / "new", "-o", folder / name, "-f", *options) == 0
    return folder


def merging(site: Path, slot: Path, *more: str, plan: str = "new.cba") -> subprocess.Popen[bytes]:
    command = ["merge", site / plan, "--base", slot, "--window", "128Ki", "--progress", "none", *more]
    return subprocess.Popen([sys.executable, "-m", "regraft.cli", *map(str, command)], stdout=subprocess.PIPE)


@pytest.mark.parametrize("plan", ["new.cba", "new.zck", "new.diff", "new.cow"])
def test_killed_at_any_moment_it_goes_on(request: pytest.FixtureRequest, tmp_path: Path, plan: str) -> None:
    site: Path = request.getfixturevalue("site" if plan in ("new.cba", "new.zck") else "blocks")
    slot = tmp_path / "slot"
    slot.write_bytes((site / "old").read_bytes())
    killed = 0
    for attempt in range(4):
        child = merging(site, slot, "--rate", "500k", plan=plan)
        if not attempt:
            wait_for_a_change(slot, child)
        time.sleep(0.3 + 0.1 * attempt)
        child.kill()
        child.communicate()
        killed += child.returncode == -signal.SIGKILL
    assert killed > 1, "it ended too early"
    assert "slot.regraft.merge" in os.listdir(tmp_path)
    child = merging(site, slot, "--json", plan=plan)
    facts = json.loads(child.communicate()[0])
    assert child.returncode == 0
    assert facts["complete"]
    assert facts["resumed"]
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
