# SPDX-License-Identifier: Apache-2.0
"""`regraft doctor` tells what is here and what is missing, and always succeeds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tools import native_kernels

from regraft.cli import doctor


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "regraft.cli", "doctor", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def report(**environment: str) -> dict[str, Any]:
    process = run("--json", **environment)
    assert process.returncode == 0, process.stderr
    found: dict[str, Any] = json.loads(process.stdout)
    return found


def test_the_report_is_one_json_object() -> None:
    found = report()
    assert (found["schema"], found["kind"]) == (1, "doctor")
    assert found["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert {item["name"] for item in found["libraries"]} >= {"zstandard", "cryptography", "urllib3"}
    assert all(item["found"] for item in found["libraries"])
    assert "libzstd 1." in next(item["found"] for item in found["libraries"] if item["name"] == "zstandard")


def test_the_twins_are_named_as_a_lack_with_its_cure() -> None:
    found = report(REGRAFT_KERNELS="python")
    assert found["kernels"]["kernels"] == "python"
    assert found["missing"][0]["what"] == "native kernels"
    assert "REGRAFT_KERNELS=python" in found["missing"][0]["purpose"]
    assert "make native" in found["missing"][0]["cure"]


def test_native_kernels_are_no_lack() -> None:
    native_kernels()
    found = report(REGRAFT_KERNELS="native")
    assert found["kernels"]["kernels"] == "native"
    assert found["kernels"]["profile"] == "release"
    assert "native kernels" not in [row["what"] for row in found["missing"]]


def test_tools_are_looked_up_and_not_run(tmp_path: Path) -> None:
    fake = tmp_path / "zckdl"
    fake.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    fake.chmod(0o755)
    found = report(PATH=str(tmp_path))
    by_name = {item["name"]: item for item in found["tools"]}
    assert by_name["zckdl"]["found"] == str(fake)
    assert not (tmp_path / "was-run").exists()
    assert by_name["cargo"]["found"] == ""
    assert "rustup" in next(row["cure"] for row in found["missing"] if row["what"] == "cargo")


def test_features_are_seen_by_their_devices(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "fuse").touch()
    found = {item.name: item.found for item in doctor.features(tmp_path)}
    assert found["FUSE"] == "/dev/fuse"
    assert found["loop devices"] == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu sha_ni avx2 aes\n", ["sha_ni", "avx2", "aes"]),
        ("processor\t: 0\nFeatures\t: fp asimd sha1 sha2 crc32\n", ["sha1", "sha2", "asimd", "crc32"]),
        ("no such line\n", []),
        ("", []),
    ],
)
def test_features_of_the_processor(text: str, expected: list[str]) -> None:
    assert doctor.cpu_features(text) == expected


def test_a_broken_library_is_needed_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    found = {item.name: item for item in doctor.libraries()}
    assert found["zstandard"].found == ""
    assert found["zstandard"].needed
    assert found["zstandard"].cure == "pip install zstandard"


def test_a_person_gets_the_same_with_cures() -> None:
    result = CliRunner().invoke(doctor.command)
    assert result.exit_code == 0
    for words in ("regraft 0.1.0", "Python", "zstandard", "loop devices", "missing"):
        assert words in result.stdout
    found = doctor.examine()
    for row in found["missing"]:
        assert row["what"] in result.stdout
        assert row["cure"] in result.stdout
