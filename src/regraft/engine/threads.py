# SPDX-License-Identifier: Apache-2.0
"""Threads for work that may hang: started when needed, and never waited for when the process ends."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class DaemonPool:
    """At most `most` threads that do what is submitted, in that order. Work must not raise.

    Unlike those of concurrent.futures, these threads do not keep a process alive that is asked to end while one of them
    waits for a dead server.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._changed = threading.Condition()
        self._work: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._threads = self._idle = 0
        self._closed = False

    def submit(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have `work(*arguments)` done. Raises RuntimeError after `close`, or if no thread can be had."""
        with self._changed:
            if self._closed:
                raise RuntimeError("submitted to a pool that is closed")
            if self._idle <= len(self._work) and self._threads < self._most:
                try:
                    self._start()
                except RuntimeError:
                    if not self._threads:  # else those that there are will do it
                        raise
            self._work.append((work, arguments))
            self._changed.notify()

    def _start(self) -> None:
        threading.Thread(target=self._serve, name=f"{self._name}-{self._threads}", daemon=True).start()
        self._threads += 1

    def close(self) -> None:
        """Forget what was not begun; threads end with what they are at."""
        with self._changed:
            self._closed = True
            self._work.clear()
            self._changed.notify_all()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._work and not self._closed:
                    self._changed.wait()
                self._idle -= 1
                if not self._work:
                    self._threads -= 1
                    return
                work, arguments = self._work.popleft()
            try:
                work(*arguments)
            except BaseException:
                with self._changed:
                    self._threads -= 1  # another one can take its place
                raise
            del work, arguments  # they may hold buffers, and the next may be long in coming
