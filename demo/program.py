# SPDX-License-Identifier: Apache-2.0
"""Runs the installed `regraft`, as a person would, and measures it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class StepError(Exception):
    """A command of the demo did not do what it should; the message says which and how."""


@dataclass(frozen=True, slots=True)
class Done:
    """A finished command. `memory`: the peak of its resident memory in bytes, 0 where it cannot be told."""

    output: str
    words: str
    seconds: float
    memory: int

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.output)
        return found


@dataclass(frozen=True, slots=True)
class Program:
    """`regraft` in this environment, run in `folder`."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("regraft")), *arguments]

    def run(self, *arguments: str, live: bool = False) -> Done:
        """Run it to its end. live: its progress goes to our terminal, if there is one. Raises StepError if it fails."""
        live = live and sys.stderr.isatty()
        own = _resident()
        begin = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                self.command(*arguments), cwd=self.folder, stdout=out, stderr=None if live else err
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
            texts = [_text(file) for file in (out, err)]
        if process.returncode != 0:
            raise StepError(f"`regraft {' '.join(arguments)}` ended with {process.returncode}\n{''.join(texts)}")
        peak = usage.ru_maxrss << 10
        # The peak of a child counts what it was before exec, too: a copy of us.
        return Done(texts[0], texts[1], seconds, peak if peak > own else 0)

    def kill_when(self, *arguments: str, fetched: int) -> int | None:
        """Run it, and SIGKILL it as soon as it has fetched that many bytes of the image. Returns how many it had, None
        if it was done before."""
        process = subprocess.Popen(
            self.command(*arguments, "--progress", "json"),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        other: list[str] = []
        with process.stderr:
            for line in process.stderr:
                if not line.startswith("{"):
                    other.append(line)
                    continue
                event = json.loads(line)
                if event["phase"] == "write" and event["fetched"] >= fetched:
                    process.kill()
                    process.wait()
                    return int(event["fetched"])
        if process.wait() != 0:
            raise StepError(f"`regraft {' '.join(arguments)}` ended with {process.returncode}\n{''.join(other)}")
        return None

    @contextmanager
    def serving(self, folder: str) -> Iterator[int]:
        """`regraft serve` on a free port of the loopback interface; yields the port."""
        process = subprocess.Popen(
            self.command("serve", folder, "--port", "0", "--json"),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise StepError(f"`regraft serve` ended with {process.wait()}")
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield int(json.loads(line)["url"].rpartition(":")[2])
        finally:
            process.terminate()
            process.wait()


def _text(file: Any) -> str:
    file.seek(0)
    text: bytes = file.read()
    return text.decode(errors="replace")


def _resident() -> int:
    """Our own resident memory, in bytes."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 1 << 62
