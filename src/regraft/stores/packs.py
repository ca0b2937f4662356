# SPDX-License-Identifier: Apache-2.0
"""Packs: finding chunks in those that are there, and writing new ones.

Order of writing: chunks, pack synced, records appended to the index, index synced; so a record never promises what a
power cut could take away. The index of a pack that is being written is locked: nobody else trims or drops that pack.
What it has recorded counts already, for everybody, but may still be taken back.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

from regraft.engine import medium as media
from regraft.engine.medium import Directory, Medium, read_all
from regraft.errors import BusyError, FormatError, LimitError, MediumError, RegraftError, SourceError, StateError
from regraft.formats import pack_index
from regraft.formats.pack_index import BLOCK, PackIndex, blocks_of
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm
from regraft.stores import names
from regraft.stores.lookup import Lookup
from regraft.stores.scattered import Places


def read_index(directory: Directory, number: int, limits: Limits = DEFAULT) -> PackIndex:
    """The index of a pack. Raises StateError, FormatError, LimitError, and FileNotFoundError if it is gone."""
    medium = directory.open(names.index(number))
    try:
        content = read_all(medium, limits.pack_index_size)
    except ValueError as error:
        raise LimitError(f"{error} (pack_index_size)") from None
    finally:
        medium.close()
    index = pack_index.parse(content, limits=limits)
    if index.number != number:
        raise StateError(f"{directory.path}/{names.index(number)} is the index of pack {index.number}")
    return index


@dataclass(frozen=True, slots=True)
class Pack:
    """An open pack and what its index says. Records that the pack is too short for are left out."""

    number: int
    index: PackIndex
    medium: Medium
    lost: int = 0  #: records that were left out

    def record(self, row: int) -> tuple[bytes, int, int]:
        """(digest, length, offset) of a chunk."""
        return self.index.digests[row], self.index.lengths[row], BLOCK * self.index.blocks[row]


def open_pack(directory: Directory, number: int, limits: Limits = DEFAULT) -> Pack:
    """Raises as `read_index` does."""
    index = read_index(directory, number, limits)
    medium = directory.open(names.pack(number))
    before = len(index)
    if index.pack_size > medium.size:
        pack_index.keep(index, [r for r in range(before) if index.ends(r) <= medium.size])
    return Pack(number, index, medium, before - len(index))


def sound_packs(directory: Directory, limits: Limits = DEFAULT) -> Iterator[Pack]:
    """Every pack whose index can be read, newest first. Who takes one closes its medium.

    Raises LimitError, and MediumError if files cannot be opened: with no descriptors left, nothing is missing.
    """
    found = names.numbers(directory.names(), names.INDEX)
    if len(found) > limits.packs:
        raise LimitError(f"{directory.path}: {len(found)} packs, more than {limits.packs} (packs)")
    for number in reversed(found):
        try:
            pack = open_pack(directory, number, limits)
        except (FormatError, LimitError, SourceError, StateError, FileNotFoundError):
            continue
        yield pack


@dataclass(slots=True)
class Found:
    """Where the chunks of a lookup lie: places count `packs`, of which only those that are used are open."""

    places: Places
    packs: list[Medium]
    numbers: list[int]

    def close(self) -> None:
        for pack in self.packs:
            pack.close()

    def missing(self) -> list[int]:
        """Chunks that are not in the store."""
        return [chunk for chunk, pack in enumerate(self.places.pack) if pack < 0]


def _closing(found: Found, packs: Iterator[Pack]) -> Iterator[Pack]:
    try:
        yield from packs
    except RegraftError:
        found.close()
        raise


def locate(directory: Directory, wanted: Lookup, limits: Limits = DEFAULT) -> Found:
    """Look for chunks in all packs; the newest pack that has one wins. Those that are being written count as far
    as they are recorded. Raises as `sound_packs` does."""
    found = Found(Places(len(wanted)), [], [])
    left = len(wanted)
    algorithm = wanted.digests.algorithm
    if not left:
        return found
    for pack in _closing(found, sound_packs(directory, limits)):
        position, used = len(found.packs), False
        if pack.index.algorithm == algorithm:
            index = pack.index
            for digest, length, block in zip(index.digests, index.lengths, index.blocks, strict=True):
                chunk = wanted.find(digest, length)
                if chunk >= 0 and found.places.pack[chunk] < 0:
                    found.places.pack[chunk], found.places.offset[chunk] = position, BLOCK * block
                    left, used = left - 1, True
        if used:
            found.packs.append(pack.medium)
            found.numbers.append(pack.number)
        else:
            pack.medium.close()
        if not left:
            break
    return found


def lay_out(lengths: Sequence[int], limits: Limits = DEFAULT) -> tuple[Places, list[int]]:
    """Places for chunks of these lengths in new packs, end to end but for alignment, and the size of each pack."""
    places, block = Places(len(lengths)), 0
    sizes: list[int] = []
    for chunk, length in enumerate(lengths):
        if not sizes or (block and BLOCK * block + length > limits.pack_size):
            sizes.append(0)
            block = 0
        places.pack[chunk], places.offset[chunk] = len(sizes) - 1, BLOCK * block
        sizes[-1] = BLOCK * block + length
        block += blocks_of(length)
    return places, sizes


class PackWriter:
    """`count` new packs. Made under the lock of the store, for it takes the next numbers. Thread-safe.

    Chunks are written to `media` by whoever has them; `record` tells what was written.
    """

    def __init__(
        self,
        directory: Directory,
        algorithm: Algorithm,
        count: int,
        *,
        limits: Limits = DEFAULT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory, self._limits, self._clock = directory, limits, clock
        self._lock, self._flushing = Lock(), Lock()
        self._pending: list[list[tuple[int, int, bytes]]] = [[] for _ in range(count)]
        self._pending_bytes, self._last = 0, clock()
        self._failed: MediumError | None = None
        self._indexes: list[Medium] = []
        self._locks: list[media.Lock] = []
        self._positions: list[int] = []
        self._seeds: list[int] = []
        self._settled = False
        self.recorded = [0] * count  #: records per pack
        self.media: list[Medium] = []
        self.numbers: list[int] = []
        first = next_number(directory, count)
        try:
            for number in range(first, first + count):
                self._create(number, algorithm)
            if count:
                directory.sync_directory()
        except BaseException:
            self.close()
            raise

    def _create(self, number: int, algorithm: Algorithm) -> None:
        self.numbers.append(number)
        header = pack_index.build_header(number, algorithm)
        index = self._directory.create(names.index(number))
        self._indexes.append(index)
        self._locks.append(self._directory.lock(names.index(number), wait=False))
        index.write(0, header)
        index.sync()
        self._positions.append(len(header))
        self._seeds.append(pack_index.crc_of(header))
        self.media.append(self._directory.create(names.pack(number)))

    def record(self, pack: int, offset: int, length: int, digest: bytes) -> None:
        """A chunk was written to media[pack]. From time to time, all that was is made durable and recorded."""
        with self._lock:
            self._pending[pack].append((offset // BLOCK, length, digest))
            self._pending_bytes += length
            due = (
                self._pending_bytes >= self._limits.journal_bytes
                or self._clock() - self._last >= self._limits.journal_interval
            )
        if due and self._flushing.acquire(blocking=False):
            try:
                self._flush()
            finally:
                self._flushing.release()

    def take_back(self, pack: int, offset: int, digest: bytes) -> None:
        """What was recorded of this place is not so."""
        with self._lock:
            self._pending[pack].append((offset // BLOCK, 0, digest))

    def flush(self) -> None:
        """Make all that was written durable and record it. Raises MediumError; after that nothing is recorded any more:
        the kernel tells only once that it lost pages, and a later sync would succeed without them."""
        with self._flushing:
            self._flush()

    def _flush(self) -> None:
        if self._failed is not None:
            raise self._failed
        with self._lock:
            pending, self._pending = self._pending, [[] for _ in self._pending]
            self._pending_bytes, self._last = 0, self._clock()
        for pack, records in enumerate(pending):
            if records:
                try:
                    self.media[pack].sync()
                except MediumError as error:
                    self._failed = error
                    raise
                self._append(pack, sorted(records))

    def _append(self, pack: int, records: list[tuple[int, int, bytes]]) -> None:
        blocks, lengths, digests = zip(*records, strict=True)
        group = pack_index.build_group(self._seeds[pack], blocks, lengths, b"".join(digests))
        self._indexes[pack].write(self._positions[pack], group)
        self._indexes[pack].sync()
        self._positions[pack] += len(group)
        self.recorded[pack] += len(records)

    def settle(self) -> None:
        """Write no more; `media` can still be read. Packs in which nothing was recorded are removed: they hold nothing
        that anybody could find."""
        if self._settled:
            return
        self._settled = True
        for number, recorded in zip(self.numbers, self.recorded, strict=False):
            if not recorded:
                with suppress(RegraftError):
                    drop_pack(self._directory, number)
        for medium in self._indexes:
            medium.close()
        for lock in self._locks:
            lock.release()

    def close(self) -> None:
        """Settle, and let go."""
        self.settle()
        for medium in self.media:
            medium.close()


def next_number(directory: Directory, count: int = 1) -> int:
    """The first of `count` numbers that no pack has. Raises StateError when there are none left."""
    there = directory.names()
    first = max(names.numbers(there, names.INDEX) + names.numbers(there, names.PACK), default=0) + 1
    if first + count - 1 > names.LAST_NUMBER:
        raise StateError(f"{directory.path}: no numbers are left for packs", cure="clone the images into a new store")
    return first


def drop_pack(directory: Directory, number: int) -> None:
    """Remove a pack: first the index, so that it never promises what is gone."""
    directory.remove(names.index(number))
    directory.remove(names.pack(number))


def append_drops(directory: Directory, pack: PackIndex, rows: Sequence[int]) -> None:
    """Take back the records `rows` of a pack: those chunks are damaged. Raises BusyError while it is being written."""
    if not rows:
        return
    lock = directory.lock(names.index(pack.number), wait=False)
    try:
        medium = directory.open(names.index(pack.number))
        try:
            digests = b"".join(pack.digests[row] for row in rows)
            blocks = [pack.blocks[row] for row in rows]
            medium.write(pack.end, pack_index.build_group(pack.seed, blocks, array("I", bytes(4 * len(rows))), digests))
            medium.sync()
        finally:
            medium.close()
    finally:
        lock.release()


def being_written(directory: Directory, number: int) -> bool:
    """Whether somebody writes this pack."""
    try:
        directory.lock(names.index(number), shared=True, wait=False).release()
    except BusyError:
        return True
    except FileNotFoundError:
        return False
    return False
