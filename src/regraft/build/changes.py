# SPDX-License-Identifier: Apache-2.0
"""Two images compared block by block, in bounded memory, while both are hashed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.errors import ChangedError
from regraft.model import Algorithm, Digest

_BATCH = 4 << 20  #: bytes of each image read at once; a multiple of every block
_COARSE = 64 << 10  #: what is equal in pieces of this size is not looked at closer


class Comparison:
    """Iterate over the changed blocks of `new`: (number, bytes). Digests of both images are there afterwards.

    A block is unchanged if `old` has all of its bytes in the same place. The last block may be short. block: bytes, a
    power of two of at most 1 MiB. Raises ChangedError if an image gets shorter meanwhile.
    """

    def __init__(self, old: Medium, new: Medium, block: int, *, progress: Progress = QUIET) -> None:
        self._old, self._new, self._block, self._progress = old, new, block, progress
        self.old_size, self.new_size = old.size, new.size
        self._hashers = Algorithm.SHA256.hasher(), Algorithm.SHA256.hasher()

    @property
    def old(self) -> Digest:
        return Digest(Algorithm.SHA256, self._hashers[0].digest())

    @property
    def new(self) -> Digest:
        return Digest(Algorithm.SHA256, self._hashers[1].digest())

    def __iter__(self) -> Iterator[tuple[int, memoryview]]:
        """The bytes are good until the next step."""
        self._progress.phase("compare", self.new_size)
        size = max(self.old_size, self.new_size)
        buffers = [(bytearray(_BATCH), bytearray(_BATCH)) for _ in range(2)]  # one pair is read while one is compared
        with ThreadPoolExecutor(2, "read") as readers, ThreadPoolExecutor(2, "hash") as hashers:

            def read(offset: int) -> list[Future[int]]:
                pair = buffers[offset // _BATCH % 2]
                return [readers.submit(self._read, number, offset, pair[number]) for number in range(2)]

            ahead = read(0)
            for offset in range(0, size, _BATCH):
                old, new = buffers[offset // _BATCH % 2]
                old_count, new_count = (future.result() for future in ahead)
                ahead = read(offset + _BATCH)
                hashing = [
                    hashers.submit(hasher.update, memoryview(data)[:count])
                    for hasher, data, count in zip(self._hashers, (old, new), (old_count, new_count), strict=True)
                ]
                view = memoryview(new)[:new_count]
                for start in changed(old, new, old_count, new_count, self._block):
                    yield (offset + start) // self._block, view[start : start + self._block]
                for future in hashing:
                    future.result()
                self._progress.advance(new_count, Origin.SEED)

    def _read(self, number: int, offset: int, buffer: bytearray) -> int:
        medium, size = ((self._old, self.old_size), (self._new, self.new_size))[number]
        count = max(min(_BATCH, size - offset), 0)
        if medium.read_into(offset, memoryview(buffer)[:count]) < count:
            raise ChangedError(f"{medium.name} became shorter while it was read", cure="give files at rest")
        return count


def changed(old: bytearray, new: bytearray, old_count: int, new_count: int, block: int) -> Iterator[int]:
    """Offsets of the blocks of `new`, of which `new_count` bytes count, that `old` does not have in the same place."""
    if old_count >= new_count == len(new) and old == new:
        return
    coarse = max(_COARSE, block)
    for start in range(0, new_count, coarse):
        stop = min(start + coarse, new_count)
        if stop <= old_count and new[start:stop] == old[start:stop]:
            continue
        for at in range(start, stop, block):
            end = min(at + block, stop)
            if end > old_count or new[at:end] != old[at:end]:
                yield at
