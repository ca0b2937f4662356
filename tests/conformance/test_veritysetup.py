# SPDX-License-Identifier: Apache-2.0
"""Hash trees are those of cryptsetup's veritysetup, byte by byte, and it verifies ours."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest
from commands import regraft
from tools import tool

from regraft.errors import MissingError
from regraft.formats import cba, verity
from regraft.formats.codecs import brotli

UUID = "12345678-1234-5678-1234-567812345678"


def veritysetup(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("veritysetup"), *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 1000, 128 * 128, 128 * 128 + 1])
def test_trees_are_the_same(tmp_path: Path, blocks: int) -> None:
    content = random.Random(blocks).randbytes(blocks * 4096 - 100)
    salt = random.Random(blocks).randbytes(blocks % 40)
    data, tree = tmp_path / "data", tmp_path / "tree"
    data.write_bytes(content + bytes(100))
    done = veritysetup("format", data, tree, "--salt", salt.hex() or "-", "--uuid", UUID)
    assert done.returncode == 0, done.stderr
    root = next(line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Root hash"))
    found, ours = verity.build(
        lambda at, view: view.__setitem__(slice(None), content[at : at + len(view)]), len(content), salt,
        uuid=bytes.fromhex(UUID.replace("-", "")),
    )  # fmt: skip
    assert found.root.hex() == root
    assert ours == tree.read_bytes()
    assert verity.check_tree(tree.read_bytes(), found.root) == found


def test_what_is_packed_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        brotli()
        compression = "brotli"
    except MissingError:
        compression = "none"
    content = random.Random(3).randbytes(700_001)
    image, archive = tmp_path / "image", tmp_path / "image.cba"
    image.write_bytes(content)
    options = ["--verity", "--json", "--compression", compression, "--progress", "none"]
    for _ in range(2):
        assert regraft("pack", "cba", image, "-o", archive, *options) == 0
        packed = json.loads(capsys.readouterr().out)
        metadata = dict(cba.parse_header(archive.read_bytes()).metadata)
        assert metadata["verity.root"].decode() == packed["verity"]["root_hash"]
        root, tree = metadata["verity.root"].decode(), tmp_path / "tree"
        tree.write_bytes(metadata["verity.tree"])
    image.write_bytes(content + bytes(-len(content) % 4096))
    assert veritysetup("verify", image, tree, root).returncode == 0
    wrong = bytearray(image.read_bytes())
    wrong[5000] ^= 1
    image.write_bytes(wrong)
    assert veritysetup("verify", image, tree, root).returncode != 0


def test_zchunk_files_have_no_place_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "image").write_bytes(b"x")
    assert regraft("pack", "zck", tmp_path / "image", "-o", tmp_path / "x.zck", "--verity") == 11
    assert "pack cba --verity" in capsys.readouterr().err
