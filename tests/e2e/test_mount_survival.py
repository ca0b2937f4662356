# SPDX-License-Identifier: Apache-2.0
"""What readers of a mounted device meet while it has no daemon, when daemons follow one another, when bytes change."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lab import Guest, Job
from tools import tool
from trees import Images, make_images

BLOCK = 4096


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return make_images(tmp_path_factory.mktemp("images"))


def regraft(guest: Guest, *arguments: str) -> dict[str, Any]:
    """What a command answers with --json; it must succeed."""
    result = guest.run("regraft", *arguments, "--json")
    assert result.status == 0, result.err
    found: dict[str, Any] = json.loads(result.out)
    return found


def state(guest: Guest, device: str) -> dict[str, Any]:
    (found,) = regraft(guest, "status", device)["mounts"]
    return dict(found)


@contextmanager
def disk(guest: Guest, image: Path, device: str, *options: str) -> Iterator[dict[str, Any]]:
    """A copy of the image in the guest as a device of its kernel; what `regraft mount` says of it."""
    path = guest.put(image, f"/tmp/images/{image.name}")
    found = regraft(guest, "mount", path, device, *options)
    yield found
    regraft(guest, "umount", found["target"])
    guest.run("rm", path)


def read_files(device: str, kind: str) -> dict[str, str]:
    """In the guest: the digests of all files of a file system."""
    from lab import inside

    with inside.mounted(device, "/mnt/image", kind):
        return inside.digests("/mnt/image")


def keep_reading(device: str, kind: str, wanted: dict[str, str]) -> dict[str, Any]:
    """In the guest: read all files over and over, from the device, until SIGTERM; how often, and how long it took."""
    import signal
    import time

    from lab import inside

    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(True))
    inside.mount(device, "/mnt/busy", kind)
    rounds, slowest = 0, 0.0
    try:
        while not over:
            start = time.monotonic()
            if inside.digests("/mnt/busy", forget=True) != wanted:
                raise ValueError(f"other content in round {rounds}")
            rounds, slowest = rounds + 1, max(slowest, time.monotonic() - start)
            print(f"round {rounds}", flush=True)
    finally:
        inside.umount("/mnt/busy")
    return {"rounds": rounds, "slowest": slowest}


@dataclass
class Reader:
    """A program in the guest that reads a mounted file system all the time."""

    job: Job

    @property
    def rounds(self) -> int:
        return self.job.look().out.count("round")

    def another(self, timeout: float = 30) -> None:
        """Wait for a round that begins after this call, and the end of it."""
        wanted, end = self.rounds + 2, time.monotonic() + timeout
        while self.rounds < wanted:
            assert self.job.result is None, self.job.result
            assert time.monotonic() < end, self.job.guest.console()
            time.sleep(0.05)


@contextmanager
def reading(guest: Guest, device: str, kind: str, images: Images) -> Iterator[Reader]:
    """A reader; in the end it must have met no error and nothing but the right content."""
    reader = Reader(guest.start(keep_reading, device, kind, images.files))
    reader.another()
    yield reader
    reader.another()
    reader.job.signal(signal.SIGTERM)
    result = reader.job.wait()
    assert result.status == 0, result.err


def test_reads_wait_for_the_new_daemon(guest: Guest, images: Images) -> None:
    device = "/dev/nbd5"
    with disk(guest, images.images["ext4"], device, "--timeout", "2") as found:
        guest.run("kill", "-9", str(found["pid"]))
        reader = guest.start(read_files, device, "ext4")
        time.sleep(1.5)
        assert reader.look().status == 0
        assert reader.result is None
        regraft(guest, "mount", "/tmp/images/ext4", device, "--timeout", "2")
        assert reader.wait().value == images.files


def test_without_a_new_daemon_readers_get_errors_in_the_end(guest: Guest, images: Images) -> None:
    def read(device: str) -> int:
        import os

        from lab import inside

        inside.forget()
        handle = os.open(device, os.O_RDONLY)
        try:
            os.pread(handle, 4096, 1 << 20)
        except OSError as error:
            return error.errno or 0
        finally:
            os.close(handle)
        return 0

    device = "/dev/nbd6"
    with disk(guest, images.images["ext4"], device, "--timeout", "1", "--dead-timeout", "2") as found:
        guest.run("kill", "-9", str(found["pid"]))
        assert guest.call(read, device) == errno.EIO


def test_daemons_hand_over_under_a_reader(guest: Guest, images: Images) -> None:
    device = "/dev/nbd7"
    with disk(guest, images.images["squashfs"], device, "--connections", "4") as found:
        pids = [found["pid"]]
        with reading(guest, device, "squashfs", images) as reader:
            for _ in range(3):
                pids.append(regraft(guest, "mount", "--take-over", device)["pid"])
                reader.another()
        now = state(guest, device)
        assert len(set(pids)) == 4
        assert (now["pid"], now["live_connections"], now["errors"]) == (pids[-1], 4, 0)
        alive = guest.run("ls", "/proc").out.split()
        assert not set(map(str, pids[:-1])) & set(alive)
    # Nobody waited for the time-out of a request, which is 30 s: no request was lost.
    assert reader.job.result is not None
    assert reader.job.result.value["slowest"] < 15


def verity(image: Path, tree: Path) -> str:
    """Have veritysetup make the hash tree of an image; the root hash."""
    made = subprocess.run(
        [tool("veritysetup"), "format", str(image), str(tree)], check=True, capture_output=True, text=True
    )
    (line,) = (line for line in made.stdout.splitlines() if line.startswith("Root hash:"))
    return line.split()[-1]


@contextmanager
def verified(guest: Guest, image: Path, tree: Path, root: str, device: str) -> Iterator[str]:
    """The path of the verified device."""
    options = ("--verity", "--root-hash", root, "--tree", guest.put(tree, "/tmp/images/tree"))
    with disk(guest, image, device, *options) as found:
        assert found["root_hash"] == root
        yield found["device"]


def test_a_flipped_bit_is_an_error_and_never_data(guest: Guest, images: Images, tmp_path: Path) -> None:
    def look(device: str) -> list[Any]:
        from lab import inside

        bad = inside.failing_blocks(device)
        wrong = []
        with inside.mounted(device, "/mnt/image", "ext4"):
            inside.forget()
            for name in ("noise", "sparse", "part0/file0"):
                try:
                    with open(f"/mnt/image/{name}", "rb") as file:
                        file.read()
                except OSError as error:
                    wrong.append([name, error.errno])
        return [bad, wrong]

    image, changed = images.images["ext4"], tmp_path / "changed"
    root = verity(image, tmp_path / "tree")
    content = bytearray(image.read_bytes())
    at = content.index((image.parent / "tree/noise").read_bytes()[8 * BLOCK : 9 * BLOCK]) + 1234
    content[at] ^= 0x10
    changed.write_bytes(content)
    with verified(guest, changed, tmp_path / "tree", root, "/dev/nbd9") as device:
        assert guest.call(look, device) == [[at // BLOCK], [["noise", errno.EIO]]]
