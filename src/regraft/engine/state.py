# SPDX-License-Identifier: Apache-2.0
"""What an update keeps on disk beside its target: the journal while it runs, the index of the slot afterwards."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from regraft.engine.files import FileDirectory
from regraft.engine.medium import Directory, Medium, read_all, save
from regraft.errors import MediumError, RegraftError, StateError
from regraft.formats import journal as journal_format
from regraft.formats import kept_index
from regraft.limits import DEFAULT, Limits
from regraft.model import Index, Recipe

#: Where the state of block devices is kept, unless REGRAFT_STATE names another folder.
DEVICE_STATE = "/var/lib/regraft"


@dataclass(frozen=True, slots=True)
class State:
    """The state files of one target: names in `directory` that start with `stem`."""

    directory: Directory
    stem: str

    @property
    def journal_name(self) -> str:
        return f"{self.stem}.journal"

    @property
    def index_name(self) -> str:
        return f"{self.stem}.index"

    def load_index(self, limits: Limits = DEFAULT) -> Index | None:
        """The kept index; None if there is none or it is damaged (it is only a hint)."""
        try:
            medium = self.directory.open(self.index_name)
        except (FileNotFoundError, RegraftError):
            return None
        try:
            return kept_index.parse(read_all(medium, limits.header_size), limits=limits)
        except (RegraftError, ValueError):
            return None
        finally:
            medium.close()

    def keep_index(self, index: Index) -> None:
        """Replace the kept index, atomically."""
        save(self.directory, self.index_name, kept_index.build(index))

    def drop_index(self) -> None:
        """Forget the kept index, durably: the slot is about to change."""
        if self.directory.exists(self.index_name):
            self.directory.remove(self.index_name)
            self.directory.sync_directory()


def state_folder() -> str:
    """The folder for state that lies beside no file: of block devices, of hosts."""
    return os.environ.get("REGRAFT_STATE", DEVICE_STATE)


def state_of(path: str, *, create: bool = True) -> State | None:
    """Where the state of the target at `path` lies: beside a file; for a device in REGRAFT_STATE or `DEVICE_STATE`.

    None if that folder is not there and `create` is false.
    """
    real = os.path.realpath(path)
    try:
        device = stat.S_ISBLK(os.stat(real).st_mode)
    except FileNotFoundError:
        device = False
    folder = state_folder() if device else os.path.dirname(real)
    if not create and not os.path.isdir(folder):
        return None
    stem = real.strip("/").replace("/", "-") if device else f"{os.path.basename(real)}.regraft"
    return State(FileDirectory(folder), stem)


def identity_of(recipe: Recipe) -> bytes:
    """32 bytes that two runs share only if they make the same image from the same rows."""
    hasher = hashlib.sha256(b"regraft recipe\0" + recipe.size.to_bytes(8, "little"))
    hasher.update(recipe.identity or recipe.table.digests.data or recipe.units.digests.data)
    hasher.update(memoryview(recipe.table.bounds).cast("B"))
    return hasher.digest()


class Journal:
    """Rows that are durable in the target. Thread-safe.

    `finished` flags the rows that an earlier run recorded. Order of a record: data written, target synced, record
    appended, journal synced; so a record never promises what a power cut could take away.
    """

    def __init__(
        self,
        state: State | None,
        recipe: Recipe,
        target: Medium,
        *,
        limits: Limits = DEFAULT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state, self._target, self._limits, self._clock = state, target, limits, clock
        self._bounds = recipe.table.bounds
        self._rows = len(recipe.table)
        self._identity = identity_of(recipe)
        self._medium: Medium | None = None
        self._position = 0
        self._pending: list[tuple[int, int]] = []
        self._pending_bytes = 0
        self._failed: MediumError | None = None
        self._last = clock()
        self._lock, self._flushing = Lock(), Lock()
        self.finished = bytearray(self._rows)
        self.resumed = state is not None and self._load(state)

    def _load(self, state: State) -> bool:
        try:
            medium = state.directory.open(state.journal_name)
        except FileNotFoundError:
            return False
        try:
            content = read_all(medium, self._limits.journal_size)
            self.finished, self._position = journal_format.parse(
                content, self._identity, self._rows, limits=self._limits
            )
        except (StateError, ValueError):
            medium.close()
            return False
        self._medium = medium
        return True

    def begin(self) -> None:
        """Make the journal durable before the target is touched."""
        if self._state is None or self._medium is not None:
            return
        self._medium = self._state.directory.create(self._state.journal_name)
        header = journal_format.build_header(self._identity, self._rows)
        self._medium.write(0, header)
        self._medium.sync()
        self._state.directory.sync_directory()
        self._position = len(header)

    def done(self, first: int, count: int) -> None:
        """Rows first..first + count were written to the target. Records from time to time."""
        with self._lock:
            if self._pending and sum(self._pending[-1]) == first:
                first, count = self._pending[-1][0], self._pending.pop()[1] + count
            self._pending.append((first, count))
            self._pending_bytes += self._bounds[first + count] - self._bounds[first]
            due = (
                self._pending_bytes >= self._limits.journal_bytes
                or self._clock() - self._last >= self._limits.journal_interval
            )
        if due and self._medium is not None and self._flushing.acquire(blocking=False):
            try:
                self._flush()
            finally:
                self._flushing.release()

    def flush(self) -> None:
        """Make all that is done durable and record it. Raises MediumError; after that nothing is recorded any more: the
        kernel tells only once that it lost pages, and a later sync would succeed without them."""
        with self._flushing:
            self._flush()

    def _flush(self) -> None:
        if self._failed is not None:
            raise self._failed
        with self._lock:
            pending, self._pending, self._pending_bytes = self._pending, [], 0
            self._last = self._clock()
        if not pending:
            return
        try:
            self._target.sync()
        except MediumError as error:
            self._failed = error
            raise
        if self._medium is not None:
            record = journal_format.build_record(_joined(pending))
            self._medium.write(self._position, record)
            self._medium.sync()
            self._position += len(record)

    def remove(self) -> None:
        """The update is complete: forget the journal, durably."""
        self.close()
        if self._state is not None and self._state.directory.exists(self._state.journal_name):
            self._state.directory.remove(self._state.journal_name)
            self._state.directory.sync_directory()

    def close(self) -> None:
        if self._medium is not None:
            self._medium.close()
            self._medium = None


def _joined(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, count in sorted(runs):
        if joined and sum(joined[-1]) == first:
            joined[-1] = (joined[-1][0], joined[-1][1] + count)
        else:
            joined.append((first, count))
    return joined
