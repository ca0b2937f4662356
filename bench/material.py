# SPDX-License-Identifier: Apache-2.0
"""What is measured with: two images, their artifact, keys, a large image. Made once, kept in bench/out."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from process import Failed, run

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "bench" / "out"
PYTHON = Path(sys.executable)
REGRAFT = PYTHON.parent / "regraft"
_MIB = 1 << 20
_GENERATED = 64 * _MIB
LARGE = 1 << 30


def peer(name: str) -> Path:
    """A real tool. Raises Failed when it is not installed."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise Failed(f"{name} is not installed")
    return Path(found)


@dataclass(frozen=True)
class Material:
    """Paths of the pair, and where it comes from in words."""

    old: Path
    new: Path
    origin: str

    @property
    def _key(self) -> str:
        """What tells this pair from another: what is made of one must never be measured as the other's."""
        told = [f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in (self.old, self.new)]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]

    @property
    def artifact(self) -> Path:
        """The new image as a zchunk file, in the folder that is served."""
        return _made(
            OUT / "www" / f"new-{self._key}.zck",
            self.new,
            lambda path: run([REGRAFT, "pack", "zck", self.new, "-o", path]),
        )

    @property
    def large(self) -> Path:
        """An image of 1 GiB: the pair end to end, again and again, with scattered edits that make most chunks new."""
        return _made(OUT / f"large-{self._key}.img", self.new, self._enlarge)

    @property
    def large_old(self) -> Path:
        """What precedes it: fewer edits."""
        return _made(OUT / f"large-old-{self._key}.img", self.new, self._enlarge)

    @property
    def large_artifact(self) -> Path:
        large = self.large
        return _made(
            OUT / "www" / f"large-{self._key}.zck", large, lambda path: run([REGRAFT, "pack", "zck", large, "-o", path])
        )

    def _enlarge(self, path: Path) -> None:
        chance = random.Random(2)
        with path.open("wb") as out:
            copy = 0
            while out.tell() < LARGE:
                source = (self.old, self.new)[copy % 2]
                with source.open("rb") as image:
                    while piece := image.read(min(_MIB, LARGE - out.tell())):
                        content = bytearray(piece)
                        if copy > 1 or not path.name.startswith("large-old-"):
                            for _ in range(4):
                                content[chance.randrange(len(content))] ^= 1 + copy
                        out.write(content)
                copy += 1

    def keys(self) -> tuple[Path, Path]:
        """(certificate, its key) that sign the bundles: self-signed, for e-mail as stock swupdate wants it."""
        certificate, key = OUT / "cert.pem", OUT / "key.pem"
        if not certificate.exists():
            run([PYTHON, Path(__file__).with_name("keys.py"), certificate, key])
        return certificate, key


def _made(path: Path, source: Path, make) -> Path:  # type: ignore[no-untyped-def]
    """`path`, made anew when it is older than `source`."""
    if not path.exists() or path.stat().st_mtime < source.stat().st_mtime:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        make(partial)
        partial.replace(path)
    return path


def find() -> Material:
    """REGRAFT_CORPUS, else the corpus of the demonstration, made if its maker is there, else generated images."""
    folder = Path(os.environ.get("REGRAFT_CORPUS", ROOT / "demo" / "out" / "corpus"))
    shared = Path(os.environ.get("REGRAFT_SHARED", ROOT.parent / "shared"))
    maker = shared / "corpus" / "make_corpus"
    if not (folder / "system-new.ext4").exists() and maker.exists() and "REGRAFT_CORPUS" not in os.environ:
        print(f"making the corpus in {folder}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([str(maker), str(folder), "system"], check=True, stdout=sys.stderr)
    old, new = folder / "system-old.ext4", folder / "system-new.ext4"
    if old.exists() and new.exists():
        return Material(old, new, f"the corpus, system, {new.stat().st_size >> 20} MiB")
    return _generated()


def _generated() -> Material:
    """Without the corpus: two images of 64 MiB that share most of their bytes, of text, code and random parts."""
    OUT.mkdir(parents=True, exist_ok=True)
    old, new = OUT / "generated-old.img", OUT / "generated-new.img"
    if not new.exists():
        chance = random.Random(1)
        words = [chance.randbytes(chance.randint(3, 12)).hex().encode() for _ in range(4096)]
        content = bytearray()
        while len(content) < _GENERATED:
            kind = chance.random()
            if kind < 0.6:
                content += b" ".join(chance.choices(words, k=4000))
            elif kind < 0.8:
                content += chance.randbytes(32768)
            else:
                content += bytes(32768)
        del content[_GENERATED:]
        old.write_bytes(content)
        for _ in range(40):
            at, length = chance.randrange(_GENERATED - 200_000), chance.randint(1000, 200_000)
            content[at : at + length] = chance.randbytes(length // 2).hex().encode()[:length].ljust(length)
        new.write_bytes(content)
    return Material(old, new, "GENERATED images of 64 MiB: no corpus here, so the ratios are only a hint")
