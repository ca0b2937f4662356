# SPDX-License-Identifier: Apache-2.0
"""`regraft nbd --merge`: readers see the new image, and nothing else, all the time that the base becomes it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
from commands import regraft
from nbd_talk import READ, Client
from test_nbd_plan_tools import peak
from test_nbd_tools import run, serving
from tools import tool

MIB = 1 << 20
MAKERS = {
    "dm-update": ["delta", "old", "new", "-f", "dm-update", "--level", "1"],
    "cow": ["delta", "old", "new", "-f", "cow", "--level", "1"],
    "zck": ["pack", "zck", "new"],
    "cba": ["pack", "cba", "new", "--compression", "none", "--avg-chunk-size", "8KiB", "--min-chunk-size", "2KiB",
            "--max-chunk-size", "64KiB"],
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of blocks: some replaced, many moved, cycles among them, some changed by a byte."""
    folder = tmp_path_factory.mktemp("live")
    chance = random.Random(31)
    old = [chance.randbytes(4096) for _ in range(2000)]
    new = old[:]
    moved = list(range(200, 900))
    chance.shuffle(moved)
    for place, source in zip(range(200, 900), moved, strict=True):
        new[place] = old[source]
    for place in range(900, 1200):
        new[place] = chance.randbytes(4096)
    for place in range(1500, 1600):
        new[place] = old[place][:-1] + bytes([old[place][-1] ^ 1])
    (folder / "old").write_bytes(b"".join(old))
    (folder / "new").write_bytes(b"".join(new))
    before = os.getcwd()
    os.chdir(folder)
    try:
        for name, words in MAKERS.items():
            assert regraft(*words, "-o", name) == 0
    finally:
        os.chdir(before)
    return folder


@dataclass
class Readers:
    """Connections that read at random and compare, until told to stop."""

    path: Path
    wanted: bytes
    reads: int = 0
    wrong: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._read, args=(seed,)) for seed in range(3)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()
        assert not self.wrong
        assert self.reads

    def _read(self, seed: int) -> None:
        chance = random.Random(seed)
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(str(self.path))
                client = Client(line)
                client.attach(structured=False)
                while not self.over.is_set():
                    length = chance.choice((512, 4096, 40_000, 200_000))
                    start = chance.randrange(len(self.wanted) - length)
                    answer = client.command(READ, start, length, simple=True)
                    if answer.error or answer.pieces[0][1] != self.wanted[start : start + length]:
                        self.wrong.append(f"{length} bytes at {start}: error {answer.error}")
                        return
                    self.reads += 1
        except Exception as error:
            self.wrong.append(repr(error))


@pytest.mark.parametrize("plan", MAKERS)
def test_reads_are_of_the_new_image_while_the_base_becomes_it(site: Path, tmp_path: Path, plan: str) -> None:
    slot, line = tmp_path / "slot", tmp_path / "line"
    slot.write_bytes((site / "old").read_bytes())
    wanted = (site / "new").read_bytes()
    options = ["--base", str(slot), "--merge", "--rate", "3M", "--window", "256Ki", "--progress", "none"]
    with serving(str(site / plan), *options, "--socket", str(line), "--name", "x.img") as (announced, process):
        with Readers(line, wanted):
            until(lambda: slot.read_bytes() == wanted and left(tmp_path) <= {"slot.regraft.index"})
        run(tool("nbdcopy"), announced[0]["uri"], str(tmp_path / "copy"))
        assert peak(process.pid) <= 64 * MIB
    assert (tmp_path / "copy").read_bytes() == wanted == slot.read_bytes()
    (tmp_path / "again").touch()
    with serving(str(site / plan), *options, "--socket", str(line), "--name", "x.img") as (announced, _):
        run(tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", str(site / "new"), announced[0]["uri"])


def left(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if name.startswith("slot.")}


def until(condition, seconds: float = 40) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("plan", ["dm-update", "cow"])
def test_killed_and_ended_it_goes_on_with_the_new_image_in_view(site: Path, tmp_path: Path, plan: str) -> None:
    slot, line = tmp_path / "slot", tmp_path / "line"
    slot.write_bytes((site / "old").read_bytes())
    wanted = (site / "new").read_bytes()
    words = [str(site / plan), "--base", str(slot), "--socket", str(line), "--name", "x.img", "--progress", "none"]
    merge = ["--merge", "--rate", "1M", "--window", "256Ki"]
    killed = subprocess.Popen([sys.executable, "-m", "regraft.cli", "nbd", *words, *merge], stdout=subprocess.PIPE)
    until(lambda: slot.read_bytes() != (site / "old").read_bytes())
    killed.kill()
    killed.communicate()
    for _ in range(2):  # told to end
        with serving(*words, *merge), Readers(line, wanted) as readers:
            until(lambda: readers.reads > 60)
    with serving(*words, "--merge"), Readers(line, wanted) as readers:
        until(lambda: readers.reads and slot.read_bytes() == wanted and not left(tmp_path))


@pytest.mark.parametrize("plan", ["dm-update", "cow"])
def test_without_merging_the_base_stays(site: Path, tmp_path: Path, plan: str) -> None:
    slot, line = tmp_path / "slot", tmp_path / "line"
    slot.write_bytes((site / "old").read_bytes())
    slot.chmod(0o400)
    with (
        serving(str(site / plan), "--base", str(slot), "--socket", str(line), "--name", "x.img") as (announced, _),
        Readers(line, (site / "new").read_bytes()),
    ):
        run(tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", str(site / "new"), announced[0]["uri"])
    assert slot.read_bytes() == (site / "old").read_bytes()
    assert left(tmp_path) == set()


def test_a_base_in_the_middle_is_no_base(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slot, line = tmp_path / "slot", tmp_path / "line"
    slot.write_bytes((site / "old").read_bytes())
    words = [str(site / "cow"), "--base", str(slot), "--socket", str(line), "--name", "x.img"]
    with serving(*words, "--merge", "--rate", "1M", "--window", "256Ki") as (_, process):
        until(lambda: slot.read_bytes() != (site / "old").read_bytes())
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert regraft("nbd", *words) == 60
    assert "go on with --merge" in capsys.readouterr().err
