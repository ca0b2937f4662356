# SPDX-License-Identifier: Apache-2.0
"""SWUpdate's handler `raw`: an image onto a device, at an offset."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from regraft.device.emmc import writable
from regraft.engine.files import open_target
from regraft.engine.medium import Medium
from regraft.engine.state import State, state_of
from regraft.errors import FormatError, MediumError, TooSmallError
from regraft.model.buffers import Buffer
from regraft.swupdate.handlers.base import Sink, Slot


class Raw(Sink):
    """Writes to the entry's `device`, from its `offset`. A regular file will do for a device, as with swupdate."""

    @property
    def target(self) -> str:
        return self.entry.device

    def check(self) -> None:
        if not self.entry.device:
            raise FormatError(f"{self.entry.where}: handler raw needs a device", cure="add device = ... to the entry")
        if not os.path.exists(self.entry.device):
            raise MediumError(f"{self.entry.device} does not exist", cure="check the device of this entry")

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        with writable(self.entry.device):
            medium = open_target(self.entry.device)
            try:
                state = state_of(self.entry.device)
                offset = self.entry.offset
                if offset and state is not None:
                    state = State(state.directory, f"{state.stem}@{offset}")
                yield Slot(_Window(medium, offset) if offset or not medium.is_device else medium, state)
            finally:
                medium.close()


class _Window:
    """A medium from `offset` on, whose size is not to be changed: a file in a device's place keeps its tail."""

    def __init__(self, inner: Medium, offset: int) -> None:
        self._inner, self._offset = inner, offset

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def size(self) -> int:
        return max(self._inner.size - self._offset, 0)

    @property
    def sparse(self) -> bool:
        return False

    def read_into(self, offset: int, view: memoryview) -> int:
        return self._inner.read_into(self._offset + offset, view)

    def write(self, offset: int, data: Buffer) -> None:
        self._inner.write(self._offset + offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._inner.zero(self._offset + offset, length)

    def resize(self, size: int) -> None:
        """Grow a file that is too short; a device must be large enough."""
        if self._inner.size < self._offset + size:
            if not self._inner.sparse:
                raise TooSmallError(
                    f"{self.name} has {self._inner.size} bytes, {size} from offset {self._offset} are needed"
                )
            self._inner.resize(self._offset + size)

    def sync(self) -> None:
        self._inner.sync()

    def forget(self) -> None:
        self._inner.forget()

    def close(self) -> None:
        self._inner.close()
