# SPDX-License-Identifier: Apache-2.0
"""Android's copy-on-write files (AOSP, fs_mgr/libsnapshot), versions 1 to 3: headers, operations, and their recipe.

    header   magic 8 · major u16 · minor u16 · header size u16 · footer size u16 · op size u16 · block size u32
             · ops of a cluster u32 · ops merged u64
    from v2  · size of the scratch area u32
    from v3  · numbers in the sequence u64 · resume points u32 · room for resume points u32 · ops u64 · room for ops u64
             · compression u32 · size of the largest unit u32

Little-endian, packed. How operations and data lie behind the header, `cow_v2` and `cow_v3` know. An operation makes one
block of the new image (a REPLACE of version 3 up to 128): from another block of the old one (COPY), from stored bytes
(REPLACE), from nothing (ZERO), or from stored bytes xor any bytes of the old image (XOR). Other blocks are unchanged.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum

from regraft.errors import FormatError, LimitError, UnsupportedError
from regraft.formats.cursor import Cursor
from regraft.formats.rows import add_copy, add_unchanged, add_zeros
from regraft.limits import DEFAULT, Limits
from regraft.model import Base, Blob, Codec, Kind, Op, OpTable, Recipe, Units
from regraft.model.buffers import Buffer

MAGIC = (0x436F77634F572121).to_bytes(8, "little")
WHAT = "COW file"


class CowKind(IntEnum):
    """Types of operations. Version 3 has no others than COPY, REPLACE, ZERO, XOR."""

    COPY = 1
    REPLACE = 2
    ZERO = 3
    LABEL = 4
    CLUSTER = 5
    XOR = 6
    SEQUENCE = 7
    FOOTER = 255


#: Those that read the old image, so that the order in which they are merged matters.
ORDERED = (CowKind.COPY, CowKind.XOR)
STORED = (CowKind.REPLACE, CowKind.XOR)

#: By number; and the codec of each. What Android calls gz is a stream of zlib.
COMPRESSIONS = ("none", "gz", "brotli", "lz4", "zstd")
CODECS = {"none": "none", "gz": "zlib", "brotli": "brotli", "lz4": "lz4", "zstd": "zstd"}

_COMMON = struct.Struct("<8sHHHHHIIQ")
_V3 = struct.Struct("<QIIQQII")
HEADER_SIZES = {1: 34, 2: 38, 3: 78}
LONGEST_HEADER = 78
OP_SIZES = {1: 20, 2: 20, 3: 16}
FOOTER_SIZES = {1: 84, 2: 84, 3: 0}


@dataclass(frozen=True, slots=True)
class Header:
    """Sizes in bytes. The last seven fields are of version 3 only."""

    version: int
    block_size: int = 4096
    cluster_ops: int = 0  #: slots of a cluster, 0 for none
    merged: int = 0  #: operations that are in the base already, in merge order
    buffer_size: int = 0  #: of the scratch area
    sequence_count: int = 0
    resume_points: int = 0
    resume_room: int = 0
    op_count: int = 0
    op_room: int = 0
    compression: int = 0
    unit_size: int = 0  #: of the largest unit

    @property
    def size(self) -> int:
        return HEADER_SIZES[self.version]

    @property
    def op_size(self) -> int:
        return OP_SIZES[self.version]

    @property
    def body(self) -> int:
        """Where what follows header and scratch area begins."""
        return self.size + self.buffer_size


def parse_header(data: Buffer, *, limits: Limits = DEFAULT) -> Header:
    """The header, from the first bytes of a file: `LONGEST_HEADER` of them, or all.

    Raises FormatError, UnsupportedError, LimitError.
    """
    cursor = Cursor(data, WHAT)
    magic, major, minor, size, footer, op_size, block_size, cluster_ops, merged = cursor.unpack(_COMMON.format)
    if magic != MAGIC:
        raise FormatError(f"not a {WHAT}: it starts with {magic.hex(' ')}", offset=0)
    if major not in HEADER_SIZES or minor:
        raise UnsupportedError(f"{WHAT}: version {major}.{minor}, regraft knows 1.0, 2.0 and 3.0", offset=8)
    expected = HEADER_SIZES[major], FOOTER_SIZES[major], OP_SIZES[major]
    if (size, footer, op_size) != expected:
        raise FormatError(
            f"{WHAT}: version {major} with a header, footer and operations of {size}, {footer} and {op_size} bytes",
            offset=12,
        )
    if block_size not in (1 << bits for bits in range(9, 16)):
        raise FormatError(f"{WHAT}: blocks of {block_size} bytes", offset=18)
    if cluster_ops == 1 or (cluster_ops and major == 3):
        raise FormatError(f"{WHAT}: clusters of {cluster_ops} operations in version {major}", offset=22)
    if cluster_ops > limits.chunks:
        raise LimitError(f"{WHAT}: clusters of {cluster_ops} operations, more than {limits.chunks} (chunks)")
    header = Header(major, block_size, cluster_ops, merged)
    if major >= 2:
        (buffer_size,) = cursor.unpack("<I")
        header = replace(header, buffer_size=buffer_size)
    if major == 3:
        header = replace(header, **dict(zip(_V3_FIELDS, cursor.unpack(_V3.format), strict=True)))
        _check_v3(header, limits)
    return header


_V3_FIELDS = (
    "sequence_count", "resume_points", "resume_room", "op_count", "op_room", "compression", "unit_size",
)  # fmt: skip


def _check_v3(header: Header, limits: Limits) -> None:
    if max(header.op_count, header.sequence_count, header.resume_points) > limits.chunks:
        raise LimitError(f"{WHAT}: {header.op_count} operations, more than {limits.chunks} (chunks)")
    if header.op_count > header.op_room or header.resume_points > header.resume_room:
        raise FormatError(f"{WHAT}: {header.op_count} operations where there is room for {header.op_room}", offset=54)
    if header.op_room > limits.image_size or header.sequence_count > header.op_count:
        raise FormatError(
            f"{WHAT}: room for {header.op_room} operations, {header.sequence_count} of them in sequence", offset=38
        )
    if header.compression >= len(COMPRESSIONS):
        raise UnsupportedError(f"{WHAT}: compression {header.compression} is not known", offset=70)
    if header.unit_size and (
        header.unit_size % header.block_size or not header.block_size <= header.unit_size <= header.block_size << 7
    ):
        raise FormatError(f"{WHAT}: units of up to {header.unit_size} bytes", offset=74)
    if header.unit_size > limits.chunk_size:
        raise LimitError(f"{WHAT}: units of up to {header.unit_size} bytes, more than {limits.chunk_size} (chunk_size)")


def build_header(header: Header) -> bytes:
    """The bytes of a header."""
    version = header.version
    data = _COMMON.pack(
        MAGIC, version, 0, header.size, FOOTER_SIZES[version], header.op_size, header.block_size, header.cluster_ops,
        header.merged,
    )  # fmt: skip
    if version >= 2:
        data += struct.pack("<I", header.buffer_size)
    if version == 3:
        data += _V3.pack(*(getattr(header, name) for name in _V3_FIELDS))
    return data


class Ops:
    """Operations in the order of the file: columns, 27 bytes each. Blocks are numbers, the rest is in bytes."""

    __slots__ = ("block", "data", "factor", "kind", "source", "stored")

    def __init__(self) -> None:
        self.kind = array("B")
        self.block = array("I")  #: the first that it makes
        self.source = array("Q")  #: COPY: number of the old block; XOR: byte offset in the old image; else 0
        self.stored = array("I")  #: of its data
        self.data = array("Q")  #: where that is in the file
        self.factor = array("B")  #: it makes 2 to this power blocks

    def add(self, kind: int, block: int, source: int = 0, stored: int = 0, data: int = 0, factor: int = 0) -> None:
        self.kind.append(kind)
        self.block.append(block)
        self.source.append(source)
        self.stored.append(stored)
        self.data.append(data)
        self.factor.append(factor)

    def __len__(self) -> int:
        return len(self.kind)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ops):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # mutable, like a list


@dataclass(frozen=True, slots=True)
class Cow:
    """A checked file. sequence: blocks of the ordered operations in merge order, if the file tells it."""

    header: Header
    ops: Ops
    compression: str  #: one of COMPRESSIONS
    sequence: array[int] = field(default_factory=lambda: array("I"))
    labels: tuple[tuple[int, int], ...] = ()  #: (label, operations before it)
    end: int = 0  #: of all that was read

    def merge_order(self) -> Iterator[int]:
        """The operations, by their number, in the order in which Android merges them."""
        ops = self.ops
        if self.sequence:
            where = {block: number for number, block in enumerate(ops.block)}
            first = [where[block] for block in self.sequence]
        else:
            first = [number for number, kind in enumerate(ops.kind) if kind in ORDERED]
        yield from first
        taken = set(first)
        yield from sorted((n for n in range(len(ops)) if n not in taken), key=ops.block.__getitem__)

    @property
    def identity(self) -> bytes:
        """SHA-256 of the header, without the progress of a merge, and of all operations in their places."""
        hasher = hashlib.sha256(build_header(replace(self.header, merged=0)) + self.compression.encode())
        ops = self.ops
        for column in (ops.kind, ops.block, ops.source, ops.stored, ops.data, ops.factor, self.sequence):
            if sys.byteorder == "big":
                column = array(column.typecode, column)
                column.byteswap()
            hasher.update(len(column).to_bytes(8, "little"))
            hasher.update(memoryview(column).cast("B"))
        return hasher.digest()


def check_ops(cow: Cow) -> array[int]:
    """The numbers of the operations, by the block they make. Raises FormatError if two make the same block, or if the
    sequence does not hold every ordered operation once."""
    ops = cow.ops
    order = array("I", sorted(range(len(ops)), key=ops.block.__getitem__))
    end = 0
    for number in order:
        if ops.block[number] < end:
            raise FormatError(f"{WHAT}: operation {number} makes block {ops.block[number]} a second time")
        end = ops.block[number] + (1 << ops.factor[number])
    if cow.sequence:
        listed = set(cow.sequence)
        if len(listed) != len(cow.sequence):
            raise FormatError(f"{WHAT}: a block is in the sequence twice")
        if not listed <= set(ops.block):
            raise FormatError(f"{WHAT}: the sequence names blocks that no operation makes")
        if any(kind in ORDERED and block not in listed for kind, block in zip(ops.kind, ops.block, strict=True)):
            raise FormatError(f"{WHAT}: the sequence leaves out an operation that reads the old image")
    if cow.header.merged > len(ops):
        raise FormatError(f"{WHAT}: {cow.header.merged} operations are merged, there are {len(ops)}", offset=26)
    return order


def recipe(
    cow: Cow, location: str, *, base_size: int, target_size: int | None = None, size: int | None = None
) -> Recipe:
    """What the new image consists of, if the base has `base_size` bytes and nothing is merged yet.

    location: of the file, and `size` its bytes if known. target_size: bytes of the new image, as many as the base has
    by default. Raises FormatError if operations refer outside of base or target, or overlap; UnsupportedError if a
    merge has begun: then there is no base any more.
    """
    if cow.header.merged:
        raise UnsupportedError(
            f"{WHAT}: {cow.header.merged} operations are merged into the base already", offset=26,
            cure="let the system that began the merge finish it",
        )  # fmt: skip
    target = base_size if target_size is None else target_size
    order, ops, block_size = check_ops(cow), cow.ops, cow.header.block_size
    table, units = OpTable(None), Units(None)
    codec = CODECS[cow.compression]
    codecs = (Codec(codec), Codec("none"), Codec(codec, patch="xor"), Codec("none", patch="xor"))
    for kind, first, count in _runs(ops, order):
        number = order[first]
        start = ops.block[number] * block_size
        length = (count << ops.factor[number]) * block_size
        if start >= target or start + length - target >= block_size:
            raise FormatError(f"{WHAT}: block {(start + length) // block_size - 1} in an image of {target} bytes")
        length = min(length, target - start)
        add_unchanged(table, start, base_size)
        if kind == CowKind.ZERO:
            add_zeros(table, length)
        elif kind == CowKind.COPY:
            add_copy(table, length, ops.source[number] * block_size)
        else:
            whole = block_size << ops.factor[number]
            raw = ops.stored[number] == whole and not _always_decoded(cow)
            unit = units.add(
                blob=0, codec=raw + 2 * (kind == CowKind.XOR), offset=ops.data[number], stored=ops.stored[number],
                length=whole, digest=None,
            )  # fmt: skip
            xor = Op(Kind.PATCH, at=ops.source[number], unit=unit)
            table.add(length, None, xor if kind == CowKind.XOR else Op(Kind.DATA, unit=unit))
    add_unchanged(table, target, base_size)
    made = Recipe(table, units, (Blob(location, size),), codecs, identity=cow.identity, base=Base(base_size))
    try:
        made.check()
    except ValueError as error:
        raise FormatError(
            f"{WHAT}: an operation reads what a base of {base_size} bytes does not have: {error}",
            cure="give the base that belongs to this file",
        ) from None
    return made


def _always_decoded(cow: Cow) -> bool:
    """Whether a unit is decoded even if it is stored in as many bytes as it has."""
    return cow.header.version < 3 and cow.compression in ("gz", "brotli")


def _runs(ops: Ops, order: array[int]) -> Iterator[tuple[int, int, int]]:
    """(type, position in `order`, operations): neighbours that zero, or copy from neighbours, together."""
    first = 0
    while first < len(order):
        kind, block, source = (column[order[first]] for column in (ops.kind, ops.block, ops.source))
        count = 1
        if kind in (CowKind.ZERO, CowKind.COPY):
            step = int(kind == CowKind.COPY)
            while first + count < len(order):
                other = order[first + count]
                if (ops.kind[other], ops.block[other]) != (kind, block + count):
                    break
                if ops.source[other] != source + step * count:
                    break
                count += 1
        yield kind, first, count
        first += count
