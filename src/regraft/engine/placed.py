# SPDX-License-Identifier: Apache-2.0
"""Cuts that are moved: to multiples of a block, and to where the files of an image begin and end.

The stretches between the given places are streams of their own for the rule, so that a file is cut alike wherever it
lies. Places less than a block apart would make tiny chunks: a run of such short stretches is one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from typing import Protocol

from regraft import kernels
from regraft.model import Algorithm

#: Bytes of the shortest stretch with places of its own. Part of what `+layout/1` means.
SHORTEST = 4096


class _Session(Protocol):
    def __call__(self, data: memoryview, before: int, searched: int, final: bool, /) -> tuple[array[int], bytes]: ...


def places(cuts: array[int], size: int, align: int) -> array[int]:
    """The ends of the stretches in an image of `size` bytes, rising, that one included, from offsets in rising order.

    A place stays if the stretch before it or the one behind it is long enough, all places counted.
    """
    aligned = array("Q", [0])
    for cut in cuts:
        moved = -(-cut // align) * align
        if aligned[-1] < moved < size:
            aligned.append(moved)
    aligned.append(size)
    kept = array("Q")
    for before, cut, behind in zip(aligned, aligned[1:], aligned[2:], strict=False):
        if cut - before >= SHORTEST or behind - cut >= SHORTEST:
            kept.append(cut)
    kept.append(size)
    return kept


class Placed:
    """Cuts a stream as an `engine.chunkers.Session` does.

    new: starts a session of the rule, one that gives no digests. ends: of the stretches, in bytes of the image. align:
    cuts are moved up to multiples of it. context: bytes that the rule looks at before a chunk.
    """

    def __init__(
        self,
        new: Callable[[], _Session],
        ends: array[int],
        align: int,
        context: int,
        algorithm: Algorithm,
        threads: int,
    ) -> None:
        self._new, self._ends, self._align, self._context = new, ends, align, context
        self._algorithm, self._threads = algorithm, threads
        self._session = new()
        self._stretch = 0  # offset in the image of the stretch that is being cut
        self._cut = 0  # of the rule's last cut in it
        self._chunk = 0  # of the open chunk: that cut, moved up
        self._seen = 0  # end of what was searched

    def __call__(self, data: memoryview, before: int, _searched: int, final: bool, /) -> tuple[array[int], bytes]:
        base = self._chunk - before  # offset in the image of data[0]
        available = base + len(data)
        first = self._chunk
        lengths = array("I")
        while self._stretch < available:
            end = self._ends[bisect_right(self._ends, self._stretch)]
            whole = end <= available
            self._advance(data, base, min(end, available), whole, lengths)
            self._emit(end if whole else available, whole, lengths)
            if not whole:
                break
            self._session, self._stretch, self._cut, self._seen = self._new(), end, end, end
        covered = data[first - base : self._chunk - base]
        return lengths, kernels.digest_ranges(covered, lengths, algorithm=self._algorithm.label, threads=self._threads)

    def _advance(self, data: memoryview, base: int, end: int, whole: bool, lengths: array[int]) -> None:
        """Let the rule search up to `end`, and make chunks of what it finds."""
        start = max(self._stretch, self._cut - self._context, base)
        view = data[start - base : end - base]
        found, _ = self._session(view, self._cut - start, max(self._seen - self._cut, 0), whole)
        self._seen = end
        for length in found:
            self._emit(end, False, lengths)
            self._cut += length
        self._emit(end, False, lengths)

    def _emit(self, end: int, whole: bool, lengths: array[int]) -> None:
        """Make a chunk up to the rule's last cut, moved up; or up to the `end` of the stretch if that is `whole`."""
        moved = end if whole else -(-self._cut // self._align) * self._align
        if self._chunk < moved <= end:
            lengths.append(moved - self._chunk)
            self._chunk = moved
