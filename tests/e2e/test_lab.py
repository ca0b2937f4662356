# SPDX-License-Identifier: Apache-2.0
"""The laboratory itself: what the other tests of devices rely on."""

from __future__ import annotations

import hashlib
import random
import signal
from pathlib import Path

import pytest
from lab import Disk, Guest, Lab, LabError


def test_regraft_is_in_the_guest(guest: Guest) -> None:
    def look() -> list[str]:
        import platform

        import regraft

        return [regraft.__version__, platform.release()]

    import regraft

    version, kernel = guest.call(look)
    assert version == regraft.__version__
    assert kernel.startswith("6.1.")
    assert guest.run("regraft", "--version").out.strip().endswith(version)


def test_files_reach_the_guest_whole(guest: Guest) -> None:
    def digest(path: str) -> str:
        import hashlib
        import os

        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        os.unlink(path)
        return found

    data = random.Random(5).randbytes(3_000_001)
    assert guest.call(digest, guest.put(data, "/tmp/some/file")) == hashlib.sha256(data).hexdigest()


def test_what_fails_inside_fails_outside(guest: Guest) -> None:
    def fail() -> None:
        raise ValueError("told so")

    with pytest.raises(LabError, match="told so"):
        guest.call(fail)
    assert guest.run("sh", "-c", "echo out; echo err >&2; exit 3").status == 3


def test_jobs_are_watched_and_killed(guest: Guest) -> None:
    job = guest.start("sh", "-c", "echo running; exec sleep 1000")
    job.until("running")
    assert job.result is None
    job.signal(signal.SIGKILL)
    assert job.wait().status == -signal.SIGKILL


def test_a_disk_keeps_what_was_synced_over_reboot_and_cut(lab: Lab, tmp_path: Path) -> None:
    def write(text: str) -> None:
        import os

        handle = os.open("/dev/vdc", os.O_RDWR)
        os.write(handle, text.encode())
        os.fsync(handle)

    def read(count: int) -> str:
        with open("/dev/vdc") as file:
            return file.read(count)

    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    guest = lab.boot([Disk(path)], network=False)
    guest.call(write, "before")
    first = guest.boot_id
    guest.reboot(sync=False)
    assert guest.boot_id != first
    assert guest.call(read, 6) == "before"
    guest.call(write, "behind")
    guest.cut()
    assert path.read_bytes()[:6] == b"behind"
