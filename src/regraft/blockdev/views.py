# SPDX-License-Identifier: Apache-2.0
"""Exports made of exports: padded to whole blocks, one behind the other, and answering within a time."""

from __future__ import annotations

import queue
import tempfile
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

from regraft.blockdev.export import BlockSizes, Export, Extent, FileExport, Origin
from regraft.engine.files import FileMedium
from regraft.errors import MediumError, SourceError
from regraft.model.buffers import Buffer


class Joined:
    """Exports one behind the other, each padded with zeros to a multiple of `block` bytes.

    So a kernel that reads whole blocks reads the end of an image too: as zeros behind its last byte.
    """

    def __init__(self, parts: Sequence[Export], *, name: str = "", block: int = 4096) -> None:
        self._parts = list(parts)
        self._starts: list[int] = []
        at = 0
        for part in self._parts:
            self._starts.append(at)
            at += -(-part.size // block) * block
        self.size = at
        self.name = name
        self.description = ""
        minimum = max((part.blocks.minimum for part in self._parts), default=1)
        self.blocks = BlockSizes(minimum, max(minimum, block))
        self.has_origins = any(part.has_origins for part in self._parts)

    @property
    def starts(self) -> Sequence[int]:
        """Where each part starts, in bytes."""
        return self._starts

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[Export | None, int, int]]:
        """The range as pieces of parts: part, offset in it, bytes. None stands for padding."""
        end = offset + length
        while offset < end:
            row = bisect_right(self._starts, offset) - 1
            while row + 1 < len(self._starts) and self._starts[row + 1] <= offset:
                row += 1  # an empty part
            part, start = self._parts[row], self._starts[row]
            limit = self._starts[row + 1] if row + 1 < len(self._starts) else self.size
            data_end = start + part.size
            if offset < data_end:
                count = min(end, data_end) - offset
                yield part, offset - start, count
            else:
                count = min(end, limit) - offset
                yield None, 0, count
            offset += count

    def read_into(self, offset: int, view: memoryview) -> None:
        at = 0
        for part, start, count in self._pieces(offset, len(view)):
            if part is None:
                view[at : at + count] = bytes(count)
            else:
                part.read_into(start, view[at : at + count])
            at += count

    def direct(self, offset: int, length: int) -> int:
        first = self._parts[0]  # only there are offsets the same
        return first.direct(offset, length) if offset + length <= first.size else -1

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for part, start, count in self._pieces(offset, length):
            if part is None:
                yield Extent(count, hole=True, origin=Origin.ZERO)
            else:
                yield from part.extents(start, count)


class Stored(FileExport):
    """Bytes as an export, in an unlinked file: they take no memory. Raises MediumError if that cannot be written."""

    def __init__(self, content: Buffer, *, name: str = "") -> None:
        try:
            self._file = tempfile.TemporaryFile(prefix="regraft-")  # noqa: SIM115 - closed by close()
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            raise MediumError(f"write a temporary file: {error.strerror}") from None
        self._medium = FileMedium(self._file.fileno(), name or "temporary file")
        self._descriptor = self._file.fileno()
        self._device = False
        self.size = len(content)
        self.name, self.description = name, ""

    def close(self) -> None:
        self._file.close()
        self._descriptor = -1


class Timely:
    """An export whose reads fail after `deadline` seconds, however long what is beneath takes.

    What is late goes on in its own thread and into its own buffer, and serves the next reader where it is kept.
    Threads are made as they are needed, up to `threads`; a read that gets none in time fails too.
    """

    def __init__(self, export: Export, deadline: float, *, threads: int = 8) -> None:
        self._export, self._deadline = export, deadline
        self._tasks: queue.SimpleQueue[tuple[Future[bytearray], int, int]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._outstanding, self._running, self._most = 0, 0, threads

    @property
    def name(self) -> str:
        return self._export.name

    @property
    def description(self) -> str:
        return self._export.description

    @property
    def size(self) -> int:
        return self._export.size

    @property
    def blocks(self) -> BlockSizes:
        return self._export.blocks

    @property
    def has_origins(self) -> bool:
        return self._export.has_origins

    def read_into(self, offset: int, view: memoryview) -> None:
        future: Future[bytearray] = Future()
        with self._lock:
            self._outstanding += 1
            if self._running < min(self._outstanding, self._most):
                self._running += 1
                threading.Thread(target=self._work, name="regraft-read", daemon=True).start()
        self._tasks.put((future, offset, len(view)))
        try:
            view[:] = future.result(self._deadline)
        except FutureTimeoutError:
            future.cancel()
            raise SourceError(
                f"read {len(view)} bytes at {offset}: nothing within {self._deadline:g} s",
                cure="check the link and the server; the next read tries again",
            ) from None

    def _work(self) -> None:
        while True:
            future, offset, length = self._tasks.get()
            if future.set_running_or_notify_cancel():
                buffer = bytearray(length)
                try:
                    self._export.read_into(offset, memoryview(buffer))
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(buffer)
            with self._lock:
                self._outstanding -= 1

    def direct(self, offset: int, length: int) -> int:
        return self._export.direct(offset, length)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self._export.extents(offset, length)
