# SPDX-License-Identifier: Apache-2.0
"""Artifacts cut by the layout of real file systems: what they save, and that stock tools read them."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from archives import Archive
from archives import pack as pack_cba
from images import pack as pack_zck
from tools import tool

from regraft.build import cba, zchunk
from regraft.build.chunks import layout_of
from regraft.engine.match import match
from regraft.engine.seeds import index_medium
from regraft.formats.chunk_rules import Placement
from regraft.model import Kind, Recipe
from regraft.testing.memory import MemoryMedium

FIXED = "11111111-2222-3333-4444-555555555555"
LAYOUT = Placement(files=True)
PLAIN, PLAIN_CBA = zchunk.Options(compression="none"), cba.Options(compression="none")


def tree(folder: Path, *, changed: bool) -> Path:
    """Files as those of a small system, of which some are changed."""
    chance = random.Random(11)
    words = [chance.randbytes(chance.randint(3, 30)).hex().encode() for _ in range(4000)]
    for number in range(100):
        content = b"\n".join(chance.choices(words, k=int(chance.lognormvariate(5.8, 1.2))))
        replacement = chance.randbytes(len(content) // 2).hex().encode()
        if changed and number % 15 == 7:
            content = replacement
        path = folder / f"d{number % 12}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


def made(kind: str, folder: Path, image: Path) -> bytes:
    """The file system of a folder."""
    commands = {
        "ext4": ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-U", FIXED, "-E",
                 f"hash_seed={FIXED},root_owner=0:0", "-d", str(folder), str(image), "12m"],
        "squashfs": ["mksquashfs", str(folder), str(image), "-comp", "zstd", "-noappend", "-no-progress", "-quiet",
                     "-all-root"],
        "erofs": ["mkfs.erofs", "-T0", f"-U{FIXED}", "--all-root", str(image), str(folder)],
    }  # fmt: skip
    command = commands[kind]
    subprocess.run(
        [tool(command[0]), *command[1:]],
        check=True,
        capture_output=True,
        env={**os.environ, "E2FSPROGS_FAKE_TIME": "9"},
    )
    return image.read_bytes()


@pytest.fixture(scope="module", params=["ext4", "squashfs", "erofs"])
def images(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """An old and a new file system of this kind."""
    folder = tmp_path_factory.mktemp(request.param)
    pair = []
    for name in ("old", "new"):
        content = made(request.param, tree(folder / name, changed=name == "new"), folder / f"{name}.img")
        found = layout_of(MemoryMedium(content))
        assert (found.kind, found.note) == (request.param, "")
        pair.append(content)
    return pair[0], pair[1]


def missing(recipe: Recipe, old: bytes) -> int:
    """Image bytes of the chunks that the old image does not have."""
    assert recipe.matchable is not None
    plan = match(recipe, [("old", index_medium(MemoryMedium(old), recipe.matchable, recipe.chunker))])
    table = plan.table
    return sum(table.length(row) for row in range(len(table)) if table.kind[table.first[row]] == Kind.DATA)


def test_less_is_missing_with_layout(images: tuple[bytes, bytes]) -> None:
    old, new = images
    for plain, cut in (
        (pack_zck(new, PLAIN).recipe, pack_zck(new, replace(PLAIN, placement=LAYOUT)).recipe),
        (pack_cba(new, PLAIN_CBA).recipe, pack_cba(new, replace(PLAIN_CBA, placement=LAYOUT)).recipe),
    ):
        assert missing(cut, old) < 0.95 * missing(plain, old)


@pytest.mark.parametrize("options", ["-zlz4", "-zlz4hc -C65536", "-zlz4 -Elegacy-compress", ""])
def test_files_of_erofs_begin_where_dump_erofs_says(options: str, tmp_path: Path) -> None:
    chance = random.Random(3)
    words = [chance.randbytes(5).hex() for _ in range(900)]
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(8):
        (folder / f"f{number}").write_text(" ".join(chance.choices(words, k=5000 + 7000 * number)))
    image = tmp_path / "image"
    subprocess.run([tool("mkfs.erofs"), *options.split(), str(image), str(folder)], check=True, capture_output=True)
    cuts = set(layout_of(MemoryMedium(image.read_bytes())).cuts)
    for number in range(8):
        command = [tool("dump.erofs"), f"--path=/f{number}", "-e", str(image)]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        first = re.search(r"^ +0: .*?: +(\d+)\.\.", shown, re.MULTILINE)
        assert first is not None
        assert int(first[1]) in cuts


@pytest.mark.parametrize("placement", [LAYOUT, Placement(4096), Placement(4096, True)], ids=str)
def test_zchunks_tools_read_it(images: tuple[bytes, bytes], placement: Placement, tmp_path: Path) -> None:
    _, new = images
    artifact = pack_zck(new, zchunk.Options(placement=placement, level=1))
    (tmp_path / "new.zck").write_bytes(artifact.content)
    shown = subprocess.run(
        [tool("zck_read_header"), "-c", "-f", "new.zck"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert f"Chunk count: {len(artifact.header)}\n" in shown
    subprocess.run([tool("unzck"), "new.zck"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "new").read_bytes() == new


def test_zckdl_finds_the_chunks_of_an_older_file(images: tuple[bytes, bytes], tmp_path: Path) -> None:
    """Its search goes by the headers of both files, whatever made the cuts."""
    from regraft.server.static import StaticServer

    old, new = images
    options = zchunk.Options(placement=LAYOUT, level=1)
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "new.zck").write_bytes(pack_zck(new, options).content)
    (tmp_path / "old.zck").write_bytes(pack_zck(old, options).content)
    with StaticServer(tmp_path / "www") as server:
        subprocess.run(
            [tool("zckdl"), "-s", "old.zck", f"{server.url}/new.zck"], cwd=tmp_path, check=True, capture_output=True
        )
        assert server.counts.body < (tmp_path / "www" / "new.zck").stat().st_size / 2
    assert (tmp_path / "new.zck").read_bytes() == (tmp_path / "www" / "new.zck").read_bytes()


def test_bita_clones_it_with_and_without_a_seed(images: tuple[bytes, bytes], tmp_path: Path) -> None:
    if os.environ.get("REGRAFT_REQUIRE_BITA", "") in ("", "0") and shutil.which("bita") is None:
        pytest.skip("bita is missing")
    old, new = images
    (tmp_path / "old").write_bytes(old)
    archives: list[Archive] = [
        pack_cba(new, replace(PLAIN_CBA, placement=placement)) for placement in (LAYOUT, Placement(4096, True))
    ]
    for number, archive in enumerate(archives):
        (tmp_path / "new.cba").write_bytes(archive.content)
        for seed in ([], ["--seed", str(tmp_path / "old")]):
            out = tmp_path / f"out{number}{len(seed)}"
            subprocess.run(
                [tool("bita"), "clone", *seed, "--verify-output", str(tmp_path / "new.cba"), str(out)],
                check=True, capture_output=True,
            )  # fmt: skip
            assert out.read_bytes() == new
