# SPDX-License-Identifier: Apache-2.0
"""Writing packs: what is recorded, and what is not."""

from __future__ import annotations

import pytest
from chunk_stores import SMALL, image, put

from regraft.errors import MediumError
from regraft.model import Algorithm
from regraft.stores.packs import PackWriter, read_index
from regraft.stores.store import Store
from regraft.testing.hooks import HookedDirectory
from regraft.testing.memory import MemoryDirectory, MemoryMedium


def test_after_a_failed_sync_nothing_is_recorded_any_more() -> None:
    class Pack(MemoryMedium):
        failures = 1

        def sync(self) -> None:  # as of Linux: the error is told once, and the pages are dropped
            self.failures -= 1
            if self.failures == 0:
                raise MediumError("Input/output error")

    class Folder(MemoryDirectory):
        def create(self, name: str) -> MemoryMedium:
            self.files[name] = (Pack if name.endswith(".pack") else MemoryMedium)(name=name)
            return self.files[name]

    folder = Folder()
    writer = PackWriter(folder, Algorithm.SHA256, 1, limits=SMALL)
    writer.record(0, 0, 100, bytes(32))
    with pytest.raises(MediumError):
        writer.flush()
    writer.record(0, 4096, 100, bytes(32))  # by another thread, written before the sync failed
    with pytest.raises(MediumError):
        writer.flush()
    assert len(read_index(folder, 1)) == 0


def test_what_cannot_be_opened_is_not_taken_for_missing() -> None:
    folder, media = MemoryDirectory(), 0

    def few(call: str, name: str) -> None:
        nonlocal media
        media += call == "open" and name.endswith(".pack")
        if media > 2:
            raise MediumError(f"open {name}: Too many open files")

    for number in range(4):
        put(folder, f"v{number}", image(*range(1, number + 2)))
    with pytest.raises(MediumError, match="Too many"), Store(HookedDirectory(folder, few)).image("v3"):
        pass
