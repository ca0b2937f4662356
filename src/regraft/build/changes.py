# SPDX-License-Identifier: Apache-2.0
"""Two images compared block by block, in bounded memory, while both are hashed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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
        with ThreadPoolExecutor(2, "read") as readers, ThreadPoolExecutor(2, "hash") as hashers:
            ahead = [readers.submit(self._read, number, 0) for number in range(2)]
            for offset in range(0, size, _BATCH):
                old, new = (future.result() for future in ahead)
                ahead = [readers.submit(self._read, number, offset + _BATCH) for number in range(2)]
                hashing = [
                    hashers.submit(hasher.update, data) for hasher, data in zip(self._hashers, (old, new), strict=True)
                ]
                view = memoryview(new)
                for start in changed(old, new, self._block):
                    yield (offset + start) // self._block, view[start : start + self._block]
                for future in hashing:
                    future.result()
                self._progress.advance(len(new), Origin.SEED)

    def _read(self, number: int, offset: int) -> bytearray:
        medium, size = ((self._old, self.old_size), (self._new, self.new_size))[number]
        data = bytearray(max(min(_BATCH, size - offset), 0))
        if medium.read_into(offset, memoryview(data)) < len(data):
            raise ChangedError(f"{medium.name} became shorter while it was read", cure="give files at rest")
        return data


def changed(old: bytearray, new: bytearray, block: int) -> Iterator[int]:
    """Offsets of the blocks of `new` that `old` does not have in the same place."""
    if new == old[: len(new)]:
        return
    coarse = max(_COARSE, block)
    for start in range(0, len(new), coarse):
        piece, other = new[start : start + coarse], old[start : start + coarse]
        if piece == other[: len(piece)]:
            continue
        for at in range(0, len(piece), block):
            end = min(at + block, len(piece))
            if piece[at:end] != other[at:end]:
                yield start + at
