# SPDX-License-Identifier: Apache-2.0
"""A pair of real images, old and new: from the shared corpus where it can be built, else from files of this machine."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import subprocess
import sysconfig
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
SUMS = "SHA256SUMS"
#: What `make_corpus` calls, and a package of it that apt must offer in two versions, else old and new are the same.
TOOLS = ("apt-get", "apt-cache", "dpkg", "dpkg-deb", "mke2fs", "mksquashfs", "mkfs.erofs", "tar", "sha256sum")
PROBE = "libssl3"
#: Of the files taken from this machine: the sum of their sizes, and the largest one, in bytes.
TOTAL, LARGEST = 150_000_000, 8_000_000
WHEN = 1_700_000_000
UUID = "11111111-2222-3333-4444-555555555555"

Say = Callable[[str], None]


class ImagesError(Exception):
    """There is no pair of images; the message says why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images. `story`: what they are. `note`: why they are not the shared corpus; empty if they are."""

    old: Path
    new: Path
    story: str
    note: str = ""


def obtain(folder: Path, say: Say) -> Pair:
    """The pair in `folder`, built first unless it is there already. Raises ImagesError."""
    pair = _there(folder)
    if pair is not None:
        say(f"found in {folder}, digests checked")
        return pair
    folder.mkdir(parents=True, exist_ok=True)
    reason = _corpus(folder, say)
    if not reason:
        pair = _there(folder)
        if pair is not None and _digest(pair.old) != _digest(pair.new):
            return pair
        reason = "apt offers the same packages as old and as new"
    for leftover in folder.glob("system-*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    say("building them from files of this machine")
    _machine(folder, reason)
    pair = _there(folder)
    if pair is None:
        raise ImagesError(f"{folder} holds no pair of images after building one")
    return pair


def _there(folder: Path) -> Pair | None:
    """The pair that a finished run left in `folder`."""
    sums = folder / SUMS
    if not sums.is_file():
        return None
    lines = [line.split(maxsplit=1) for line in sums.read_text().splitlines() if line.strip()]
    listed = {name: digest for digest, name in lines}
    for stem in ("system", "machine"):
        for suffix in ("ext4", "tar"):
            names = [f"{stem}-{side}.{suffix}" for side in ("old", "new")]
            if not all(name in listed for name in names):
                continue
            for name in names:
                if not (folder / name).is_file() or _digest(folder / name) != listed[name]:
                    raise ImagesError(f"{folder / name} is not what {sums} says: remove {folder} and start again")
            note = (folder / "note").read_text().strip() if (folder / "note").is_file() else ""
            return Pair(folder / names[0], folder / names[1], _story(stem, suffix), note)
    return None


def _story(stem: str, suffix: str) -> str:
    kind = "ext4" if suffix == "ext4" else "files one after another, as tar writes them"
    if stem == "system":
        return f"a Debian root file system before and after its updates ({kind})"
    return f"files of this machine, then some edited, added and removed ({kind})"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- the shared corpus -------------------------------------------------------------------------------------------------


def _corpus(folder: Path, say: Say) -> str:
    """Run `make_corpus`. Returns why that was not possible, or nothing."""
    shared = Path(os.environ.get("REGRAFT_SHARED") or CHECKOUT.parent / "shared")
    program = shared / "corpus" / "make_corpus"
    if not os.access(program, os.X_OK):
        return "there is no ../shared/corpus/make_corpus; REGRAFT_SHARED names another place of `shared`"
    if os.geteuid() != 0:
        return "make_corpus needs root"
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    environment = {**os.environ, "PATH": path}
    offers = subprocess.run(
        ["apt-cache", "madison", PROBE], env=environment, capture_output=True, text=True, check=False
    )
    versions = {line.split("|")[1].strip() for line in offers.stdout.splitlines() if line.count("|") >= 2}
    if len(versions) < 2:
        return f"apt offers {len(versions)} versions of {PROBE}, 2 are needed; apt-get update may help"
    if shutil.disk_usage(folder).free < 2_000_000_000:
        return f"less than 2 GB free in {folder}"
    say("from Debian packages, with make_corpus: takes some minutes, the next run finds them ready")
    done = subprocess.run(
        [str(program), str(folder), "system"], env=environment, capture_output=True, text=True, check=False
    )
    (folder / "note").unlink(missing_ok=True)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        return f"make_corpus failed: {words[-1] if words else done.returncode}"
    return ""


# -- files of this machine ---------------------------------------------------------------------------------------------


def _machine(folder: Path, note: str) -> None:
    tree = folder / "machine.tree"
    shutil.rmtree(tree, ignore_errors=True)
    try:
        _fill(tree)
        size = sum(-(-path.stat().st_size // 4096) * 4096 + 1024 for path in tree.rglob("*"))
        size = (size * 5 // 4 // (16 << 20) + 2) * (16 << 20)  # room for what is added, and for the file system itself
        old = _image(tree, folder / "machine-old", size)
        _change(tree)
        new = _image(tree, folder / "machine-new", size)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    if old.suffix != new.suffix:
        raise ImagesError("mke2fs made only one of the two images")
    (folder / "note").write_text(note + "\n")
    (folder / SUMS).write_text("".join(f"{_digest(path)}  {path.name}\n" for path in (old, new)))


def _sources() -> Iterator[Path]:
    roots = [sysconfig.get_path("stdlib"), "/usr/share", "/usr/lib", "/usr/bin"]
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if name not in ("__pycache__", "site-packages", ".git"))
            yield from (Path(folder, name) for name in sorted(files))


def _fill(tree: Path) -> None:
    """Copies of files of this machine, up to TOTAL bytes."""
    total = 0
    for source in _sources():
        try:
            facts = source.lstat()
            if not stat.S_ISREG(facts.st_mode) or not 0 < facts.st_size <= LARGEST or total + facts.st_size > TOTAL:
                continue
            target = tree / source.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        except OSError:  # not for us to read, or gone meanwhile
            continue
        total += facts.st_size
    if total < 1_000_000:
        raise ImagesError("this machine has too few readable files to build an image of")


def _change(tree: Path) -> None:
    """The new release: some files edited, some removed, some added, the same ones each time."""
    files = sorted(path for path in tree.rglob("*") if path.is_file())
    for number, path in enumerate(files):
        chance = random.Random(number)
        content = path.read_bytes()
        third = len(content) // 3
        if number % 29 == 7:  # edited: a few bytes more, all that follows moves
            path.write_bytes(content[:third] + b"\n# edited for the new release\n" + content[third:])
        elif number % 31 == 3:  # rebuilt: other bytes in the same place
            path.write_bytes(content[:third] + chance.randbytes(min(4096, third)) + content[third:][min(4096, third) :])
        elif number % 97 == 11:
            path.unlink()
        elif number % 101 == 17:
            (path.parent / f"added-{number}").write_bytes(chance.randbytes(20_000 + number % 7 * 20_000))


def _image(tree: Path, stem: Path, size: int) -> Path:
    """An ext4 file system of `size` bytes with the tree in it; without mke2fs the files one after another."""
    for path in [*tree.rglob("*"), tree]:
        os.utime(path, (WHEN, WHEN))
    program = shutil.which("mke2fs", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if program is not None:
        image = stem.with_suffix(".ext4")
        options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-N", "65536", "-L", "rootfs", "-U", UUID]
        extended = f"hash_seed={UUID},lazy_itable_init=0,root_owner=0:0"
        done = subprocess.run(
            [program, *options, "-E", extended, "-d", str(tree), str(image), f"{size >> 10}k"],
            env={**os.environ, "E2FSPROGS_FAKE_TIME": str(WHEN)},
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            return image
        image.unlink(missing_ok=True)
    image = stem.with_suffix(".tar")
    with tarfile.open(image, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(tree.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    facts = tarfile.TarInfo(str(path.relative_to(tree)))
                    facts.size, facts.mtime, facts.mode = path.stat().st_size, WHEN, 0o644
                    archive.addfile(facts, file)
    return image
