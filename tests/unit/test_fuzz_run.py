# SPDX-License-Identifier: Apache-2.0
"""The fuzz runner finds, keeps and repeats what goes wrong in a target."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[2] / "fuzz" / "run.py"


def fuzz(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUN), "--folder", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=60)


def target(folder: Path, body: str, seed: bytes = b"seed", name: str = "it") -> None:
    (folder / f"fuzz_{name}.py").write_text(f"def target(data):\n    {body}\n\ndef seeds():\n    return [{seed!r}]\n")


def kept(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in (folder / "crashes").glob("*")]


def test_a_target_that_holds_passes(tmp_path: Path) -> None:
    target(tmp_path, "len(data)")
    process = fuzz(tmp_path, "--seconds", "0.2")
    assert process.returncode == 0, process.stderr
    assert "1 targets, 0 failed" in process.stdout
    assert not kept(tmp_path)


def test_a_mutant_that_escapes_is_kept_and_replayed(tmp_path: Path) -> None:
    target(tmp_path, "assert data == b'seed'")
    process = fuzz(tmp_path, "--seconds", "5")
    assert process.returncode == 1
    assert "AssertionError" in process.stderr
    assert len(kept(tmp_path)) == 1
    assert kept(tmp_path) != [b"seed"]
    assert fuzz(tmp_path, "--replay").returncode == 1
    target(tmp_path, "pass")
    assert fuzz(tmp_path, "--replay").returncode == 0


@pytest.mark.parametrize(
    ("body", "sign"),
    [
        ("[None for _ in iter(int, 1)]", "TooLong"),
        ("bytearray(1 << 32)", "MemoryError"),
        ("import os; os.kill(os.getpid(), 11)", "signal 11"),
        ("raise SystemExit(0)", "SystemExit"),
    ],
)
def test_time_memory_and_the_end_of_the_process_count(tmp_path: Path, body: str, sign: str) -> None:
    target(tmp_path, body)
    process = fuzz(tmp_path, "--replay", "--time", "0.5")
    assert process.returncode == 1
    assert sign in process.stderr + process.stdout
    assert kept(tmp_path) == [b"seed"]


def test_one_failure_does_not_hide_the_others(tmp_path: Path) -> None:
    target(tmp_path, "raise ValueError", name="bad")
    target(tmp_path, "pass", name="good")
    process = fuzz(tmp_path, "--replay")
    assert "2 targets, 1 failed: bad" in process.stdout
    assert fuzz(tmp_path, "--replay", "--target", "good").returncode == 0
    assert fuzz(tmp_path, "--replay", "--target", "none").returncode == 2


def test_the_corpus_is_replayed(tmp_path: Path) -> None:
    target(tmp_path, "assert data != b'from the corpus'")
    (tmp_path / "corpus" / "it").mkdir(parents=True)
    assert fuzz(tmp_path, "--replay").returncode == 0
    (tmp_path / "corpus" / "it" / "case").write_bytes(b"from the corpus")
    assert fuzz(tmp_path, "--replay").returncode == 1


def test_the_same_seed_gives_the_same_mutants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RUN.parent))
    from random import Random

    from mutate import LONGEST, mutate

    def mutants(seed: int) -> list[bytes]:
        random = Random(seed)
        return [mutate(b"some bytes, to be changed", [b"others", b""], random) for _ in range(500)]

    assert mutants(1) == mutants(1)
    assert mutants(1) != mutants(2)
    assert len(set(mutants(1))) > 400
    assert max(map(len, mutants(3))) <= LONGEST
    assert b"" in mutants(1) or min(map(len, mutants(1))) < 5
