# SPDX-License-Identifier: Apache-2.0
"""A merge in a thread of its own, while others read: begun, held, told to go on, and asked how it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from regraft.engine.merge import Merge
from regraft.engine.merge_status import Status
from regraft.errors import RegraftError

#: In which states of a merge somebody works.
_WORKING = ("merging", "verifying")


class Work(Protocol):
    """A merge with what it keeps on disk: `ArtifactMerge`, `DeltaMerge`."""

    @property
    def merge(self) -> Merge: ...

    @property
    def resumed(self) -> bool:
        """Whether an earlier run goes on."""
        ...

    def run(self) -> bool:
        """True when all is done, False if `merge.stop` came first."""
        ...

    def close(self) -> None: ...


class Background:
    """Runs `work`; `report` is told of what ends it. Its methods may be called from any thread.

    block: bytes of the blocks that `blocks` counts.
    """

    def __init__(self, work: Work, *, block: int = 4096, report: Callable[[str], None] = lambda _: None) -> None:
        self._work, self._block, self._report = work, block, report
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._error = ""
        self._began, self._had = 0.0, 0
        work.merge.prepare()
        self._to_write = work.merge.to_write
        self.errors = 0

    def start(self) -> None:
        """Go on, also after an error; nothing happens while it goes on already."""
        with self._lock:
            self._work.merge.go_on()
            if self._thread is not None and self._thread.is_alive():
                return
            self._error = ""
            self._began, self._had = time.monotonic(), self._work.merge.status().done
            self._thread = threading.Thread(target=self._run, name="regraft-merge", daemon=True)
            self._thread.start()

    def pause(self) -> None:
        """Finish the batch, and rest until `start`."""
        self._work.merge.pause()

    def stop(self) -> None:
        """Finish the batch, and return when no more is written."""
        with self._lock:
            self._work.merge.stop()
            if self._thread is not None:
                self._thread.join()
                self._thread = None

    @property
    def begun(self) -> bool:
        """Whether the base is changed already: then there is no way back."""
        return self._work.merge.begun or self.complete

    @property
    def complete(self) -> bool:
        """Whether all is done, durable and read back."""
        return self.status().state == "complete"

    def status(self) -> Status:
        """A snapshot. `merging` and `verifying` are never said when nobody works; a failure stays until `start`."""
        found = self._work.merge.status()
        state, error = found.state, found.error
        if self._error:
            state, error = "failed", self._error
        elif state in _WORKING and not self._alive():
            state = "stopped"
        elif state in ("ready", "stopped") and self._alive():
            state = "merging"
        return Status(state, found.batch, found.batches, found.done, found.total, error)

    def blocks(self, status: Status) -> tuple[int, int]:
        """(merged, all) that differ from the base as it was, as dm-update counts them: equal only when all is done,
        durable and read back."""
        total = -(-self._to_write // self._block)
        if status.state == "complete":
            return total, total
        merged = max(self._to_write - (status.total - status.done), 0) // self._block
        return min(merged, total - 1) if total else 0, max(total, 1)

    def fields(self) -> dict[str, Any]:
        """For a status: bytes, and bytes per second since it was last begun."""
        status = self.status()
        merged, total = self.blocks(status)
        passed = time.monotonic() - self._began
        working = status.state in _WORKING and passed > 0
        return {
            "merged": merged, "total": total, "state": status.state, "batch": status.batch, "batches": status.batches,
            "done": status.done, "size": status.total, "error": status.error, "failures": self.errors,
            "rate": int((status.done - self._had) / passed) if working else 0,
        }  # fmt: skip

    def _alive(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive()

    def _run(self) -> None:
        try:
            self._work.run()
        except RegraftError as error:
            self._failed(str(error))
        except Exception as error:
            self._failed(f"the merge failed: {error!r}")

    def _failed(self, words: str) -> None:
        self._error = words or "the merge failed"
        self.errors += 1
        self._report(f"the merge stopped: {self._error}")
