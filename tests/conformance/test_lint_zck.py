# SPDX-License-Identifier: Apache-2.0
"""Files that the real `zck` makes with each of its options, and what lint says about their headers."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from tools import tool

from regraft.build.findings import MemberFacts
from regraft.build.lint_delta import check_header
from regraft.formats.zchunk import parse_header


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        (["-u", "--chunk-hash-type", "sha256"], set()),
        (["-u"], set()),
        ([], {"delta.not-reusable", "delta.chunk-digest"}),
        (["--chunk-hash-type", "sha256"], {"delta.not-reusable"}),
        (["-u", "--chunk-hash-type", "sha512"], {"delta.chunk-digest"}),
        (["-u", "--chunk-hash-type", "sha256", "--compression-format=none"], {"delta.compression"}),
        (["-u", "--chunk-hash-type", "sha256", "-D", "dictionary"], {"delta.dictionary"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_kind_of_zck_is_judged_by_its_header(options: list[str], rules: set[str], tmp_path: Path) -> None:
    chance = random.Random(1)
    (tmp_path / "image").write_bytes(chance.randbytes(200_000))
    (tmp_path / "dictionary").write_bytes(chance.randbytes(5_000))
    subprocess.run([tool("zck"), *options, "-o", "image.zck", "image"], cwd=tmp_path, check=True, timeout=60)
    whole = (tmp_path / "image.zck").read_bytes()
    header = whole[: parse_header(whole).size]
    findings, _ = check_header("entry", MemberFacts("h", len(header), b"", content=header))
    assert {finding.rule for finding in findings} == rules
    findings, _ = check_header("entry", MemberFacts("h", len(whole), b"", content=whole))
    assert {finding.rule for finding in findings} == rules | {"delta.trailing"}
