# SPDX-License-Identifier: Apache-2.0
"""`regraft mount --fuse` before the real kernel: as a file, and as a file system on a loop device over it.

All mounts are made in a mount namespace of their own, which takes them along when it ends.
"""

from __future__ import annotations

import filecmp
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import regraft
from loops import need_root
from tools import missing, tool

#: In the namespace: mount over FUSE and loop, compare each file with the tree, and take all away again.
COMPARE = """
import filecmp, json, os, subprocess, sys
from regraft.blockdev import loop, mounting
from regraft.blockdev.fuse.mount import mount_file
from regraft.cli._export import open_export
from regraft.errors import BusyError
image, what, tree, kind, folder = sys.argv[1:]
words = []
opened = open_export(what)
file = mount_file(opened.__enter__(), folder + "/file", report=words.append)
found = {"size": os.path.getsize(file.path), "mode": oct(os.stat(file.path).st_mode)}
found["same"] = filecmp.cmp(image, file.path, shallow=False)
try:
    open(file.path, "r+b")
except OSError as error:
    found["writing"] = error.strerror
device, held = loop.attach(file.path)
os.mkdir(folder + "/mounted")
mounting.mount(device, folder + "/mounted", kind, 1, "")
os.close(held)
different, count = [], 0
for path, folders, names in os.walk(tree):
    for name in names:
        one = os.path.join(path, name)
        two = os.path.join(folder, "mounted", os.path.relpath(one, tree))
        count += 1
        if os.path.islink(one):
            equal = os.readlink(one) == os.readlink(two)
        else:
            equal = filecmp.cmp(one, two, shallow=False)
        if not equal:
            different.append(name)
try:
    file.unmount()
except BusyError:
    found["busy"] = True
mounting.unmount(folder + "/mounted")
for _ in range(100):
    try:
        file.unmount()
        break
    except BusyError:
        __import__("time").sleep(0.05)
found |= {"files": count, "different": different, "words": words, "left": os.path.exists(folder + "/file")}
print(json.dumps(found))
"""


def alone(*command: str | Path, state: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it in a mount namespace of its own."""
    environment = {**os.environ, **({"REGRAFT_STATE": str(state)} if state else {})}
    enter = [tool("unshare"), "--mount", "--propagation", "private"]
    return subprocess.run(
        [*enter, *map(str, command)], capture_output=True, text=True, env=environment, check=False, timeout=100
    )


@pytest.fixture(autouse=True)
def _possible() -> None:
    need_root()
    if not os.path.exists("/dev/fuse"):
        missing("/dev/fuse")
    if alone("true").returncode:
        pytest.skip("no mount namespace of one's own here")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, chance = tmp_path_factory.mktemp("fuse") / "tree", random.Random(4)
    for number in range(60):
        path = folder / f"part{number % 5}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randint(0, 60_000)))
    (folder / "text").write_text("the same words again and again\n" * 9000)
    (folder / "link").symlink_to("text")
    return folder


IMAGES = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-d", "{tree}", "{image}", "16M"],
    "squashfs": ["mksquashfs", "{tree}", "{image}", "-quiet", "-no-progress", "-comp", "zstd"],
    "erofs": ["mkfs.erofs", "-zlz4hc", "{image}", "{tree}"],
}


def made(kind: str, tree: Path, image: Path) -> Path:
    program, *words = [word.format(tree=tree, image=image) for word in IMAGES[kind]]
    subprocess.run([tool(program), *words], check=True, capture_output=True)
    return image


@pytest.mark.parametrize("place", ["file", "store"])
@pytest.mark.parametrize("kind", IMAGES)
def test_every_file_of_the_tree_comes_back(tmp_path: Path, tree: Path, kind: str, place: str) -> None:
    if f"\t{kind}\n" not in Path("/proc/filesystems").read_text():
        pytest.skip(f"this kernel has no {kind}")
    image = made(kind, tree, tmp_path / "image")
    what = image
    if place == "store":
        what = tmp_path / "store" / "v1"
        assert regraft("pack", "cba", image, "-o", tmp_path / "image.cba", "--compression", "none") == 0
        assert regraft("clone", tmp_path / "image.cba", what) == 0
    done = alone(sys.executable, "-c", COMPARE, image, what, tree, kind, tmp_path)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.pop("files") == 62
    assert found == {
        "size": image.stat().st_size, "mode": "0o100444", "same": True, "writing": "Read-only file system",
        "busy": True, "different": [], "words": [], "left": False,
    }  # fmt: skip


SCRIPT = """
set -e
mount() { "$PYTHON" -m regraft.cli mount "$IMAGE" --fuse "$FILE" "$@"; }
ask() { "$PYTHON" -m regraft.cli "$@"; }
trap 'umount -l "$FILE" 2>/dev/null || true' EXIT
"""


def scripted(tmp_path: Path, lines: str) -> subprocess.CompletedProcess[str]:
    """The lines of shell, with an image of 100,001 bytes and a place for a file."""
    image = tmp_path / "image"
    image.write_bytes(random.Random(9).randbytes(100_001))
    settings = [f"PYTHON={sys.executable}", f"IMAGE={image}", f"FILE={tmp_path / 'file'}"]
    return alone("env", *settings, "sh", "-c", SCRIPT + lines, state=tmp_path / "state")


def test_the_verb_with_its_daemon(tmp_path: Path) -> None:
    done = scripted(
        tmp_path,
        """
        mount; cat "$FILE" > "$FILE.copy"; ask status --json
        mount 2>&1 && exit 1; ask umount "$FILE" >&2; ask status --json
        """,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert filecmp.cmp(tmp_path / "image", tmp_path / "file.copy", shallow=False)
    assert done.stdout.startswith(f"{tmp_path / 'file'}\n")
    assert '"state": "serving"' in done.stdout
    assert "something is mounted on" in done.stdout
    assert '"mounts": []' in done.stdout
    assert not (tmp_path / "file").exists()


def test_a_daemon_that_died_is_replaced(tmp_path: Path) -> None:
    done = scripted(
        tmp_path,
        """
        pid() { ask status --json | sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p'; }
        mount; kill -9 $(pid); sleep 0.3; cat "$FILE" > /dev/null && exit 1; ask status >&2
        mount; cmp "$FILE" "$IMAGE"
        kill -9 $(pid); sleep 0.3; ask umount "$FILE"; ask status --json
        """,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": dead," in done.stderr
    assert '"mounts": []' in done.stdout


def test_a_term_signal_ends_it_only_when_nobody_reads(tmp_path: Path) -> None:
    done = scripted(
        tmp_path,
        """
        pid() { ask status --json | sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p'; }
        mount; exec 9<"$FILE"; kill $(pid); sleep 1.2; ask status; cat <&9 | cmp - "$IMAGE"
        exec 9<&-; kill $(pid); for i in 1 2 3 4 5 6 7 8 9 10; do [ -e "$FILE" ] || break; sleep 0.2; done
        [ ! -e "$FILE" ]; ask status --json
        """,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "asked to end, but goes on" in done.stdout
    assert '"mounts": []' in done.stdout


def test_a_daemon_stays_small(tmp_path: Path) -> None:
    done = scripted(
        tmp_path,
        """
        pid() { ask status --json | sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p'; }
        mount >&2; cmp "$FILE" "$IMAGE"; sed -n 's/VmHWM:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/$(pid)/status
        ask umount "$FILE" >&2
        """,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 0 < int(done.stdout.split()[-1]) < 64 << 10
