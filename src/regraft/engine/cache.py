# SPDX-License-Identifier: Apache-2.0
"""A cache of verified bytes, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock


class Entry:
    """Bytes in memory: a decoded unit, or a row from a seed. `rows`: those of its rows that were verified."""

    __slots__ = ("__weakref__", "data", "rows")

    def __init__(self, data: memoryview, *rows: int) -> None:
        self.data = data
        self.rows: set[int] = set(rows)


class Cache:
    """Entries by key, the least recently used dropped first. Thread-safe.

    What is larger than the budget is kept too, alone: reading it in small parts must not obtain it for each of them.
    """

    def __init__(self, budget: int) -> None:
        """`budget` in bytes."""
        self._budget = budget
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._lock = Lock()
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes held."""
        return self._used

    def get(self, key: int) -> Entry | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, key: int, entry: Entry) -> None:
        with self._lock:
            self._drop(key)
            self._shrink(len(entry.data))
            self._entries[key] = entry
            self._used += len(entry.data)

    def holds(self, entry: Entry) -> bool:
        """Whether this very entry is there."""
        with self._lock:
            return any(other is entry for other in self._entries.values())

    def make_room(self, size: int) -> None:
        """Drop so much that `size` more bytes fit: before they are obtained, so that both are never there at once."""
        with self._lock:
            self._shrink(size)

    def _shrink(self, size: int) -> None:
        while self._entries and self._used + size > self._budget:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: int) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._used -= len(entry.data)
