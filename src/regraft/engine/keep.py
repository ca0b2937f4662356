# SPDX-License-Identifier: Apache-2.0
"""Keeping what a view has obtained: the image becomes local while it is used."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Protocol

from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Progress
from regraft.engine.sparse import write_sparse
from regraft.engine.state import Journal, State
from regraft.engine.verify import check_rows, digest_of
from regraft.errors import DigestError, MediumError, SourceError, StateError, UnsupportedError
from regraft.limits import DEFAULT, Limits
from regraft.model import Index, Recipe


class Keep(Protocol):
    """Where a view puts rows, and finds them again, in this run and in later ones. Thread-safe."""

    def has(self, row: int) -> bool:
        """Whether the row is there, as far as is known: who reads it for the first time verifies it."""

    def read(self, row: int, within: int, view: memoryview) -> None:
        """Fill `view` with the bytes of a row that `has` says is there, from `within` on. Raises SourceError."""

    def put(self, row: int, data: memoryview | None) -> None:
        """Keep the verified bytes of a row; None: it is zeros. In place of others that proved wrong, too.

        Raises MediumError; what was kept before is then still there, and nothing more will be put.
        """

    @property
    def finished(self) -> Medium | None:
        """The whole image, once all of it was read back and proved."""

    def prove(self) -> list[int]:
        """Read back what is kept, all rows being there, so that `finished` can be. The rows that were wrong: they are
        not there any more. Raises MediumError, DigestError."""


class Recorder:
    """A thread that calls `flush` from time to time, for as long as `needed` says so and that works."""

    def __init__(self, flush: Callable[[], None], needed: Callable[[], bool], limits: Limits = DEFAULT) -> None:
        self._flush, self._needed, self._interval = flush, needed, limits.journal_interval
        self._over = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        self._thread = Thread(target=self._run, name="regraft-keep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, after what is being recorded."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._interval) and self._needed():
            try:
                self._flush()
            except MediumError:
                return


class KeepFile:
    """Keeps rows in their places in a sparse file, which becomes the image.

    What is kept is recorded as by an update: data written, file synced, record appended and synced; so a record never
    promises what a power cut could take away. `flush` does this, and a thread calls it now and then after `start`.
    """

    def __init__(
        self,
        recipe: Recipe,
        target: Medium,
        state: State,
        *,
        limits: Limits = DEFAULT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """An empty file, one that an earlier run has begun, or one that holds the image already. Takes over `target`.

        Raises UnsupportedError if the recipe's digests cannot prove rows, StateError if the file holds something else.
        """
        if recipe.matchable is None:
            raise UnsupportedError(
                "this artifact has no digests that prove its chunks: what is fetched of it cannot be kept",
                cure="serve it without --keep",
            )
        self._recipe, self._target, self._state, self._limits = recipe, target, state, limits
        never = Limits(journal_interval=float("inf"), journal_bytes=1 << 62, journal_size=limits.journal_size)
        self._journal = Journal(state, recipe, target, limits=never, clock=clock)
        self._lock, self._recording = Lock(), Lock()
        self._unrecorded: list[int] = []
        self._proved = self._failed = False
        self._recorder = Recorder(self.flush, lambda: not self._failed and not self._proved, limits)
        self._rows = self._journal.finished
        if not self._journal.resumed and target.size:
            index = state.load_index(limits)
            if target.size != recipe.size or index is None or index.digests != recipe.table.digests:
                raise StateError(
                    f"{target.name} holds something else than a part of this image",
                    cure="remove it, or keep what is fetched in another file",
                )
            self._rows = bytearray(b"\1" * len(recipe.table))  # an earlier run has finished it
        else:
            self._journal.begin()
            if target.size != recipe.size:
                target.resize(recipe.size)

    @property
    def finished(self) -> Medium | None:
        return self._target if self._proved else None

    def start(self) -> None:
        """Record from time to time, in a thread of its own."""
        self._recorder.start()

    def has(self, row: int) -> bool:
        return self._rows[row] == 1

    def read(self, row: int, within: int, view: memoryview) -> None:
        at = self._recipe.table.bounds[row] + within
        if self._target.read_into(at, view) < len(view):
            raise SourceError(f"{self._target.name} ends before {at + len(view)}: it was cut while it was served")

    def put(self, row: int, data: memoryview | None) -> None:
        table = self._recipe.table
        if self._failed:
            raise MediumError(f"{self._target.name} has failed before")
        try:
            if data is None:
                self._target.zero(table.bounds[row], table.length(row))
            else:
                write_sparse(self._target, table.bounds[row], data)
        except MediumError:
            self._failed = True
            raise
        with self._lock:
            self._rows[row] = 1
            self._unrecorded.append(row)

    def flush(self) -> None:
        """Make durable, and record, what was put. Raises MediumError: what was not recorded is then not there."""
        with self._recording:
            with self._lock:
                rows, self._unrecorded = self._unrecorded, []
            try:
                for row in rows:
                    self._journal.done(row, 1)
                self._journal.flush()
            except MediumError:
                self._failed = True
                for row in rows:  # the kernel may have dropped these pages
                    self._rows[row] = 0
                raise

    def prove(self, *, progress: Progress = QUIET) -> list[int]:
        self.flush()
        self._target.forget()
        recipe, table = self._recipe, self._recipe.table
        progress.phase("verify", recipe.size)
        if recipe.digest is None or not digest_of(self._target, recipe.size, recipe.digest, progress=progress):
            rows = range(len(table))
            right = set(check_rows(self._target, table, rows, limits=self._limits, progress=progress))
            wrong = [row for row in rows if row not in right]
            for row in wrong:
                self._rows[row] = 0
            if wrong:
                return wrong
            if recipe.digest is not None:
                raise DigestError(
                    f"every chunk in {self._target.name} is as it should be, yet the image differs from its digest",
                    cure="the artifact contradicts itself: build it again",
                )
        self._state.keep_index(Index(table.bounds, table.digests, recipe.chunker))
        with self._recording:
            self._journal.remove()
        self._proved = True
        return []

    def close(self) -> None:
        """Record what was put, as far as that is possible, and let go of the file."""
        self._recorder.close()
        try:
            if not self._failed and not self._proved:
                self.flush()
        finally:
            self._journal.close()
            self._target.close()
