# SPDX-License-Identifier: Apache-2.0
"""`regraft serve` in a process of its own, and what it counted."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Self

from material import REGRAFT


class Served:
    """A folder behind `url`, as a context manager. `taken` gives (requests, bytes of bodies) since the last look."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [str(REGRAFT), "serve", str(folder), "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._lines = self._process.stdout
        self.url: str = json.loads(self._lines.readline())["url"]
        self._lock = threading.Lock()
        self._requests = self._bytes = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._lines:
            told = json.loads(line)
            with self._lock:
                self._requests += 1
                self._bytes += told["bytes"]

    def taken(self) -> tuple[int, int]:
        """(requests, bytes of bodies) since the last call."""
        with self._lock:
            found = self._requests, self._bytes
            self._requests = self._bytes = 0
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
