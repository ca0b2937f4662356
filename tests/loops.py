# SPDX-License-Identifier: Apache-2.0
"""Real block devices and file systems for tests, where the machine lets us make them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tools import tool


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:  # containers have the programs and not the right
        pytest.skip(f"{os.path.basename(command[0])}: {done.stderr.strip()}")
    return done.stdout.strip()


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")


@contextmanager
def loop_device(file: Path, *options: str) -> Iterator[str]:
    """The path of a loop device over `file`."""
    need_root()
    device = _run(tool("losetup"), *options, "-f", "--show", str(file))
    try:
        yield device
    finally:
        subprocess.run([tool("losetup"), "-d", device], check=False)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """`folder`, with something mounted on it: the options of mount(8), without the folder."""
    need_root()
    folder.mkdir(exist_ok=True)
    _run(tool("mount"), *options, str(folder))
    try:
        yield folder
    finally:
        subprocess.run([tool("umount"), "-l", str(folder)], check=False)
