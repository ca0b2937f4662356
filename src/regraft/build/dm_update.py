# SPDX-License-Identifier: Apache-2.0
"""Make diffs for the device-mapper target `update` from two images, and the sidecars that belong to them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from regraft.build.changes import Comparison
from regraft.build.pool import checked_level, compressor, in_order
from regraft.build.sidecar import digest_rows
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Progress
from regraft.errors import LimitError, UsageError
from regraft.formats import dm_update
from regraft.formats.dm_update import CODECS, SUPERBLOCK_SIZE, Diff, Superblock
from regraft.formats.sidecar import Sidecar
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, DigestColumn

#: Where the first chunk is stored: the driver reads a sector for the superblock.
_HEAD = 512

#: The kernel opens deflate with a window of 2 KiB; its zstd, since 6.16, decodes windows of at most 256 KiB.
_WINDOWS = {"deflate": 11, "zstd": 18}

#: What regraft writes; it reads the other names of the same codecs as well.
COMPRESSIONS = ("none", "deflate", "lz4", "zstd")


@dataclass(frozen=True, slots=True)
class Options:
    """How to make a diff. Sizes in bytes.

    level: None for the compression's default. sector: what the file's size is padded to, at least the logical sector
    of the device under it on the target.
    """

    compression: str = "zstd"
    level: int | None = None
    block_size: int = 4096
    chunk_size: int = 65536
    sector: int = 4096
    workers: int = 0

    def check(self, limits: Limits) -> None:
        """Raise UsageError, LimitError for what no reader takes."""
        if self.compression not in COMPRESSIONS:
            raise UsageError(f"compression {self.compression!r}: there are {', '.join(COMPRESSIONS)}")
        checked_level(CODECS[self.compression], self.level)
        if self.block_size not in (1 << bits for bits in range(9, 17)):
            raise UsageError(f"blocks of {self.block_size} bytes: powers of two from 512 to 65536 are possible")
        if self.chunk_size < self.block_size or self.chunk_size % self.block_size:
            raise UsageError(
                f"chunks of {self.chunk_size} bytes: a multiple of the block's {self.block_size} is needed"
            )
        if self.chunk_size > limits.chunk_size:
            raise LimitError(f"chunks of {self.chunk_size} bytes, more than limits.chunk_size = {limits.chunk_size}")
        if self.sector not in (1 << bits for bits in range(9, 17)):
            raise UsageError(f"sectors of {self.sector} bytes: powers of two from 512 to 65536 are possible")


@dataclass(frozen=True, slots=True)
class Made:
    """What was made: the diff as it is read back, its sidecar, and its size in bytes."""

    diff: Diff
    sidecar: Sidecar
    size: int


def make(
    old: Medium, new: Medium, out: Medium, options: Options = Options(), *, limits: Limits = DEFAULT,
    progress: Progress = QUIET,
) -> Made:  # fmt: skip
    """Write the diff that turns `old` into `new` to the empty medium `out`.

    Blocks that occur several times in a chunk are stored once. The same images give the same bytes, with any number of
    workers. `new` may be longer than `old` if the device under it is; and shorter, but then only the sidecar tells.
    Memory: four batches of 4 MiB, `limits.buffer`, and 50 bytes or so for each changed block.

    Raises UsageError, LimitError, MissingError without the package that lz4 needs, ChangedError.
    """
    options.check(limits)
    if max(old.size, new.size) > limits.image_size:
        raise LimitError(f"an image of more than limits.image_size = {limits.image_size} bytes")
    codec = CODECS[options.compression]
    compress = compressor(codec, checked_level(codec, options.level), window_log=_WINDOWS.get(codec, 15))
    comparison = Comparison(old, new, options.block_size, progress=progress)
    blocks, chunks, numbers = array("Q"), array("Q"), array("I")
    units = DigestColumn(Algorithm.SHA256)
    at = _HEAD
    chunked = _chunks(comparison, options.block_size, options.chunk_size)
    for entries, _, stored in in_order(chunked, compress, workers=options.workers, limits=limits):
        for block, number in entries:
            blocks.append(block)
            chunks.append(at)
            numbers.append(number)
        if len(blocks) > limits.chunks:
            raise LimitError(f"more than limits.chunks = {limits.chunks} changed blocks", cure="take larger blocks")
        out.write(at, stored)
        units.append(Algorithm.SHA256.of(stored))
        at += len(stored)
    directory = compress(dm_update.build_directory(blocks, chunks, numbers, at))
    superblock = Superblock(
        options.block_size, options.chunk_size // options.block_size, options.compression, at, len(directory),
        len(blocks) + 1,
    )  # fmt: skip
    end = at + len(directory)
    size = -(-end // options.sector) * options.sector
    out.write(at, directory)
    out.write(end, bytes(size - end))
    out.write(0, dm_update.build_superblock(superblock) + bytes(_HEAD - SUPERBLOCK_SIZE))
    diff = dm_update.parse_directory(superblock, directory, file_size=size, limits=limits)
    recipe = dm_update.recipe(diff, out.name, base_size=comparison.old_size, target_size=comparison.new_size, size=size)
    sidecar = Sidecar(
        comparison.old_size, comparison.old, comparison.new_size, comparison.new, diff.identity,
        digest_rows(new, recipe.table, progress=progress), units,
    )  # fmt: skip
    return Made(diff, sidecar, size)


#: The entries of a chunk: numbers of a block in the image and in the chunk.
_Entries = list[tuple[int, int]]


def _chunks(changed: Iterable[tuple[int, memoryview]], block: int, capacity: int) -> Iterator[tuple[_Entries, bytes]]:
    """The decoded chunks with their entries, filled in the order of blocks; a block that is short is filled up."""
    entries: _Entries = []
    numbers: dict[bytes, int] = {}
    for where, view in changed:
        data = bytes(view).ljust(block, b"\0")
        number = numbers.get(data)
        if number is None:
            if (len(numbers) + 1) * block > capacity:
                yield entries, b"".join(numbers)
                entries, numbers = [], {}
            number = numbers[data] = len(numbers)
        entries.append((where, number))
    if entries:
        yield entries, b"".join(numbers)
