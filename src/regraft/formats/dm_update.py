# SPDX-License-Identifier: Apache-2.0
"""The diffs of the device-mapper target `update` (its patch on dm-devel, November 2021), version 0. Pure.

    superblock   magic 8 · version u8 · log2 of the block size u8 · 0 u16 · blocks of a chunk u32 · compression 16
                 · offset of the directory u64 · its stored size u64 · its entries u64 · 0 u64
    entry        block, low u32 · block, high u16 · chunk, high u16 · chunk, low u32 · number in the chunk u32

Little-endian. An entry says that block `block` of the new image is the block with that number in the decoded chunk that
is stored at byte `chunk` of the diff. Entries ascend by block, those of a chunk stand together, and chunks are stored
end to end in that order. The last entry is a sentinel: its chunk is where the last one ends. The directory is stored as
one unit with the compression of the chunks, wherever there is room.

The format knows replaced blocks only, and tells neither sizes nor digests: those come from a sidecar.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from regraft.errors import FormatError, LimitError, UnsupportedError
from regraft.formats.codecs import Decoder
from regraft.formats.cursor import Cursor
from regraft.formats.rows import add_unchanged
from regraft.limits import DEFAULT, Limits
from regraft.model import Base, Blob, Codec, Kind, Op, OpTable, Recipe, Units
from regraft.model.buffers import Buffer

MAGIC = b"update\0\0"
SUPERBLOCK_SIZE = 64
ENTRY_SIZE = 16
SENTINEL = (1 << 48) - 1  #: the block of the last entry, as regraft writes it: above all others

#: What the kernel calls the compressions, and the codec of ours. Of `lz4hc`, only the compressor is another one.
CODECS = {"none": "none", "deflate": "deflate", "zlib-deflate": "zlib", "lz4": "lz4", "lz4hc": "lz4", "zstd": "zstd"}

_LAYOUT = struct.Struct("<8sBBHI16sQQQQ")
_WHAT = "dm-update diff"
_ENTRIES = 1 << 14  #: decoded at once


@dataclass(frozen=True, slots=True)
class Superblock:
    """Sizes in bytes. entries: of the directory, with the sentinel."""

    block_size: int
    chunk_blocks: int  #: blocks that a decoded chunk holds at most
    compression: str  #: one of CODECS
    directory_offset: int
    directory_stored: int
    entries: int

    @property
    def chunk_size(self) -> int:
        """Bytes that a decoded chunk has at most."""
        return self.block_size * self.chunk_blocks


@dataclass(frozen=True, slots=True)
class Diff:
    """A checked diff. Columns have an entry per changed block, without the sentinel."""

    superblock: Superblock
    blocks: array[int]  #: numbers of the changed blocks in the image, ascending
    chunks: array[int]  #: where the block's chunk is stored
    numbers: array[int]  #: of the block within its decoded chunk
    end: int  #: of the last chunk
    identity: bytes  #: SHA-256 of superblock and stored directory

    def __len__(self) -> int:
        return len(self.blocks)

    def runs(self) -> Iterator[tuple[int, int]]:
        """For each chunk, in order: its entries as a range (first, behind the last)."""
        first = 0
        for entry in range(1, len(self) + 1):
            if entry == len(self) or self.chunks[entry] != self.chunks[first]:
                yield first, entry
                first = entry

    def stored(self, entry: int) -> int:
        """Stored bytes of the chunk whose last entry is `entry`."""
        after = self.chunks[entry + 1] if entry + 1 < len(self) else self.end
        return after - self.chunks[entry]


def parse_superblock(data: Buffer, *, limits: Limits = DEFAULT) -> Superblock:
    """The superblock, from at least its 64 bytes. Raises FormatError, UnsupportedError, LimitError."""
    cursor = Cursor(memoryview(data)[:SUPERBLOCK_SIZE], _WHAT)
    magic, version, bits, _, chunk_blocks, name, offset, stored, entries, _ = cursor.unpack(_LAYOUT.format)
    if magic != MAGIC:
        raise FormatError(f"not a {_WHAT}: it starts with {magic.hex(' ')}", offset=0)
    if version:
        raise UnsupportedError(f"{_WHAT}: version {version}, regraft knows 0", offset=8)
    if not 9 <= bits <= 31:
        raise FormatError(f"{_WHAT}: blocks of 2^{bits} bytes, there are 2^9 to 2^31", offset=9)
    if not chunk_blocks or chunk_blocks << bits >= 1 << 31:
        raise FormatError(f"{_WHAT}: chunks of {chunk_blocks} blocks of {1 << bits} bytes", offset=12)
    if chunk_blocks << bits > limits.chunk_size:
        raise LimitError(f"{_WHAT}: chunks of {chunk_blocks << bits} bytes, more than {limits.chunk_size} (chunk_size)")
    word, end, _ = name.partition(b"\0")
    if not end or not word.isascii():
        raise FormatError(f"{_WHAT}: a compression without an end, or not in ASCII", offset=16)
    compression = word.decode("ascii")
    if compression not in CODECS:
        raise UnsupportedError(f"{_WHAT}: compression {compression!r}, regraft knows {', '.join(CODECS)}", offset=16)
    if not entries:
        raise FormatError(f"{_WHAT}: a directory without a sentinel", offset=48)
    if entries - 1 > limits.chunks or entries * ENTRY_SIZE > limits.header_size:
        raise LimitError(f"{_WHAT}: {entries} entries, more than {limits.chunks} (chunks, or header_size)")
    if stored > limits.header_size:
        raise LimitError(f"{_WHAT}: a directory stored in {stored} bytes, more than {limits.header_size} (header_size)")
    if offset < SUPERBLOCK_SIZE or offset > limits.image_size or not stored:
        raise FormatError(f"{_WHAT}: a directory of {stored} bytes at {offset}", offset=32)
    return Superblock(1 << bits, chunk_blocks, compression, offset, stored, entries)


def build_superblock(superblock: Superblock) -> bytes:
    return _LAYOUT.pack(
        MAGIC,
        0,
        superblock.block_size.bit_length() - 1,
        0,
        superblock.chunk_blocks,
        superblock.compression.encode(),
        superblock.directory_offset,
        superblock.directory_stored,
        superblock.entries,
        0,
    )


def parse_directory(superblock: Superblock, stored: Buffer, *, file_size: int, limits: Limits = DEFAULT) -> Diff:
    """The diff, from the `directory_stored` bytes at `directory_offset` of a file of `file_size` bytes.

    Raises FormatError unless every entry is in order, and every chunk in the file and apart from all else; LimitError;
    MissingError without the package that lz4 needs.
    """
    at = superblock.directory_offset
    if len(stored) != superblock.directory_stored or at + len(stored) > file_size:
        raise FormatError(
            f"{_WHAT}: a directory of {superblock.directory_stored} bytes at {at}, the file has {file_size}",
            offset=min(at, file_size),
        )
    raw = Decoder(CODECS[superblock.compression], limits=limits).decode(stored, superblock.entries * ENTRY_SIZE)
    blocks, chunks, numbers = array("Q"), array("Q"), array("I")
    for start in range(0, len(raw), _ENTRIES * ENTRY_SIZE):  # piece by piece, so that it is not there twice
        words = array("I", bytes(raw[start : start + _ENTRIES * ENTRY_SIZE]))
        if sys.byteorder == "big":
            words.byteswap()
        high = words[1::4]
        blocks.extend(low | (both & 0xFFFF) << 32 for low, both in zip(words[0::4], high, strict=True))
        chunks.extend(low | both >> 16 << 32 for low, both in zip(words[2::4], high, strict=True))
        numbers.extend(words[3::4])
    _check_order(superblock, blocks, chunks, numbers)
    blocks.pop(), numbers.pop()
    end = chunks.pop()
    identity = hashlib.sha256(build_superblock(superblock) + stored).digest()
    diff = Diff(superblock, blocks, chunks, numbers, end, identity)
    if len(diff):
        _check_places(diff, file_size, limits)
    return diff


def _check_order(superblock: Superblock, blocks: array[int], chunks: array[int], numbers: array[int]) -> None:
    last = len(blocks) - 1
    for entry in range(last):
        if blocks[entry] >= blocks[entry + 1]:
            raise FormatError(f"{_WHAT}: entry {entry + 1}: block {blocks[entry + 1]} after block {blocks[entry]}")
        if chunks[entry] > chunks[entry + 1]:
            raise FormatError(f"{_WHAT}: entry {entry + 1}: a chunk at {chunks[entry + 1]} after {chunks[entry]}")
    if max(numbers) >= superblock.chunk_blocks:
        entry = numbers.index(max(numbers))
        raise FormatError(
            f"{_WHAT}: entry {entry}: block {numbers[entry]} of a chunk of {superblock.chunk_blocks} blocks"
        )
    if last and chunks[last] == chunks[last - 1]:
        raise FormatError(f"{_WHAT}: the sentinel is within the last chunk, at {chunks[last]}")


def _check_places(diff: Diff, file_size: int, limits: Limits) -> None:
    start, directory = diff.chunks[0], diff.superblock.directory_offset
    if start < SUPERBLOCK_SIZE or diff.end > file_size:
        raise FormatError(f"{_WHAT}: chunks from {start} to {diff.end} in a file of {file_size} bytes")
    if directory < diff.end and start < directory + diff.superblock.directory_stored:
        raise FormatError(f"{_WHAT}: chunks from {start} to {diff.end}, and a directory at {directory}")
    plain = diff.superblock.compression == "none"
    for first, behind in diff.runs():
        stored, needed = diff.stored(behind - 1), _decoded(diff, first, behind)
        if stored > limits.stored_size:
            raise LimitError(f"{_WHAT}: a chunk stored in {stored} bytes, more than {limits.stored_size} (stored_size)")
        if plain and not needed <= stored <= diff.superblock.chunk_size:
            raise FormatError(
                f"{_WHAT}: the chunk at {diff.chunks[first]} has {stored} bytes, its entries need {needed}"
            )


def _decoded(diff: Diff, first: int, behind: int) -> int:
    """Bytes to which a chunk must decode for these entries."""
    return (max(diff.numbers[first:behind]) + 1) * diff.superblock.block_size


def build_directory(blocks: array[int], chunks: array[int], numbers: array[int], end: int) -> bytes:
    """The decoded directory, with its sentinel. Columns as in `Diff`."""
    words = array("I", bytes(ENTRY_SIZE * (len(blocks) + 1)))
    words[0::4] = array("I", (*(block & 0xFFFFFFFF for block in blocks), SENTINEL & 0xFFFFFFFF))
    words[1::4] = array(
        "I",
        (
            *(block >> 32 | chunk >> 32 << 16 for block, chunk in zip(blocks, chunks, strict=True)),
            SENTINEL >> 32 | end >> 32 << 16,
        ),
    )
    words[2::4] = array("I", (*(chunk & 0xFFFFFFFF for chunk in chunks), end & 0xFFFFFFFF))
    words[3::4] = array("I", (*numbers, 0))
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def recipe(
    diff: Diff, location: str, *, base_size: int, target_size: int | None = None, size: int | None = None
) -> Recipe:
    """What the new image consists of, if the base has `base_size` bytes.

    location: of the diff, and `size` its bytes if known. target_size: bytes of the new image, as many as the base has
    by default. Raises FormatError if a changed block lies behind the new image, or the base ends before an unchanged
    one.
    """
    target = base_size if target_size is None else target_size
    block_size = diff.superblock.block_size
    if len(diff) and diff.blocks[-1] * block_size >= target:
        raise FormatError(f"{_WHAT}: block {diff.blocks[-1]} of {block_size} bytes in an image of {target} bytes")
    table, units = OpTable(None), Units(None)
    for first, behind in diff.runs():
        unit = units.add(
            blob=0, codec=0, offset=diff.chunks[first], stored=diff.stored(behind - 1),
            length=_decoded(diff, first, behind), digest=None,
        )  # fmt: skip
        entry = first
        while entry < behind:
            count = _successive(diff, entry, behind)
            start = diff.blocks[entry] * block_size
            add_unchanged(table, start, base_size)
            length = min(count * block_size, target - start)
            table.add(length, None, Op(Kind.DATA, unit=unit, within=diff.numbers[entry] * block_size))
            entry += count
    add_unchanged(table, target, base_size)
    made = Recipe(
        table,
        units,
        (Blob(location, size),),
        (Codec(CODECS[diff.superblock.compression], room=diff.superblock.chunk_size),),
        identity=diff.identity,
        base=Base(base_size),
    )
    made.check()
    return made


def _successive(diff: Diff, entry: int, behind: int) -> int:
    """How many entries from this one on are successive blocks, of the image and in the chunk."""
    count = 1
    while (
        entry + count < behind
        and diff.blocks[entry + count] == diff.blocks[entry] + count
        and diff.numbers[entry + count] == diff.numbers[entry] + count
    ):
        count += 1
    return count
