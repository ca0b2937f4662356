# SPDX-License-Identifier: Apache-2.0
"""Images of a chunk store, served by `regraft nbd` to the NBD clients that are in use, and over FUSE."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import regraft
from loops import need_root
from test_fuse_loop import alone
from test_nbd_tools import run, serving
from tools import missing, tool

from regraft.server.static import StaticServer
from regraft.stores.store import open_store

MIB = 1 << 20


@dataclass(frozen=True)
class Stored:
    image: Path
    folder: Path

    @property
    def place(self) -> str:
        return str(self.folder / "store" / "v1.img")


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    chance = random.Random(9)
    with (tmp_path / "disk").open("wb") as file:
        file.write(chance.randbytes(3 * MIB) + b"words and words " * 50_000)
        file.seek(8 * MIB)
        file.write(chance.randbytes(3 * MIB + 999))
    assert regraft("pack", "zck", tmp_path / "disk", "-o", tmp_path / "disk.zck") == 0
    made = Stored(tmp_path / "disk", tmp_path)
    assert regraft("clone", tmp_path / "disk.zck", made.place) == 0
    return made


def test_an_image_of_a_store_is_read_as_it_is(stored: Stored) -> None:
    with serving(stored.place, "--socket", str(stored.folder / "s")) as (announced, process):
        (told,) = announced
        assert (told["name"], told["size"]) == ("v1.img", stored.image.stat().st_size)
        for attempt in range(2):  # chunks that are verified meanwhile, and then out of the packs
            copy = stored.folder / f"copy{attempt}"
            run(tool("nbdcopy"), "--connections=4", told["uri"], str(copy))
            assert copy.read_bytes() == stored.image.read_bytes()
        run(tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", str(stored.image), told["uri"])
        holes = json.loads(run(tool("nbdinfo"), "--map", "--json", told["uri"]))
        assert sum(extent["length"] for extent in holes if extent["type"] == 3) > 3 * MIB
        assert process.poll() is None
        assert regraft("store", "rm", stored.folder / "store", "v1.img") == 61
    assert regraft("store", "rm", stored.folder / "store", "v1.img") == 0


def test_a_flipped_byte_in_a_pack_is_an_error_of_its_reads_only(stored: Stored) -> None:
    pack = stored.folder / "store" / "00000001.pack"
    with pack.open("r+b") as file:
        file.seek(MIB + 17)
        byte = file.read(1)[0]
        file.seek(MIB + 17)
        file.write(bytes([byte ^ 1]))
    with serving(stored.place, "--socket", str(stored.folder / "s")) as (announced, _):
        uri = announced[0]["uri"]
        done = subprocess.run([tool("nbdcopy"), uri, str(stored.folder / "copy")], capture_output=True, check=False)
        assert done.returncode != 0
        run(tool("qemu-io"), "-r", "-f", "raw", "-c", "read 0 64k", "-c", f"read {9 * MIB} 64k", uri)


def test_gc_beside_what_is_served(stored: Stored) -> None:
    (stored.folder / "other").write_bytes(random.Random(4).randbytes(2 * MIB))
    assert regraft("pack", "zck", stored.folder / "other", "-o", stored.folder / "other.zck") == 0
    store = stored.folder / "store"
    assert regraft("clone", stored.folder / "other.zck", store / "v2") == 0
    with serving(stored.place, "--socket", str(stored.folder / "s")) as (announced, _):
        assert regraft("store", "rm", store, "v2") == 0
        assert regraft("store", "gc", store) == 0
        run(tool("nbdcopy"), announced[0]["uri"], str(stored.folder / "copy"))
    assert (stored.folder / "copy").read_bytes() == stored.image.read_bytes()


def test_a_lazy_clone_is_read_before_it_is_there(stored: Stored) -> None:
    place = stored.folder / "lazy" / "v1"
    with (
        StaticServer(stored.folder) as server,
        serving(
            f"{server.url}/disk.zck", "--keep", str(place), "--socket", str(stored.folder / "s"), "--name", "x.img"
        ) as (announced, _),
    ):
        uri = announced[0]["uri"]
        run(tool("nbdcopy"), uri, str(stored.folder / "copy"))
        with open_store(str(place.parent)) as store:
            end = time.monotonic() + 30
            while store.images() != ["v1"] and time.monotonic() < end:
                time.sleep(0.05)
            assert store.images() == ["v1"]
        server.stop()
        run(tool("nbdcopy"), uri, str(stored.folder / "again"))
    assert (stored.folder / "copy").read_bytes() == (stored.folder / "again").read_bytes() == stored.image.read_bytes()


def test_an_image_of_a_store_as_a_file(stored: Stored, state_folder: Path) -> None:
    need_root()
    if not os.path.exists("/dev/fuse"):
        missing("/dev/fuse")
    if alone("true").returncode:
        pytest.skip("no mount namespace of one's own here")
    script = (
        "import filecmp, subprocess, sys; from regraft.cli import main\n"
        "image, place, file = sys.argv[1:]\n"
        "def regraft(*words): return subprocess.run([sys.executable, '-m', 'regraft.cli', *words]).returncode\n"
        "assert regraft('mount', place, '--fuse', file) == 0\n"
        "same = filecmp.cmp(image, file, shallow=False)\n"
        "held = regraft('store', 'rm', *place.rsplit('/', 1))\n"
        "assert regraft('umount', file) == 0\n"
        "print(same, held)\n"
    )
    done = alone(sys.executable, "-c", script, stored.image, stored.place, stored.folder / "file", state=state_folder)
    assert done.stdout.split()[-2:] == ["True", "61"], done.stderr
