# SPDX-License-Identifier: Apache-2.0
"""Against the real bita, both ways: the same chunks, and archives that each other reads.

bita is in no distribution (cargo install bita): these tests are skipped without it unless REGRAFT_REQUIRE_BITA is set.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from archives import Archive, pack, read
from images import CountingSource, Pair
from tools import tool

from regraft.build.cba import Options
from regraft.engine.apply import apply
from regraft.formats.cba import parse_header
from regraft.testing.memory import MemoryMedium

SIZES = Options(average=4096, minimum=512, maximum=32768)


@pytest.fixture(scope="module")
def bita() -> str:
    if os.environ.get("REGRAFT_REQUIRE_BITA", "") in ("", "0") and shutil.which("bita") is None:
        pytest.skip("bita is missing")
    return tool("bita")


def run(*command: str) -> str:
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


def compressed(bita: str, folder: Path, image: bytes, options: Options) -> Archive:
    """What bita makes of the image."""
    (folder / "image").write_bytes(image)
    window = options.parameters.window
    rule = [
        "--hash-chunking", {"rollsum": "RollSum", "buzhash": "BuzHash"}[options.chunker], "--rolling-window-size",
        str(window), "--avg-chunk-size", str(options.average), "--min-chunk-size", str(options.minimum),
        "--max-chunk-size", str(options.maximum),
    ] if options.chunker != "fixed" else ["--fixed-size", str(options.average)]  # fmt: skip
    if options.compression != "none":
        rule += ["--compression-level", str(options.level)]
    for key, value in options.metadata.items():
        rule += ["--metadata-value", key, value.decode()]
    archive = folder / "theirs.cba"
    for _ in range(50):
        run(
            bita, "compress", "-f", "-i", str(folder / "image"), "--compression", options.compression, "--hash-length",
            str(options.hash_length), *rule, str(archive),
        )  # fmt: skip
        # bita 0.15 may end before its last write has.
        if archive.stat().st_size >= parse_header(archive.read_bytes()).end:
            break
    return read(archive.read_bytes())


OPTIONS = [
    Options(),
    replace(SIZES, chunker="buzhash"),
    replace(SIZES, chunker="buzhash", window=33, compression="none"),
    replace(SIZES, chunker="fixed"),
    replace(SIZES, level=3, hash_length=20, metadata={"z": b"last", "a": b"first", "empty": b""}),
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda each: f"{each.parameters.label}-{each.compression}")
def test_the_same_image_and_options_give_the_same_archive(
    bita: str, tmp_path: Path, pair: Pair, options: Options
) -> None:
    image = pair.new[700_000:]
    theirs, ours = compressed(bita, tmp_path, image, options), pack(image, options)
    assert replace(theirs.header, writer="") == replace(
        ours.header, writer="", stored=theirs.header.stored, offsets=theirs.header.offsets
    )
    if options.compression == "none":
        assert theirs.content[theirs.header.size :] == ours.content[ours.header.size :]
    target = MemoryMedium()
    apply(theirs.recipe, [], [CountingSource(theirs.content)], target)
    assert target.content == image


@pytest.mark.parametrize("options", OPTIONS, ids=lambda each: f"{each.parameters.label}-{each.compression}")
def test_bita_clones_our_archives(bita: str, tmp_path: Path, pair: Pair, options: Options) -> None:
    (tmp_path / "ours.cba").write_bytes(pack(pair.new, options).content)
    (tmp_path / "old").write_bytes(pair.old)
    seed = ["--seed", str(tmp_path / "old"), "--verify-output"]
    run(bita, "clone", *seed, str(tmp_path / "ours.cba"), str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == pair.new


def test_first_zeros_and_small_chunks_are_cut_alike(bita: str, tmp_path: Path) -> None:
    """BuzHash's stale byte, windows wider than chunks, and what is skipped."""
    for number in range(24):
        chance = random.Random(number)
        options = Options(
            chunker="buzhash" if number % 3 else "rollsum", average=4 << number % 3, minimum=chance.choice([0, 1, 3]),
            maximum=chance.choice([70, 300]), window=chance.choice([2, 5, 16]), compression="none",
        )  # fmt: skip
        if number % 2:
            options = replace(options, average=64, minimum=chance.randrange(8, 60))
        window = options.parameters.window
        image = chance.randbytes(window) + bytes(chance.randrange(900)) + chance.randbytes(700) + bytes(200)
        theirs, ours = compressed(bita, tmp_path, image, options), pack(image, options)
        assert list(theirs.header.lengths) == list(ours.header.lengths), options
        assert theirs.header.order == ours.header.order
