# SPDX-License-Identifier: Apache-2.0
"""A set of chunks, numbered, in little memory: a dict of bytes objects takes ten times as much."""

from __future__ import annotations

from array import array

from regraft.model import Algorithm, DigestColumn


class Lookup:
    """Different chunks, each known by digest and length; numbered from 0 in the order in which they were added.

    Open addressing in an array of numbers. Places come from Python's keyed hash: who makes up digests cannot make
    them collide.
    """

    __slots__ = ("_mask", "_slots", "algorithm", "digests", "lengths")

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.digests = DigestColumn(algorithm)
        self.lengths = array("I")
        self._slots = array("I", bytes(4 * 64))
        self._mask = 63

    def __len__(self) -> int:
        return len(self.lengths)

    def find(self, digest: bytes, length: int) -> int:
        """The number of the chunk, -1 if it is not there."""
        return self._slots[self._slot(digest, length)] - 1

    def add(self, digest: bytes, length: int) -> int:
        """The number of the chunk, which is added if it is not there."""
        slot = self._slot(digest, length)
        if self._slots[slot]:
            return self._slots[slot] - 1
        self.digests.append(digest)
        self.lengths.append(length)
        self._slots[slot] = len(self)
        if 3 * len(self) > 2 * len(self._slots):
            self._grow()
        return len(self) - 1

    def _slot(self, digest: bytes, length: int) -> int:
        """Where the chunk is, or would be."""
        data, size, slots, mask = self.digests.data, len(digest), self._slots, self._mask
        slot = hash(digest) & mask
        while entry := slots[slot]:
            if data[(entry - 1) * size : entry * size] == digest and self.lengths[entry - 1] == length:
                break
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        self._mask = 2 * len(self._slots) - 1
        self._slots = array("I", bytes(4 * (self._mask + 1)))
        for number, digest in enumerate(self.digests):
            self._slots[self._slot(digest, self.lengths[number])] = number + 1
