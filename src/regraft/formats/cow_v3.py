# SPDX-License-Identifier: Apache-2.0
"""Android's copy-on-write files, version 3 (AOSP, fs_mgr/libsnapshot): tables in front of the data.

    op            bytes of its data u32 · block u32 · source in bits 0 to 47, factor in 57 to 59, type in 60 to 63 u64
    resume point  label u64 · operations before it u64

Behind header and scratch area: the sequence (numbers of blocks, u32 each), room for resume points and for operations,
then the data of REPLACE and XOR in their order, end to end. A REPLACE with factor k makes 2 to the k blocks. There is
no footer: the header is written last.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from regraft.errors import FormatError, UnsupportedError
from regraft.formats.android_cow import COMPRESSIONS, ORDERED, STORED, WHAT, Cow, CowKind, Header, Ops, build_header
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

_OP = struct.Struct("<IIQ")
_POINT = struct.Struct("<QQ")
OP_SIZE, POINT_SIZE = 16, 16
RESUME_ROOM = 4
_SOURCE = (1 << 48) - 1
_BATCH = 4096  #: operations read at once

Read = Callable[[int, int], bytes]
Write = Callable[[int, bytes], None]


def _places(header: Header) -> tuple[int, int, int]:
    """Where resume points, operations and data begin."""
    points = header.body + 4 * header.sequence_count
    ops = points + POINT_SIZE * header.resume_room
    return points, ops, ops + OP_SIZE * header.op_room


def parse(header: Header, read: Read, *, size: int, label: int | None = None, limits: Limits = DEFAULT) -> Cow:
    """All operations of a file of `size` bytes that has this header.

    label: the label up to which the file counts, by its resume points. Raises FormatError unless everything lies where
    it should; LimitError, UnsupportedError.
    """
    points, place, data = _places(header)
    if data > size:
        raise FormatError(f"{WHAT}: its data begin at {data}, the file has {size} bytes", offset=size)
    sequence = _numbers(_exactly(read, header.body, 4 * header.sequence_count))
    labels = tuple(
        _POINT.unpack(_exactly(read, points + POINT_SIZE * number, POINT_SIZE))
        for number in range(header.resume_points)
    )
    if any(before > header.op_count for _, before in labels):
        raise FormatError(f"{WHAT}: a resume point behind all operations", offset=points)
    count = header.op_count
    if label is not None:
        places = [before for number, before in labels if number == label]
        if not places:
            raise FormatError(f"{WHAT}: there is no label {label}")
        count = places[-1]
    ops = Ops()
    for first in range(0, count, _BATCH):
        here = min(_BATCH, count - first)
        raw = _exactly(read, place + first * OP_SIZE, here * OP_SIZE)
        for number, (stored, block, info) in enumerate(_OP.iter_unpack(raw)):
            at = place + (first + number) * OP_SIZE
            _check(header, stored, block, info, data, at)
            kind, source = info >> 60, info & _SOURCE
            kept = source if kind in ORDERED else 0
            ops.add(kind, block, kept, stored, data if kind in STORED else 0, info >> 57 & 7)
            data += stored
            if data > size:
                raise FormatError(f"{WHAT}: data up to byte {data}, the file has {size}", offset=at)
    return Cow(header, ops, COMPRESSIONS[header.compression], sequence, labels, data)


def _check(header: Header, stored: int, block: int, info: int, data: int, at: int) -> None:
    kind, factor, source = info >> 60, info >> 57 & 7, info & _SOURCE
    if kind not in (CowKind.COPY, CowKind.REPLACE, CowKind.ZERO, CowKind.XOR):
        raise UnsupportedError(f"{WHAT}: an operation of type {kind}", offset=at)
    if info >> 48 & 0x1FF:
        raise FormatError(f"{WHAT}: a source with bits above 48", offset=at)
    unit = header.block_size << factor
    if factor and (kind != CowKind.REPLACE or unit > max(header.unit_size, header.block_size)):
        raise FormatError(f"{WHAT}: an operation of type {kind} for {1 << factor} blocks", offset=at)
    if block + (1 << factor) > 1 << 32:
        raise FormatError(f"{WHAT}: {1 << factor} blocks from {block} on", offset=at)
    if kind in STORED:
        if not 0 < stored <= unit or (header.compression == 0 and stored != unit):
            raise FormatError(f"{WHAT}: {stored} bytes of data for {unit}", offset=at)
        if kind == CowKind.REPLACE and source != data:
            raise FormatError(f"{WHAT}: the data of block {block} at {source}, and not at {data}", offset=at)
    elif stored:
        raise FormatError(f"{WHAT}: an operation of type {kind} with data", offset=at)
    elif kind == CowKind.ZERO and source:
        raise FormatError(f"{WHAT}: zeros from {source}", offset=at)


def _exactly(read: Read, offset: int, count: int) -> bytes:
    data = read(offset, count)
    if len(data) < count:
        raise FormatError(f"{WHAT}: it ends at {offset + len(data)}, {offset + count} is needed", offset=offset)
    return data


def _numbers(raw: bytes) -> array[int]:
    numbers = array("I", raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


@dataclass(slots=True)
class Writer:
    """Writes a file of version 3, an operation at a time.

    write: takes (offset, bytes), in no order. header: with the room that operations will need, and the compression.
    order: the sequence. Call `finish` at the end; before that there is no header.
    """

    write: Write
    header: Header
    order: array[int]
    _ops: bytearray = field(default_factory=bytearray)
    _labels: list[tuple[int, int]] = field(default_factory=list)
    _data: int = 0

    def __post_init__(self) -> None:
        self._data = _places(self.header)[2]

    def copy(self, block: int, source: int) -> None:
        """source: number of the old block."""
        self._op(CowKind.COPY, block, source)

    def zero(self, block: int) -> None:
        self._op(CowKind.ZERO, block, 0)

    def replace(self, block: int, stored: Buffer, factor: int = 0) -> None:
        """2 to the power of `factor` blocks; stored: compressed, or as they are if that is not shorter."""
        self._op(CowKind.REPLACE, block, self._data, stored, factor)

    def xor(self, block: int, source: int, stored: Buffer) -> None:
        """source: byte offset in the old image; stored: what that and the new block differ in, as in `replace`."""
        self._op(CowKind.XOR, block, source, stored)

    def label(self, label: int) -> None:
        """Only the newest labels are kept."""
        self._labels = [*self._labels, (label, len(self._ops) // OP_SIZE)][-RESUME_ROOM:]

    def _op(self, kind: int, block: int, source: int, stored: Buffer = b"", factor: int = 0) -> None:
        if len(self._ops) >= self.header.op_room * OP_SIZE:
            raise ValueError(f"there is room for {self.header.op_room} operations")
        self._ops += _OP.pack(len(stored), block, source | factor << 57 | kind << 60)
        if stored:
            self.write(self._data, bytes(stored))
            self._data += len(stored)

    def finish(self) -> int:
        """Write the tables, and the header last; returns the size of the file in bytes."""
        from dataclasses import replace

        points, ops, _ = _places(self.header)
        order = array("I", self.order)
        if sys.byteorder == "big":
            order.byteswap()
        made = b"".join(_POINT.pack(*point) for point in self._labels)
        self.write(self.header.body, order.tobytes() + made.ljust(ops - points, b"\0"))
        self.write(ops, bytes(self._ops.ljust(self.header.op_room * OP_SIZE, b"\0")))
        header = replace(self.header, op_count=len(self._ops) // OP_SIZE, resume_points=len(self._labels))
        self.write(0, build_header(header) + bytes(header.buffer_size))
        return self._data
