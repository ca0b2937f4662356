# SPDX-License-Identifier: Apache-2.0
"""Progress for people (a bar on a terminal, a line now and then elsewhere) and for programs (JSON lines on stderr)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Protocol, TextIO

from regraft.cli._output import size
from regraft.engine.progress import Origin

#: What each phase of the engine is called in words.
_WORDS = {
    "pack": "packing",
    "compare": "comparing both images",
    "digest": "hashing",
    "convert": "converting",
    "index": "reading the seed",
    "look": "looking at the target",
    "base": "checking the base",
    "fetch": "fetching",
    "write": "writing",
    "merge": "merging",
    "verify": "reading back",
    "unpack": "unpacking",
    "compact": "compacting",
}


class _Display(Protocol):
    def show(self, report: _Report) -> None: ...
    def end(self) -> None: ...


class _Report:
    """One moment of a phase: done and total in bytes, rate in bytes per second, eta in seconds (None: unknown)."""

    def __init__(self, phase: str, total: int, done: int, local: int, fetched: int, seconds: float) -> None:
        self.phase, self.total, self.done = phase, total, done
        self.local, self.fetched = local, fetched
        self.rate = done / seconds if seconds > 0.05 else 0.0
        self.eta = (total - done) / self.rate if self.rate else None

    @property
    def part(self) -> float:
        return min(self.done / self.total, 1.0) if self.total else 1.0

    def words(self) -> str:
        text = f"{_WORDS.get(self.phase, self.phase)}: {self.part:4.0%} of {size(self.total)}"
        if self.rate:
            text += f", {size(self.rate)}/s"
        if self.eta and self.part < 1:
            text += f", {self.eta:.0f} s left"
        if self.phase == "write" and self.local:
            text += f", {size(self.local)} not fetched"
        return text


class Meter:
    """The `Progress` of the engine: counts, and shows at most ten times a second. Thread-safe."""

    def __init__(self, display: _Display) -> None:
        self._display, self._lock = display, Lock()
        self._phase, self._total, self._begin, self._shown = "", 0, 0.0, 0.0
        self._counts = dict.fromkeys(Origin, 0)

    def phase(self, name: str, total: int) -> None:
        with self._lock:
            self._show()
            self._phase, self._total = name, total
            self._begin = self._shown = time.monotonic()
            self._counts = dict.fromkeys(Origin, 0)
            self._show()

    def advance(self, count: int, origin: Origin) -> None:
        with self._lock:
            self._counts[origin] += count
            now = time.monotonic()
            if now - self._shown >= 0.1:
                self._shown = now
                self._show()

    def _show(self) -> None:
        if not self._phase:
            return
        done, fetched = sum(self._counts.values()), self._counts[Origin.FETCHED]
        seconds = time.monotonic() - self._begin
        self._display.show(_Report(self._phase, self._total, done, done - fetched, fetched, seconds))

    def close(self) -> None:
        with self._lock:
            self._show()
            self._display.end()


class _Bar:
    """One line, drawn over and over."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._phase = stream, ""

    def show(self, report: _Report) -> None:
        width = 24
        filled = round(report.part * width)
        lead = "\n" if self._phase and self._phase != report.phase else ""
        self._phase = report.phase
        bar = "█" * filled + "░" * (width - filled)
        self._stream.write(f"{lead}\r\x1b[2K{bar} {report.words()}")
        self._stream.flush()

    def end(self) -> None:
        if self._phase:
            self._stream.write("\n")


class _Lines:
    """A line for each 20 % of a phase that lasts: for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._phase, self._step = stream, "", 0

    def show(self, report: _Report) -> None:
        step = int(report.part * 5)
        if report.phase != self._phase:
            self._phase, self._step = report.phase, 0
        if step > self._step and report.part < 1:
            self._step = step
            self._stream.write(report.words() + "\n")

    def end(self) -> None: ...


class _Events:
    """One JSON object per line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, report: _Report) -> None:
        event = {
            "kind": "progress",
            "phase": report.phase,
            "total": report.total,
            "done": report.done,
            "fetched": report.fetched,
            "rate": round(report.rate),
            "eta": None if report.eta is None else round(report.eta, 1),
        }
        self._stream.write(json.dumps(event) + "\n")
        self._stream.flush()

    def end(self) -> None: ...


class _Nothing:
    def show(self, report: _Report) -> None: ...
    def end(self) -> None: ...


@contextmanager
def meter(mode: str) -> Iterator[Meter]:
    """A progress display on stderr. mode: auto (bar on a terminal, else lines), json, none."""
    display: _Display
    if mode == "json":
        display = _Events(sys.stderr)
    elif mode == "none":
        display = _Nothing()
    elif sys.stderr.isatty():
        display = _Bar(sys.stderr)
    else:
        display = _Lines(sys.stderr)
    shown = Meter(display)
    try:
        yield shown
    finally:
        shown.close()
