# SPDX-License-Identifier: Apache-2.0
"""`regraft completion` prints a script that works in the shell it is for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tools import tool

SCRIPT = "import sys; sys.argv[0] = 'regraft'; from regraft.cli import main; main()"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_calls_regraft_back(shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0, done.stderr
    assert f"_REGRAFT_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("regraft inst", {"install"}),
        ("regraft swu ", {"build", "extract", "inspect", "lint", "verify"}),
        ("regraft pack zck --lev", {"--level"}),
        ("regraft swu lint --generation ", {"2022.12", "current", "all"}),
    ],
)
def test_verbs_options_and_values_are_completed(words: str, expected: set[str]) -> None:
    done = run(_REGRAFT_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == expected


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    bash = tool("bash")
    program = tmp_path / "regraft"
    program.write_text(f"#!{sys.executable}\n{SCRIPT}\n")
    program.chmod(0o755)
    lines = [
        "set -e",
        'eval "$(regraft completion bash)"',
        "COMP_WORDS=(regraft he) COMP_CWORD=1",
        "_regraft_completion regraft he regraft",
        'echo "${COMPREPLY[@]}"',
    ]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [bash, "--norc", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["header"], done.stderr


def test_another_shell_is_a_usage_error() -> None:
    done = run("completion", "tcsh")
    assert done.returncode == 2
    assert "tcsh" in done.stderr
    assert "Traceback" not in done.stderr
