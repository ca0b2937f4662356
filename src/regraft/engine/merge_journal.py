# SPDX-License-Identifier: Apache-2.0
"""The journal of a merge on its medium: a file, or a small partition of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from regraft.engine.medium import Directory, Medium
from regraft.errors import StateError, TooSmallError
from regraft.formats import merge_state
from regraft.formats.merge_state import Record, State
from regraft.limits import DEFAULT, Limits


class MergeJournal:
    """Progress records and windows. `named` makes the name of a new file durable."""

    def __init__(self, medium: Medium, *, named: Callable[[], None] | None = None, limits: Limits = DEFAULT) -> None:
        self.medium, self._named, self._limits = medium, named, limits
        self._current: Record | None = None

    def records(self) -> list[Record]:
        """The valid records, the latest first."""
        found = []
        for offset in (0, merge_state.ALIGNMENT):
            data = bytearray(merge_state.RECORD_SIZE)
            count = self.medium.read_into(offset, memoryview(data))
            record = merge_state.parse_record(data[:count])
            if record is not None:
                found.append(record)
        return sorted(found, key=lambda record: -record.sequence)

    @property
    def current(self) -> Record:
        """The record that holds."""
        if self._current is None:
            raise StateError(f"{self.medium.name} has no progress record")
        return self._current

    def begin(self, record: Record, schedule: bytes) -> None:
        """Make the schedule and the first record durable, above whatever was there. Raises TooSmallError."""
        if not self.medium.sparse and self.medium.size < record.journal_size:
            raise TooSmallError(
                f"{self.medium.name} has {self.medium.size} bytes, the journal {record.journal_size}",
                cure="give a smaller window, or a larger partition or file for the journal",
            )
        earlier = self.records()
        self.medium.write(merge_state.SCHEDULE_AT, schedule)
        self.medium.sync()
        self._current = replace(record, sequence=earlier[0].sequence if earlier else 0)
        self.record()
        if self._named is not None:
            self._named()

    def go_on(self, record: Record) -> bytes:
        """Take `record` for the one that holds; returns the schedule's bytes. Raises StateError."""
        length = record.schedule_length
        if length > self._limits.header_size:
            raise StateError(f"{self.medium.name}: a schedule of {length} bytes")
        data = bytearray(length)
        count = self.medium.read_into(merge_state.SCHEDULE_AT, memoryview(data))
        if count < length or hashlib.sha256(data).digest() != record.schedule:
            raise StateError(f"{self.medium.name}: the schedule is damaged")
        self._current = record
        return bytes(data)

    def record(
        self,
        *,
        batch: int | None = None,
        state: State | None = None,
        window: int | None = None,
        length: int = 0,
        digest: bytes = bytes(32),
        status: int = 0,
        words: str = "",
    ) -> None:
        """Make the next record durable. What is not given stays; what a window is, only if `batch` is not given."""
        last = self.current
        if batch is None:
            length, digest = last.length, last.digest
        following = replace(
            last,
            sequence=last.sequence + 1,
            batch=last.batch if batch is None else batch,
            state=last.state if state is None else state,
            window=last.window if window is None else window,
            length=length,
            digest=digest,
            status=status,
            words=words,
        )
        place = merge_state.ALIGNMENT * (following.sequence % 2)
        self.medium.write(place, merge_state.build_record(following))
        self.medium.sync()
        self._current = following

    def window_at(self, window: int) -> int:
        """Where a window starts in the medium."""
        return replace(self.current, window=window).window_at

    def holds(self, record: Record, *, step: int = 1 << 20) -> bool:
        """Whether the window that `record` names is as it was recorded."""
        hasher = hashlib.sha256()
        buffer = memoryview(bytearray(min(step, record.length)))
        for start in range(0, record.length, step):
            view = buffer[: record.length - start]
            if self.medium.read_into(record.window_at + start, view) < len(view):
                return False
            hasher.update(view)
        return hasher.digest() == record.digest


def open_journal(directory: Directory, name: str, *, limits: Limits = DEFAULT) -> MergeJournal:
    """The journal in file `name`, made if it is not there."""
    try:
        return MergeJournal(directory.open(name), limits=limits)
    except FileNotFoundError:
        return MergeJournal(directory.create(name), named=directory.sync_directory, limits=limits)
