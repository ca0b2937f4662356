# SPDX-License-Identifier: Apache-2.0
"""`regraft nbd` of an artifact behind a URL: the server dies, lies, is slow; the seed rots; the process is killed.

Each costs the reads that need what is not there, and no others: never zeros, never wrong bytes.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from images import pack
from loops import mounted
from nbd_talk import EIO, READ, Client, request

from regraft.blockdev.nbd.server import Server
from regraft.cli._export import open_export
from regraft.cli._plan_export import PlanExport
from regraft.engine.state import identity_of
from regraft.formats import journal as journal_format
from regraft.limits import Limits
from regraft.server.static import StaticServer
from regraft.testing.link import DelayedLink

MIB = 1 << 20
PATIENT = 1.5  # seconds until a read of a silent peer fails


@dataclass
class Published:
    folder: Path
    image: bytes
    port: int
    server: StaticServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/disk.zck"

    def up(self) -> None:
        self.server = StaticServer(self.folder, port=self.port)
        self.server.start()

    def down(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Published]:
    (tmp_path / "www").mkdir()
    image = random.Random(8).randbytes(3 * MIB)
    (tmp_path / "www/disk.zck").write_bytes(pack(image).content)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    made = Published(tmp_path / "www", image, port)
    made.up()
    yield made
    made.down()


@contextmanager
def disk(what: str, **more) -> Iterator[tuple[Client, PlanExport, list[str]]]:  # type: ignore[no-untyped-def]
    words: list[str] = []
    limits = Limits(view_deadline=PATIENT, view_cache=100_000)
    settings = {"read_ahead": False, "limits": limits, "report": words.append} | more
    with open_export(what, **settings) as export:
        assert isinstance(export, PlanExport)
        with Server([export], report=words.append) as server:
            ours, theirs = socket.socketpair()
            server.serve(theirs)
            client = Client(ours)
            client.attach()
            yield client, export, words
            client.line.close()


def test_a_server_that_dies_under_a_read_and_comes_back(published: Published) -> None:
    image = published.image
    with disk(published.url) as (client, _, words):
        assert client.command(READ, 0, 5000).data(0, 5000) == image[:5000]
        published.down()
        began = time.monotonic()
        assert client.command(READ, MIB, 5000).error == EIO
        assert time.monotonic() - began < 3 * PATIENT
        assert client.command(READ, 0, 5000).data(0, 5000) == image[:5000], "what is in memory needs no server"
        assert words
        published.up()
        for start in (MIB, 0, 2 * MIB):
            assert client.command(READ, start, 5000).data(start, 5000) == image[start : start + 5000]


def test_a_server_that_says_nothing_costs_its_readers_the_deadline(published: Published) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    with disk(published.url) as (client, _, _words):
        assert client.command(READ, 0, 100).error == 0
        published.down()
        silent.close()
        silent = socket.create_server(("127.0.0.1", published.port))  # accepts, by its backlog, and is silent
        began = time.monotonic()
        client.say(request(READ, MIB, 4096, cookie=1) + request(READ, 0, 100, cookie=2))
        assert client.answer().cookie == 2
        assert time.monotonic() - began < PATIENT
        answer = client.answer()
        assert (answer.cookie, answer.error) == (1, EIO)
        assert PATIENT * 0.9 < time.monotonic() - began < 3 * PATIENT
        silent.close()
        published.up()
        deadline = time.monotonic() + 10 * PATIENT
        while (answer := client.command(READ, MIB, 4096)).error and time.monotonic() < deadline:
            time.sleep(0.1)
        assert answer.data(MIB, 4096) == published.image[MIB : MIB + 4096]


def test_wrong_bytes_from_the_server_are_an_error_until_they_are_right(published: Published) -> None:
    artifact = published.folder / "disk.zck"
    good = artifact.read_bytes()
    stamp = artifact.stat()
    with disk(published.url) as (client, _, words):
        assert client.command(READ, 0, 100).error == 0
        with artifact.open("r+b") as file:
            file.seek(len(good) // 2)
            file.write(bytes(200_000))
        os.utime(artifact, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # a disk that rots changes no times
        answers = [client.command(READ, start, 5000) for start in range(0, 3 * MIB - 5000, 50_000)]
        failed = [answer for answer in answers if answer.error]
        assert 2 <= len(failed) < len(answers) // 2
        for row, answer in enumerate(answers):
            if not answer.error:
                assert answer.data(row * 50_000, 5000) == published.image[row * 50_000 :][:5000]
        assert len(words) == len(failed)
        artifact.write_bytes(good)
        os.utime(artifact, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        for start in range(0, 3 * MIB - 5000, 50_000):
            assert client.command(READ, start, 5000).data(start, 5000) == published.image[start : start + 5000]


def test_a_server_that_has_another_file_now(published: Published) -> None:
    with disk(published.url) as (client, _, words):
        (published.folder / "disk.zck").write_bytes(pack(published.image[::-1]).content)
        assert client.command(READ, MIB, 5000).error == EIO
        assert "changed while it was read" in words[0]


def test_a_seed_that_rots_is_replaced_by_the_server(published: Published, tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    seed.write_bytes(published.image)
    with disk(published.url, seeds=[str(seed)]) as (client, export, _):
        with seed.open("r+b") as file:
            file.seek(MIB)
            file.write(bytes(1000))
        for start in range(0, 3 * MIB - 70_000, 70_000):
            assert client.command(READ, start, 70_000).data(start, 70_000) == published.image[start : start + 70_000]
        assert 0 < export.view.fetched < 300_000


@pytest.mark.slow
def test_slow_reads_of_a_far_server_do_not_hold_up_others(published: Published) -> None:
    with (
        DelayedLink("127.0.0.1", published.port, round_trip=0.8, bandwidth=1e7) as link,
        disk(f"{link.url}/disk.zck", limits=Limits(view_deadline=30)) as (client, _, _words),
    ):
        assert client.command(READ, 0, 100).error == 0
        client.say(request(READ, 2 * MIB, 4096, cookie=1) + request(READ, 0, 100, cookie=2) * 5)
        answers = [client.answer() for _ in range(6)]
        assert [(answer.cookie, answer.error) for answer in answers] == [(2, 0)] * 5 + [(1, 0)]


def start(published: str, *options: str) -> tuple[subprocess.Popen[str], socket.socket]:
    """`regraft nbd` in a process of its own, and a client of it."""
    command = [sys.executable, "-m", "regraft.cli", "nbd", published, "--name", "disk", "--progress", "none", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    line = socket.socket(socket.AF_UNIX)
    line.connect(options[options.index("--socket") + 1])
    return process, line


def end(process: subprocess.Popen[str], number: int) -> str:
    process.send_signal(number)
    _, words = process.communicate(timeout=20)
    return words


def recorded(published: Published, journal: Path) -> int:
    """Bytes of the image that the journal names."""
    recipe = pack(published.image).recipe
    finished, _ = journal_format.parse(journal.read_bytes(), identity_of(recipe), len(recipe.table))
    return sum(recipe.table.length(row) for row, flag in enumerate(finished) if flag)


@pytest.mark.slow
def test_killed_and_started_again_it_fetches_nothing_twice(published: Published, tmp_path: Path) -> None:
    options = ("--socket", str(tmp_path / "socket"), "--keep", str(tmp_path / "kept"))
    chance, journal = random.Random(1), tmp_path / "kept.regraft.journal"
    with DelayedLink("127.0.0.1", published.port, round_trip=0.01, bandwidth=6e5) as link:
        for moment in (0.4, 1.5, 0.2, 1.3, 0.7):
            process, line = start(f"{link.url}/disk.zck", *options)
            stopping = threading.Timer(moment, process.kill)
            stopping.start()
            try:
                client = Client(line)
                client.attach()
                while True:
                    offset = chance.randrange(3 * MIB - 4096)
                    answer = client.command(READ, offset, 4096)
                    assert answer.data(offset, 4096) == published.image[offset : offset + 4096]
            except (EOFError, OSError):
                pass
            finally:
                process.communicate(timeout=60)
                line.close()
        before, kept = link.received, recorded(published, journal)
        process, line = start(f"{link.url}/disk.zck", *options)
        deadline = time.monotonic() + 60
        while journal.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert end(process, signal.SIGTERM) == ""
        line.close()
        assert link.received - before < len(published.image) - kept + 200_000, "what was recorded was fetched again"
    assert (tmp_path / "kept").read_bytes() == published.image
    assert kept


def test_a_full_disk_ends_keeping_and_not_serving(published: Published, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "none") as small:
        process, line = start(published.url, "--socket", str(tmp_path / "socket"), "--keep", str(small / "kept"))
        client = Client(line)
        client.attach()
        for offset in range(0, 3 * MIB - 65536, 65536):
            assert client.command(READ, offset, 65536).data(offset, 65536) == published.image[offset : offset + 65536]
        line.close()
        words = end(process, signal.SIGTERM)
        assert "nothing more is kept" in words
        assert process.returncode == 0


@pytest.mark.slow
def test_asked_to_end_it_does_not_wait_for_a_silent_server(published: Published, tmp_path: Path) -> None:
    process, line = start(published.url, "--socket", str(tmp_path / "socket"), "--no-read-ahead")
    client = Client(line)
    client.attach()
    published.down()
    silent = socket.create_server(("127.0.0.1", published.port))
    client.say(request(READ, MIB, 4096))
    time.sleep(0.2)
    began = time.monotonic()
    end(process, signal.SIGTERM)
    assert time.monotonic() - began < 10
    assert process.returncode == 0
    line.close()
    silent.close()
