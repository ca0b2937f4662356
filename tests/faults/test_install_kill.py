# SPDX-License-Identifier: Apache-2.0
"""`regraft install`, killed at random moments and run again: it always ends right, and what was fetched once stays.

A real process, a real server behind a link so slow that kills land in every phase. The sum of what passed that link for
both runs is at most that of one undisturbed run, and one request more.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from images import pack
from made_bundles import bundle, cms_signer
from pki import self_signed

from regraft.build.description import Artifact, DeltaRequest, describe_delta
from regraft.server.static import StaticServer
from regraft.testing.link import DelayedLink

BANDWIDTH, ROUND_TRIP = 5e6, 0.004
PHASES = ("index", "write", "verify")

#: Heads of answers to the few requests that a second run makes in vain.
HEADS = 8 << 10


def images() -> tuple[bytes, bytes]:
    chance = random.Random(99)
    old = chance.randbytes(5_000_000)
    moved = old[1_000_000:3_000_000] + bytes(700_000) + old[:900_000]
    return old, moved + chance.randbytes(1_500_000) + old[3_000_000:] + chance.randbytes(1_300_000)


class Laboratory:
    """A publisher's folder behind a server, and devices that all go from the same old image to the same new one."""

    def __init__(self, folder: Path, server: StaticServer, requests: list[int]) -> None:
        self.folder, self.server, self._requests = folder, server, requests
        self.old, self.new = images()
        artifact = pack(self.new)
        (folder / "www").mkdir(exist_ok=True)
        (folder / "www/new.zck").write_bytes(artifact.content)
        (folder / "old").write_bytes(self.old)
        (folder / "cert.pem").write_bytes(self_signed().pem)
        self.header = artifact.content[: artifact.header.size]
        calm = [self.trial("calm", None, 0.0) for _ in range(2)]
        self.undisturbed = max(trial.wire for trial in calm)
        self.seconds = max(trial.seconds for trial in calm)
        self.largest = max(requests)

    @property
    def bound(self) -> int:
        return self.undisturbed + self.largest + HEADS

    def trial(self, name: str, phase: str | None, moment: float) -> Trial:
        """One device: killed `moment` seconds after `phase` began (or after the start), then run again."""
        device = self.folder / name
        device.mkdir()
        (device / "slot").write_bytes(b"\xaa" * 100_000 + self.old[:3_000_000])
        port = int(self.server.url.rpartition(":")[2])
        with DelayedLink("127.0.0.1", port, round_trip=ROUND_TRIP, bandwidth=BANDWIDTH) as link:
            self._bundle(device, f"{link.url}/new.zck")
            began = time.monotonic()
            process = Install(self.folder, device)
            seen = process.kill_after(phase, moment) if moment else process.finish(0)
            seconds = time.monotonic() - began
            if moment:
                Install(self.folder, device).finish(0)
            wire = link.received
        assert (device / "slot").read_bytes() == self.new
        assert set(os.listdir(device)) == {"slot", "slot.regraft.index", "update.swu"}
        shutil.rmtree(device)
        return Trial(wire, seconds, seen)

    def _bundle(self, device: Path, url: str) -> None:
        description = describe_delta(
            DeltaRequest(
                header=Artifact("new.zck.header", len(self.header), hashlib.sha256(self.header).digest()),
                url=url,
                source=str(self.folder / "old"),
                version="2.0",
                path=str(device / "slot"),
                chain="rawfile",
                hardware=("1.0",),
                image_sha256=hashlib.sha256(self.new).digest(),
            )
        )
        (device / "update.swu").write_bytes(bundle({"new.zck.header": self.header}, description, cms_signer()))


@dataclass(frozen=True)
class Trial:
    """What passed the link for all runs, how long the first one took, and the phase in which it ended."""

    wire: int
    seconds: float
    phase: str


class Install:
    """A running `regraft install` that tells its progress."""

    def __init__(self, folder: Path, device: Path) -> None:
        command = [sys.executable, "-m", "regraft.cli", "install", "-i", str(device / "update.swu")]
        command += ["-k", str(folder / "cert.pem"), "-H", "board:1.0", "--progress", "json"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._phase, self._words = "start", ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                with self._changed:
                    if line.startswith("{"):
                        self._phase = json.loads(line)["phase"]
                    else:
                        self._words += line
                    self._changed.notify_all()
        with self._changed:
            self._phase = "end" if "release 2.0" in self._words else self._phase
            self._changed.notify_all()

    def kill_after(self, phase: str | None, moment: float) -> str:
        """Kill, `moment` seconds after the phase began; gives the phase it was in."""
        if phase is not None:
            with self._changed:
                self._changed.wait_for(lambda: self._phase in (phase, "end") or not self._reader.is_alive(), 60)
        time.sleep(moment)
        self._process.kill()
        status = self._process.wait()
        self._reader.join()
        assert status in (0, -9), self._words
        return self._phase

    def finish(self, expected: int) -> str:
        assert self._process.wait(60) == expected, self._words
        self._reader.join()
        return self._phase


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    folder = tmp_path_factory.mktemp("kill")
    requests: list[int] = []
    (folder / "www").mkdir()
    with StaticServer(folder / "www", log=lambda _line, _status, body: requests.append(body)) as server:
        yield Laboratory(folder, server, requests)


def points(count: int, laboratory: Laboratory) -> list[tuple[str | None, float]]:
    """Moments over the whole run, and just after the start of each phase, since most are short."""
    chance = random.Random(count)
    found: list[tuple[str | None, float]] = []
    for number in range(count):
        if number % 2:
            found.append((None, chance.uniform(0.01, 1.15 * laboratory.seconds)))
        else:
            found.append((PHASES[number // 2 % len(PHASES)], chance.uniform(0.0001, 0.02)))
    return found


def check(trials: list[Trial], laboratory: Laboratory) -> None:
    worst = max(trial.wire for trial in trials)
    print(
        f"{len(trials)} kills, by phase: {dict(Counter(trial.phase for trial in trials))}; undisturbed"
        f" {laboratory.undisturbed} bytes, largest request {laboratory.largest}, worst sum {worst}"
    )
    assert laboratory.largest < laboratory.undisturbed / 2, "one request must not be all of it"
    assert worst <= laboratory.bound


def test_killed_at_some_points_and_run_again(laboratory: Laboratory) -> None:
    trials = [laboratory.trial(f"q{n}", *point) for n, point in enumerate(points(6, laboratory))]
    check(trials, laboratory)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_200_points_and_run_again(laboratory: Laboratory) -> None:
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(laboratory.trial, f"s{n}", *point) for n, point in enumerate(points(200, laboratory))]
        trials = [trial.result() for trial in running]
    check(trials, laboratory)
    assert {trial.phase for trial in trials} >= {"start", *PHASES}
