# SPDX-License-Identifier: Apache-2.0
"""Make Android copy-on-write files from two images, as AOSP's create_snapshot does: zeros, copies, the rest stored.

Changed blocks that are zero become ZERO; those that lie elsewhere in the old image COPY; what differs little from the
old block in its place becomes XOR if wanted; everything else REPLACE, in version 3 several blocks together.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from regraft import kernels
from regraft.build.changes import Comparison
from regraft.build.ordering import Order, simple_order
from regraft.build.pool import Compress, checked_level, compressor, in_order
from regraft.build.sidecar import digest_rows, digest_units
from regraft.engine.deltas import parse
from regraft.engine.medium import Medium
from regraft.engine.patch import xor
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.errors import ChangedError, LimitError, UsageError
from regraft.formats import android_cow, cow_v2, cow_v3
from regraft.formats.android_cow import CODECS, COMPRESSIONS, Cow, CowKind, Header
from regraft.formats.sidecar import Sidecar
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, Digest

_BATCH = 4 << 20
_RAW = ("lz4", "zstd")  #: in version 2, only these may leave a block as it is


@dataclass(frozen=True, slots=True)
class Options:
    """How to make a file. Sizes in bytes.

    level: None for the compression's default. unit_size: of the most blocks that version 3 compresses together.
    xor: whether to try it. cluster_ops: of version 2, 0 for no clusters and therefore no sequence. scratch: of the area
    that snapuserd merges through.
    """

    version: int = 3
    compression: str = "zstd"
    level: int | None = None
    block_size: int = 4096
    unit_size: int = 65536
    xor: bool = True
    cluster_ops: int = cow_v2.CLUSTER_OPS
    scratch: int = cow_v2.SCRATCH
    workers: int = 0

    def check(self, limits: Limits) -> None:
        """Raise UsageError, LimitError for what no reader takes."""
        if self.version not in (2, 3):
            raise UsageError(f"version {self.version}: 2 and 3 can be made")
        if self.compression not in COMPRESSIONS:
            raise UsageError(f"compression {self.compression!r}: there are {', '.join(COMPRESSIONS)}")
        checked_level(CODECS[self.compression], self.level)
        if self.block_size not in (1 << bits for bits in range(9, 16)):
            raise UsageError(f"blocks of {self.block_size} bytes: powers of two from 512 to 32768 are possible")
        if self.unit_size not in (self.block_size << factor for factor in range(8)):
            raise UsageError(f"units of {self.unit_size} bytes: 1, 2, 4 ... 128 blocks are possible")
        if self.unit_size > limits.chunk_size:
            raise LimitError(f"units of {self.unit_size} bytes, more than limits.chunk_size = {limits.chunk_size}")
        if self.cluster_ops == 1 or not 0 <= self.cluster_ops <= 65536:
            raise UsageError(f"clusters of {self.cluster_ops} operations: 0, or 2 to 65536 are possible")
        if not 0 <= self.scratch <= 1 << 30:
            raise UsageError(f"a scratch area of {self.scratch} bytes: at most 1 GiB is possible")


@dataclass(frozen=True, slots=True)
class Made:
    """What was made: the file as it is read back, its sidecar, and its size in bytes."""

    cow: Cow
    sidecar: Sidecar
    size: int


@dataclass(slots=True)
class _Changes:
    """The changed blocks, ascending, and what they can be made of."""

    blocks: array[int] = field(default_factory=lambda: array("I"))
    digests: bytearray = field(default_factory=bytearray)
    source: array[int] = field(default_factory=lambda: array("q"))  #: old block with the same bytes; else one of these:

    ZEROS = -1
    STORED = -2


def make(
    old: Medium, new: Medium, out: Medium, options: Options = Options(), *, order: Order = simple_order,
    limits: Limits = DEFAULT, progress: Progress = QUIET,
) -> Made:  # fmt: skip
    """Write the file that turns `old` into `new` to the empty medium `out`.

    order: finds the merge sequence of what reads the old image, and what has to be stored instead. The last block of
    `new` is filled up with zeros. The same images give the same bytes, with any number of workers. Memory: 32 bytes or
    so for each block of `old`, 200 for each changed one, `limits.buffer`; compressed blocks wait in an unlinked
    temporary file.

    Raises UsageError, LimitError, ChangedError, MissingError without the package that brotli or lz4 need.
    """
    options.check(limits)
    block_size = options.block_size
    if max(old.size, new.size) > min(limits.image_size, block_size << 32):
        raise LimitError(f"an image of more than limits.image_size = {limits.image_size} bytes")
    changes, base, target, sizes = _compare(old, new, block_size, progress)
    if len(changes.blocks) > limits.chunks:
        raise LimitError(f"more than limits.chunks = {limits.chunks} changed blocks", cure="take larger blocks")
    _find_copies(old, changes, block_size, progress)
    with tempfile.TemporaryFile(prefix="regraft-") as file:
        stage = _Stage(file, old, new, options, limits)
        plan = _planned(changes, stage, order, progress)
        size = _write(plan, stage, out)
    cow = parse(out, limits=limits)
    if not isinstance(cow, Cow):
        raise UsageError(f"{out.name} is not the file that was written")
    recipe = android_cow.recipe(cow, out.name, base_size=sizes[0], target_size=sizes[1], size=size)
    rows = digest_rows(new, recipe.table, progress=progress)
    sidecar = Sidecar(sizes[0], base, sizes[1], target, recipe.identity, rows, digest_units(out, recipe.units))
    return Made(cow, sidecar, size)


def _compare(
    old: Medium, new: Medium, block_size: int, progress: Progress
) -> tuple[_Changes, Digest, Digest, tuple[int, int]]:
    changes, zeros = _Changes(), bytes(block_size)
    comparison = Comparison(old, new, block_size, progress=progress)
    for block, view in comparison:
        data = bytes(view).ljust(block_size, b"\0")
        changes.blocks.append(block)
        changes.digests += Algorithm.SHA256.of(data)
        changes.source.append(_Changes.ZEROS if data == zeros else _Changes.STORED)
    return changes, comparison.old, comparison.new, (comparison.old_size, comparison.new_size)


def _find_copies(old: Medium, changes: _Changes, block_size: int, progress: Progress) -> None:
    """Give each changed block the old one with the same bytes: the one behind that of its neighbour, or the first."""
    blocks = old.size // block_size
    progress.phase("index", blocks * block_size)
    size = Algorithm.SHA256.size
    digests = bytearray()
    for start in range(0, blocks * block_size, _BATCH):
        data = _read(old, start, min(_BATCH, blocks * block_size - start))
        digests += kernels.fixed_index(data, block_size, final=False, algorithm=Algorithm.SHA256.label)[1]
        progress.advance(len(data), Origin.SEED)
    wanted = {bytes(changes.digests[at : at + size]): -1 for at in range(0, len(changes.digests), size)}
    for block in range(blocks - 1, -1, -1):
        digest = bytes(digests[block * size : (block + 1) * size])
        if digest in wanted:
            wanted[digest] = block
    expected = -1
    for number, block in enumerate(changes.blocks):
        digest = bytes(changes.digests[number * size : (number + 1) * size])
        if changes.source[number] != _Changes.ZEROS and wanted[digest] >= 0:
            neighbour = 0 <= expected < blocks and digests[expected * size : (expected + 1) * size] == digest
            changes.source[number] = expected if neighbour else wanted[digest]
        following = number + 1 < len(changes.blocks) and changes.blocks[number + 1] == block + 1
        expected = changes.source[number] + 1 if following and changes.source[number] >= 0 else -1


def _read(medium: Medium, offset: int, count: int) -> bytearray:
    data = bytearray(count)
    if medium.read_into(offset, memoryview(data)) < count:
        raise ChangedError(f"{medium.name} became shorter while it was read", cure="give files at rest")
    return data


class _Stage:
    """Compresses units on all cores, into a file where they wait until it is known where they go."""

    def __init__(self, file: BinaryIO, old: Medium, new: Medium, options: Options, limits: Limits) -> None:
        self._file, self.old, self._new, self._limits = file, old, new, limits
        self.options = options
        self.block_size = options.block_size
        codec = CODECS[options.compression]
        unit = options.unit_size if options.version == 3 else options.block_size
        plain: Compress = compressor(
            codec, checked_level(codec, options.level), window_log=max(unit.bit_length() - 1, 10)
        )
        self._may_stay = options.version == 3 or options.compression in _RAW
        self._plain = plain
        self._end = 0

    def compress(self, data: bytes) -> bytes:
        stored = self._plain(data)
        return data if self._may_stay and len(stored) >= len(data) else stored

    def new_bytes(self, block: int, count: int = 1) -> bytes:
        """Blocks of the new image, the last one filled up."""
        start, size = block * self.block_size, count * self.block_size
        return bytes(_read(self._new, start, min(size, self._new.size - start))).ljust(size, b"\0")

    def xors(self, blocks: list[int]) -> dict[int, tuple[int, int]]:
        """Of `blocks`, those that take fewer bytes as a XOR: where they wait."""

        def pairs() -> Iterator[tuple[int, bytes]]:
            for block in blocks:
                old = _read(self.old, block * self.block_size, self.block_size)
                yield block, bytes(old) + self.new_bytes(block)

        def best(both: bytes) -> bytes:
            old, new = both[: self.block_size], both[self.block_size :]
            stored = self.compress(xor(old, new))
            return stored if len(stored) < len(self.compress(new)) else b""

        found: dict[int, tuple[int, int]] = {}
        for block, _, stored in in_order(pairs(), best, workers=self.options.workers, limits=self._limits):
            if stored:
                found[block] = self._keep(stored)
        return found

    def units(self, units: list[tuple[int, int]]) -> dict[int, tuple[int, int]]:
        """Where these units (first block, number of blocks) wait, by their first block."""
        content = ((first, self.new_bytes(first, count)) for first, count in units)
        return {
            first: self._keep(stored)
            for first, _, stored in in_order(content, self.compress, workers=self.options.workers, limits=self._limits)
        }

    def _keep(self, stored: bytes) -> tuple[int, int]:
        at, self._end = self._end, self._end + len(stored)
        self._file.seek(at)
        self._file.write(stored)
        return at, len(stored)

    def take(self, place: tuple[int, int]) -> bytes:
        self._file.seek(place[0])
        return self._file.read(place[1])


@dataclass(slots=True)
class _Plan:
    """Operations in merge order, then those that may come in any."""

    ordered: list[tuple[CowKind, int, int]]  #: (type, block, old block or byte offset)
    zeros: list[int]
    units: list[tuple[int, int]]  #: (first block, number of blocks)
    places: dict[int, tuple[int, int]]  #: of the stored bytes, by first block


def _planned(changes: _Changes, stage: _Stage, order: Order, progress: Progress) -> _Plan:
    size = stage.block_size
    whole = stage.old.size // size
    stored = [block for block, source in _pairs(changes) if source == _Changes.STORED]
    progress.phase("pack", len(stored) * size)
    tried = stage.options.xor and stage.options.compression != "none"
    places = stage.xors([block for block in stored if block < whole]) if tried else {}
    copies = [(block, source) for block, source in _pairs(changes) if source >= 0]
    readers = sorted([(block, source * size) for block, source in copies] + [(block, block * size) for block in places])
    sequence, replaced = order([block for block, _ in readers], [source for _, source in readers], size)
    given_up = {readers[number][0] for number in replaced}
    ordered: list[tuple[CowKind, int, int]] = []
    for number in sequence:
        block, source = readers[number]
        if block in places:
            ordered.append((CowKind.XOR, block, source))
        else:
            ordered.append((CowKind.COPY, block, source // size))
    done = {block for _, block, _ in ordered}
    rest = sorted(given_up | {block for block in stored if block not in done})
    most = stage.options.unit_size // size if stage.options.version == 3 else 1
    units = list(_units(rest, most))
    zeros = [block for block, source in _pairs(changes) if source == _Changes.ZEROS]
    places.update(stage.units(units))
    return _Plan(ordered, zeros, units, places)


def _pairs(changes: _Changes) -> Iterator[tuple[int, int]]:
    return zip(changes.blocks, changes.source, strict=True)


def _units(blocks: list[int], most: int) -> Iterator[tuple[int, int]]:
    """Runs of neighbours, cut into powers of two of at most `most` blocks, the largest first."""
    at = 0
    while at < len(blocks):
        run = 1
        while run < most and at + run < len(blocks) and blocks[at + run] == blocks[at] + run:
            run += 1
        run = 1 << run.bit_length() - 1
        yield blocks[at], run
        at += run


def _write(plan: _Plan, stage: _Stage, out: Medium) -> int:
    options, compression = stage.options, COMPRESSIONS.index(stage.options.compression)
    sequence = array("I", (block for _, block, _ in plan.ordered))
    if options.version == 2:
        header = Header(2, options.block_size, options.cluster_ops, buffer_size=options.scratch)
        older = cow_v2.Writer(out.write, header, compression)
        if options.cluster_ops:
            older.sequence(sequence)
        writer: cow_v2.Writer | cow_v3.Writer = older
    else:
        header = Header(
            3, options.block_size, buffer_size=options.scratch, sequence_count=len(sequence),
            resume_room=cow_v3.RESUME_ROOM, op_room=len(plan.ordered) + len(plan.zeros) + len(plan.units),
            compression=compression, unit_size=options.unit_size,
        )  # fmt: skip
        writer = cow_v3.Writer(out.write, header, sequence)
    for kind, block, source in plan.ordered:
        if kind is CowKind.COPY:
            writer.copy(block, source)
        else:
            writer.xor(block, source, stage.take(plan.places[block]))
    rest = sorted([(block, 0) for block in plan.zeros] + plan.units)
    for block, count in rest:
        if not count:
            writer.zero(block)
        elif isinstance(writer, cow_v3.Writer):
            writer.replace(block, stage.take(plan.places[block]), count.bit_length() - 1)
        else:
            writer.replace(block, stage.take(plan.places[block]))
    return writer.finish()
