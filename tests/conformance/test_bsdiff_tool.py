# SPDX-License-Identifier: Apache-2.0
"""bsdiff's own patches, applied by regraft; and patches made here, applied by bspatch."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from payloads import bsdiff
from tools import tool

from regraft.engine.bsdiff import bspatch
from regraft.formats import bsdiff as form


@pytest.mark.parametrize("seed", range(4))
def test_patches_of_bsdiff_are_applied(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    old = b"".join(chance.randbytes(chance.randint(1, 900)) for _ in range(100))
    new = bytearray(old[5000:] + chance.randbytes(3000) + old[:7000])
    for _ in range(200):
        new[chance.randrange(len(new))] ^= chance.randrange(256)
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    subprocess.run([tool("bsdiff"), "old", "new", "patch"], cwd=tmp_path, check=True)
    assert bspatch(old, form.parse((tmp_path / "patch").read_bytes())) == new


def test_patches_made_here_are_applied_alike_by_bspatch(tmp_path: Path) -> None:
    old = random.Random(9).randbytes(5000)
    patch = bsdiff([(old[:700], b"more", 100), (old[700:900], b"", -800), (bytes(100), b"end", 0)])
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "patch").write_bytes(patch)
    subprocess.run([tool("bspatch"), "old", "new", "patch"], cwd=tmp_path, check=True)
    assert (tmp_path / "new").read_bytes() == bspatch(old, form.parse(patch))
