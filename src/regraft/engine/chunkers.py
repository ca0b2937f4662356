# SPDX-License-Identifier: Apache-2.0
"""The rules by which chunks are cut, by the label that a recipe and an index carry.

zchunk/48/15/8192/131072                          zchunk's automatic chunker
bita-rollsum/WINDOW/BITS/MINIMUM/MAXIMUM          bita's, over RollSum
bita-buzhash/WINDOW/BITS/MINIMUM/MAXIMUM          bita's, over BuzHash
casync/MINIMUM/AVERAGE/MAXIMUM                    casync's; every so many bytes if all three are the same
fixed/SIZE                                        every so many bytes

Behind any of them, what moves the cuts: see `formats.chunk_rules` and `engine.placed`.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from regraft import kernels
from regraft.engine.placed import Placed, places
from regraft.errors import LimitError, UnsupportedError
from regraft.formats import caibx, chunk_rules, zchunk
from regraft.formats.chunk_rules import UNMOVED, Placement
from regraft.formats.filesystems import layout
from regraft.kernels import Rolling
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm

#: New bytes given to a chunker at once: large enough to split over the cores, small enough to stay in their caches.
BATCH = 4 << 20

#: The same for chunkers that may leave long chunks open, which stay in memory too.
SMALL_BATCH = 1 << 20

Cut = tuple["array[int]", bytes]  #: lengths of chunks, and their digests joined


class Session(Protocol):
    """Cuts one stream."""

    def __call__(self, data: memoryview, before: int, searched: int, final: bool, /) -> Cut:
        """The complete chunks of `data` from `before` on, which is where a chunk starts.

        before: bytes of the stream in front of it, `Chunker.context` or all. searched: bytes of the chunk that an
        earlier call has had. final: whether the stream ends with `data`.
        """


@dataclass(frozen=True, slots=True)
class Chunker:
    """A rule. longest: bytes of the longest chunk. context: bytes before a chunk on which its end depends."""

    label: str
    longest: int
    context: int
    session: Callable[[Algorithm | None, int], Session]  #: (algorithm, threads); without one, no digests
    placement: Placement = UNMOVED  #: what moves the cuts of `session`

    @property
    def batch(self) -> int:
        """New bytes to give at once."""
        return BATCH if self.longest <= SMALL_BATCH else SMALL_BATCH


def named(label: str, *, limits: Limits = DEFAULT) -> Chunker:
    """The rule with this label. Raises UnsupportedError for none of ours, LimitError for chunks that are too long."""
    parts = chunk_rules.split(label)
    if parts is not None and label != parts[0]:
        rule, placement = named(parts[0], limits=limits), parts[1]
        longest = _bounded(-(-rule.longest // placement.align) * placement.align, limits)
        return replace(rule, label=label, longest=longest, context=rule.context + placement.align, placement=placement)
    if label == zchunk.CHUNKER:
        return Chunker(label, 131072, 0, _zchunk)
    name, *numbers = label.split("/")
    if all(number.isascii() and number.isdecimal() and len(number) < 20 for number in numbers):
        values = [int(number) for number in numbers]
        if name == "fixed" and len(values) == 1 and values[0] > 0:
            return Chunker(label, _bounded(values[0], limits), 0, partial(_fixed, values[0]))
        if name == "casync" and len(values) == 3 and (sizes := caibx.Sizes(*values)).sound:
            session = partial(_fixed, sizes.average) if sizes.fixed else partial(_casync, sizes)
            return Chunker(label, _bounded(sizes.longest, limits), 0, session)
        if name in ("bita-rollsum", "bita-buzhash") and len(values) == 4:
            window, bits, minimum, maximum = values
            if 1 <= window <= limits.chunker_window and 1 <= bits <= 32 and maximum > 0:
                rolling = Rolling(name.removeprefix("bita-"), bits, minimum, maximum, window)
                longest = _bounded(max(minimum, maximum, window + 1), limits)
                return Chunker(label, longest, window - 1, partial(_rolling, rolling))
    raise UnsupportedError(f"chunks cut by the rule {label!r}, which regraft does not know, cannot be found in seeds")


def _bounded(longest: int, limits: Limits) -> int:
    if longest > limits.chunk_size:
        raise LimitError(f"chunks of up to {longest} bytes, more than limits.chunk_size = {limits.chunk_size}")
    return longest


def _zchunk(algorithm: Algorithm | None, threads: int) -> Session:
    def cut(data: memoryview, before: int, _searched: int, final: bool, /) -> Cut:
        if algorithm is None:
            return kernels.zck_cuts(data[before:], final=final), b""
        return kernels.zck_index(data[before:], final=final, algorithm=algorithm.label, threads=threads)

    return cut


def _fixed(size: int, algorithm: Algorithm | None, threads: int) -> Session:
    def cut(data: memoryview, before: int, _searched: int, final: bool, /) -> Cut:
        name = algorithm.label if algorithm else None
        return kernels.fixed_index(data[before:], size, final=final, algorithm=name, threads=threads)

    return cut


def _casync(sizes: caibx.Sizes, algorithm: Algorithm | None, threads: int) -> Session:
    def cut(data: memoryview, before: int, searched: int, final: bool, /) -> Cut:
        return kernels.casync_index(
            data[before:], sizes.minimum, sizes.maximum, sizes.discriminator,
            final=final, algorithm=algorithm.label if algorithm else None, searched=searched, threads=threads,
        )  # fmt: skip

    return cut


def _rolling(chunker: Rolling, algorithm: Algorithm | None, threads: int) -> Session:
    carry = 0

    def cut(data: memoryview, before: int, searched: int, final: bool, /) -> Cut:
        nonlocal carry
        lengths, digests, carry = kernels.rolling_index(
            data, chunker, final=final, algorithm=algorithm.label if algorithm else None,
            before=before, searched=searched, carry=carry, threads=threads,
        )  # fmt: skip
        return lengths, digests

    return cut


def cut_stream(
    read: Callable[[int, memoryview], None], size: int, chunker: Chunker, algorithm: Algorithm, *, threads: int = 0
) -> Iterator[tuple[memoryview, array[int], bytes]]:
    """Cut the `size` bytes that `read(offset, view)` gives: (the bytes of complete chunks, lengths, digests).

    The bytes are good until the next step. Reads ahead while cutting. Memory: the longest chunk and two batches. A rule
    that follows the layout of files reads that first, at any offset.
    """
    cut = _session(read, size, chunker, algorithm, threads)
    batch = min(chunker.batch, size)
    # Mapped, so that all of it goes back to the system at the end: the C library keeps what it has once freed.
    work = memoryview(mmap.mmap(-1, min(chunker.context + chunker.longest, size) + batch + 1))
    ahead = memoryview(bytearray(batch))
    start = end = searched = 0  # in `work`: the open chunk, and how much of it was searched
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        reading = pool.submit(read, 0, ahead)
        for offset in range(0, size, batch or 1):
            count = min(batch, size - offset)
            reading.result()
            before = min(start, chunker.context)
            work[: before + end - start] = work[start - before : end]
            start, end = before, before + end - start
            work[end : end + count] = ahead[:count]
            end += count
            following = offset + count
            if following < size:
                reading = pool.submit(read, following, ahead[: min(batch, size - following)])
            lengths, digests = cut(work[:end], start, searched, following == size)
            consumed = sum(lengths)
            yield work[start : start + consumed], lengths, digests
            start += consumed
            searched = end - start


def _session(
    read: Callable[[int, memoryview], None], size: int, chunker: Chunker, algorithm: Algorithm, threads: int
) -> Session:
    placement = chunker.placement
    if placement == UNMOVED:
        return chunker.session(algorithm, threads)
    found = layout(read, size).cuts if placement.files else array("Q")
    return Placed(
        lambda: chunker.session(None, threads), places(found, size, placement.align), placement.align,
        chunker.context - placement.align, algorithm, threads,
    )  # fmt: skip
