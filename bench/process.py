# SPDX-License-Identifier: Apache-2.0
"""Whole processes: how long they take, what they cost, how much memory they held at their worst."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median


class Failed(Exception):  # noqa: N818 - the row has no figure, that is all
    """A command did not do what it was started for."""


@dataclass(frozen=True)
class Ran:
    """One run. Seconds of wall and of processor time (user and system), peak resident bytes, stdout."""

    wall: float
    cpu: float
    peak: int
    output: str = ""


@dataclass
class Series:
    """Runs of the same thing."""

    runs: list[Ran] = field(default_factory=list)

    @property
    def wall(self) -> float:
        return median(run.wall for run in self.runs)

    @property
    def cpu(self) -> float:
        return median(run.cpu for run in self.runs)

    @property
    def peak(self) -> int:
        return max(run.peak for run in self.runs)

    def spread(self) -> str:
        walls = [run.wall for run in self.runs]
        return f"{self.wall:.2f} s ({min(walls):.2f}-{max(walls):.2f}, cpu {self.cpu:.2f})"


def run(
    command: Sequence[str | Path],
    *,
    environment: dict[str, str] | None = None,
    stdout: Path | None = None,
    accept: Callable[[int, str], bool] = lambda status, _: status == 0,
    patience: float = 900,
) -> Ran:
    """Run to the end. Raises Failed unless `accept` takes its exit status and what it wrote to stdout and stderr.

    A child begins life with its parent's peak memory on its account, so the process that calls this must stay small:
    it imports nothing of what it measures.
    """
    with tempfile.TemporaryFile() as words, tempfile.TemporaryFile() as out:
        target = out if stdout is None else stdout.open("wb")
        began = time.monotonic()
        child = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=words,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **(environment or {})},  # as everywhere else
        )
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if target is not out:
            target.close()
        out.seek(0)
        words.seek(0)
        printed, said = (file.read(1 << 20).decode(errors="replace") for file in (out, words))
    if wall > patience or not accept(child.returncode, printed + said):
        tail = (said or printed)[-600:]
        raise Failed(f"{Path(command[0]).name} {command[1]} ended with {child.returncode}: {tail.strip()}")
    return Ran(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, printed)


def interleaved(count: int, **ways: Callable[[], Ran]) -> dict[str, Series]:
    """Each way `count` times, in turn, so that what else the machine does concerns all of them alike."""
    series = {name: Series() for name in ways}
    for _ in range(count):
        for name, way in ways.items():
            series[name].runs.append(way())
    return series
