# SPDX-License-Identifier: Apache-2.0
"""Writing packs: what is recorded, and what is not."""

from __future__ import annotations

import pytest
from chunk_stores import SMALL

from regraft.errors import MediumError
from regraft.model import Algorithm
from regraft.stores.packs import PackWriter, read_index
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
