# SPDX-License-Identifier: Apache-2.0
"""`regraft overlay` in a device: an ext4 is the new one at once, is read all the time that it is merged, over killed
daemons, a power cut and restarts, and in the end the base is the new image."""

from __future__ import annotations

import hashlib
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import regraft as on_host
from lab import Disk, Guest, Lab, inside
from test_mount_survival import read_files, reading
from trees import Images, make_image, make_tree

BASE, DATA = "/dev/vdc", "/mnt/data"
NAME = "system"
DEVICE = f"/dev/mapper/{NAME}"


@dataclass(frozen=True)
class Site:
    """Two releases of a file system, and a disk with the deltas between them."""

    old: bytes
    new: Images
    data: Path

    @property
    def target(self) -> bytes:
        return self.new.images["ext4"].read_bytes()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("overlay")
    tree = make_tree(folder / "tree")
    old = make_image(tree, "ext4", folder / "old").read_bytes()
    chance = random.Random(4)
    for number in range(0, 120, 3):
        (tree / f"part{number % 7}" / f"file{number}").write_bytes(chance.randbytes(chance.randint(0, 20_000)))
    (tree / "noise").rename(tree / "moved")
    image = make_image(tree, "ext4", folder / "new")
    (folder / "data").mkdir()
    for name, *options in (("diff", "dm-update"), ("cow", "cow")):
        arguments = ["delta", folder / "old", folder / "new", "-f", *options, "--level", "1"]
        assert on_host(*arguments, "-o", folder / "data" / name) == 0
    data = make_image(folder / "data", "ext4", folder / "data.img", "32M")  # with a journal: power is cut
    return Site(old, Images(inside.digests(str(tree)), {"ext4": image}), data)


@dataclass
class Device:
    """A device whose third disk is the base, and whose fourth has the deltas and the state."""

    guest: Guest

    def regraft(self, *arguments: str, status: int = 0) -> str:
        result = self.guest.run("sh", "-c", f'REGRAFT_STATE={DATA}/state exec regraft overlay "$@"', "sh", *arguments)
        assert result.status == status, result.err
        return result.err if status else result.out

    def create(self, delta: str, *options: str) -> dict[str, Any]:
        words = ["create", NAME, "--base", BASE, "--diff", f"{DATA}/{delta}", "--timeout", "2", *options, "--json"]
        found: dict[str, Any] = json.loads(self.regraft(*words))
        return found

    def status(self) -> dict[str, Any]:
        (found,) = json.loads(self.regraft("status", NAME, "--json"))["overlays"]
        return dict(found)

    def until(self, state: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while (found := self.status())["state"] != state:
            assert time.monotonic() < end, found
            time.sleep(0.2)

    def files(self) -> dict[str, str]:
        found: dict[str, str] = self.guest.call(read_files, DEVICE, "ext4")
        return found

    def leads_to(self) -> list[str]:
        def look(device: str) -> list[str]:
            import os

            number = os.stat(device).st_rdev
            return os.listdir(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/slaves")

        found: list[str] = self.guest.call(look, DEVICE)
        return found


def mount_data() -> None:
    from lab import inside

    inside.mount("/dev/vdd", "/mnt/data", "ext4", 0)


@pytest.fixture
def disks(site: Site, tmp_path: Path) -> list[Disk]:
    (tmp_path / "base").write_bytes(site.old)
    (tmp_path / "data").write_bytes(site.data.read_bytes())
    return [Disk(tmp_path / "base"), Disk(tmp_path / "data")]


def boot(lab: Lab, disks: list[Disk]) -> Device:
    device = Device(lab.boot(disks, network=False))
    device.guest.call(mount_data)
    return device


def digest(path: str) -> str:
    """In the guest."""
    import hashlib

    from lab import inside

    inside.forget()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_new_image_at_once_and_the_base_below_it_in_the_end(lab: Lab, site: Site, disks: list[Disk]) -> None:
    device = boot(lab, disks)
    guest = device.guest

    # Nothing is merged before it is told to, and until then there is a way back.
    made = device.create("diff", "--no-bg-update")
    assert (made["device"], made["merged"]) == (DEVICE, False)
    assert device.files() == site.new.files
    found = device.status()
    assert (found["state"], found["merge"]["state"], found["merge"]["merged"]) == ("serving", "ready", 0)
    total = found["merge"]["total"]
    assert device.regraft("status").startswith(f"0 {total} {NAME}: ready")
    device.regraft("remove", NAME)
    assert guest.call(digest, BASE) == sha256(site.old)

    device.create("diff", "--no-bg-update", "--rate", "60k")
    with reading(guest, DEVICE, "ext4", site.new) as reader:
        device.regraft("remove", NAME, status=61)
        device.regraft("swap", NAME, status=60)
        device.regraft("merge", NAME)
        found = device.status()
        assert found["merge"]["state"] == "merging"
        assert 0 <= found["merge"]["merged"] < found["merge"]["total"] == total
        assert "no way back" in device.regraft("remove", NAME, status=60)
        reader.another()
        guest.run("kill", "-9", str(found["pid"]))
        assert device.status()["state"] == "dead"
        assert device.create("diff", "--no-bg-update")["pid"] != found["pid"]  # it goes on, and merges
        device.until("swapped")
        reader.another()
        assert device.leads_to() == ["vdc"]
        assert device.regraft("status").startswith(f"{total} {total} {NAME}: swapped")
        device.regraft("remove", NAME, status=61)
    device.regraft("remove", NAME)
    assert device.regraft("status") == ""
    assert guest.call(digest, BASE) == sha256(site.target)
    guest.cut()
    assert Path(str(disks[0].source)).read_bytes() == site.target


def test_cut_in_the_middle_it_goes_on(lab: Lab, site: Site, disks: list[Disk]) -> None:
    base = Path(str(disks[0].source))
    device = boot(lab, disks)
    device.create("cow", "--rate", "100k", "--window", "64Ki")
    end = time.monotonic() + 30
    while device.status()["merge"]["merged"] == 0:
        assert time.monotonic() < end
    device.guest.cut()
    assert base.read_bytes() not in (site.old, site.target)

    device = boot(lab, disks)
    assert device.status()["state"] == "gone"
    device.create("cow", "--no-bg-update", "--window", "64Ki")
    assert device.files() == site.new.files
    device.until("swapped")
    device.guest.reboot()

    device.guest.call(mount_data)
    made = device.create("cow")
    assert (made["pid"], made["merged"]) == (0, True)
    assert device.leads_to() == ["vdc"]
    assert device.files() == site.new.files
    device.regraft("remove", NAME)
    device.guest.cut()
    assert base.read_bytes() == site.target
