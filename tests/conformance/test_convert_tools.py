# SPDX-License-Identifier: Apache-2.0
"""What `regraft convert` makes is read by the tools of its format."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import regraft
from images import Pair
from tools import tool


@pytest.fixture
def folder(pair: Pair, tmp_path: Path) -> Path:
    (tmp_path / "image").write_bytes(pair.new)
    return tmp_path


@pytest.mark.parametrize("compression", ["zstd", "brotli", "none"])
def test_unzck_reads_what_was_a_bita_archive(compression: str, folder: Path, pair: Pair) -> None:
    assert regraft("pack", "cba", folder / "image", "-o", folder / "a.cba", "--compression", compression) == 0
    assert regraft("convert", folder / "a.cba", "-o", folder / "out.zck") == 0
    subprocess.run([tool("zck_read_header"), "out.zck"], cwd=folder, check=True, capture_output=True)
    subprocess.run([tool("unzck"), "out.zck"], cwd=folder, check=True, capture_output=True)
    assert (folder / "out").read_bytes() == pair.new


def test_what_zck_made_becomes_a_bita_archive_and_is_itself_again(folder: Path, pair: Pair) -> None:
    """Without -u there are no digests of plain chunks: they are made on the way."""
    for options in ([], ["-u", "--chunk-hash-type", "sha256"]):
        subprocess.run([tool("zck"), *options, "-o", "theirs.zck", "image"], cwd=folder, check=True)
        assert regraft("convert", folder / "theirs.zck", "-o", folder / "a.cba") == 0
        assert regraft("convert", folder / "a.cba", "-o", folder / "back.zck") == 0
        subprocess.run([tool("unzck"), "back.zck"], cwd=folder, check=True, capture_output=True)
        assert (folder / "back").read_bytes() == pair.new
        (folder / "back").unlink()


def test_bita_clones_what_was_a_zchunk_file(folder: Path, pair: Pair) -> None:
    if os.environ.get("REGRAFT_REQUIRE_BITA", "") in ("", "0") and shutil.which("bita") is None:
        pytest.skip("bita is missing")
    assert regraft("pack", "zck", folder / "image", "-o", folder / "a.zck") == 0
    assert regraft("convert", folder / "a.zck", "-o", folder / "b.cba", "--compression", "brotli") == 0
    (folder / "old").write_bytes(pair.old)
    command = [tool("bita"), "clone", "--seed", "old", "--verify-output", "b.cba", "out"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    assert (folder / "out").read_bytes() == pair.new
