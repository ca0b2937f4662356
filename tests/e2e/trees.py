# SPDX-License-Identifier: Apache-2.0
"""A small tree of files and images of it in the file systems that devices mount."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import inside
from tools import tool

FILE_SYSTEMS = ("ext4", "squashfs", "erofs")


@dataclass(frozen=True)
class Images:
    """Images by file system, and the digests that the files in each must have."""

    files: dict[str, str]
    images: dict[str, Path]


def make_tree(folder: Path, *, seed: int = 12, files: int = 60) -> Path:
    """About a megabyte: texts, noise, an empty file, a sparse one, links, a deep folder."""
    chance = random.Random(seed)
    words = [chance.randbytes(chance.randint(3, 40)) for _ in range(500)]
    for number in range(files):
        path = folder / f"part{number % 7}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(chance.choices(words, k=chance.randint(0, 900))))
    (folder / "noise").write_bytes(chance.randbytes(400_000))
    (folder / "empty").touch()
    with (folder / "sparse").open("wb") as file:
        file.seek(500_000)
        file.write(b"end")
    deep = folder / "/".join("abcdefgh")
    deep.mkdir(parents=True)
    (deep / "leaf").write_text("leaf")
    (folder / "link").symlink_to("a/b/c/d/e/f/g/h/leaf")
    return folder


def make_image(tree: Path, kind: str, image: Path, size: str = "4M") -> Path:
    """An image of a tree. size: of an ext4, which has a journal from 8 MiB on."""
    commands = {
        "ext4": ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", str(tree), str(image), size],
        "squashfs": ["mksquashfs", str(tree), str(image), "-quiet", "-no-progress", "-comp", "zstd"],
        "erofs": ["mkfs.erofs", "-zlz4hc", str(image), str(tree)],
    }
    program, *arguments = commands[kind]
    subprocess.run([tool(program), *arguments], check=True, capture_output=True)
    return image


def make_images(folder: Path) -> Images:
    """An image of the same tree in every file system."""
    tree = make_tree(folder / "tree")
    return Images(inside.digests(str(tree)), {kind: make_image(tree, kind, folder / kind) for kind in FILE_SYSTEMS})
