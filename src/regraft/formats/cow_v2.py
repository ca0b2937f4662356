# SPDX-License-Identifier: Apache-2.0
"""Android's copy-on-write files, versions 1 and 2 (AOSP, fs_mgr/libsnapshot): operations among their data.

    op       type u8 · compression u8 · bytes of its data u16 · block u64 · source u64
    footer   op of type 255 with 64 bytes of data: bytes of all ops before it u64 · their number u64 · 0; then 64 zeros

Behind header and scratch area come clusters: slots for operations, then the data of those in use, the last of which is
a CLUSTER op that tells how far the next cluster is. Without clusters each op is followed by its data. Where the data of
a REPLACE is, its source says; of XOR it has to be added up. A SEQUENCE's data are numbers of blocks, u32 each, in the
order in which they must be merged. A file without a footer was never finished, and counts up to one of its LABELs.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from regraft.errors import FormatError, LimitError, UnsupportedError
from regraft.formats.android_cow import COMPRESSIONS, ORDERED, STORED, WHAT, Cow, CowKind, Header, Ops, build_header
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

_OP = struct.Struct("<BBHQQ")
OP_SIZE = 20
FOOTER_DATA = 64
SCRATCH = 2 << 20  #: bytes of the scratch area that snapuserd expects
CLUSTER_OPS = 1024
_WINDOW = 64 << 10

#: (offset, count): so many bytes from there; fewer where the file ends.
Read = Callable[[int, int], bytes]
Write = Callable[[int, bytes], None]


class _Slots:
    """Reads operations, some thousands at a time where they lie together."""

    def __init__(self, read: Read, window: int) -> None:
        self._read, self._size = read, max(window, OP_SIZE)
        self._at, self._window = 0, b""

    def op(self, position: int) -> tuple[int, int, int, int, int]:
        if not self._at <= position <= self._at + len(self._window) - OP_SIZE:
            self._at, self._window = position, self._read(position, self._size)
        if len(self._window) < OP_SIZE:
            raise FormatError(
                f"{WHAT}: it ends before its footer", offset=position,
                cure="the file was not finished: make it again, or give the label up to which it counts",
            )  # fmt: skip
        return _OP.unpack_from(self._window, position - self._at)


def parse(header: Header, read: Read, *, size: int, label: int | None = None, limits: Limits = DEFAULT) -> Cow:
    """All operations of a file of `size` bytes that has this header.

    label: the last label that counts, for a file that may have no footer. Raises FormatError unless everything lies
    where it should and the footer agrees; LimitError, UnsupportedError.
    """
    return _Scan(header, read, size, limits).run(label)


class _Scan:
    def __init__(self, header: Header, read: Read, size: int, limits: Limits) -> None:
        self._header, self._read, self._size, self._limits = header, read, size, limits
        self._slots = header.cluster_ops
        self._ops, self._sequence = Ops(), array("I")
        self._labels: list[tuple[int, int]] = []
        self._compression: int | None = None
        self._position = header.body
        self._start = header.body  # of the cluster
        self._data = header.body + (self._slots or 1) * OP_SIZE

    def run(self, label: int | None) -> Cow:
        window = min(self._slots * OP_SIZE, _WINDOW) if self._slots else _WINDOW
        slots = _Slots(self._read, window)
        count = 0
        while True:
            kind, compression, stored, block, source = slots.op(self._position)
            if self._slots and self._position - self._start >= self._slots * OP_SIZE:
                raise self._fail(f"more than {self._slots} operations in a cluster")
            if kind == CowKind.FOOTER:
                self._footer(count, stored, block, source)
                break
            if count >= self._limits.chunks:
                raise LimitError(f"{WHAT}: more than {self._limits.chunks} operations (limits.chunks)")
            count += 1
            self._take(kind, compression, stored, block, source)
            if kind == CowKind.LABEL and source == label:
                break
        self._trim(label)
        return Cow(
            self._header, self._ops, COMPRESSIONS[self._compression or 0], self._sequence, tuple(self._labels),
            max(self._data, self._position),
        )  # fmt: skip

    def _fail(self, cause: str) -> FormatError:
        return FormatError(f"{WHAT}: {cause}", offset=self._position)

    def _take(self, kind: int, compression: int, stored: int, block: int, source: int) -> None:
        if stored and self._data + stored > self._size:
            raise self._fail(f"{stored} bytes of data at {self._data}, the file has {self._size}")
        step = stored if kind in STORED and not self._slots else 0
        if kind == CowKind.CLUSTER:
            self._cluster(stored, source)
            return
        if kind == CowKind.SEQUENCE:
            self._numbers(stored, source)
        elif kind == CowKind.LABEL:
            if stored:
                raise self._fail("a label with data")
            self._labels.append((source, len(self._ops)))
        elif kind in (CowKind.COPY, CowKind.REPLACE, CowKind.ZERO, CowKind.XOR):
            self._op(kind, compression, stored, block, source)
        else:
            raise UnsupportedError(f"{WHAT}: an operation of type {kind}", offset=self._position)
        self._position += OP_SIZE + step
        self._data += stored + (0 if self._slots else OP_SIZE)

    def _op(self, kind: int, compression: int, stored: int, block: int, source: int) -> None:
        if block >> 32 or source >> 48:
            raise self._fail(f"block {block} from {source} is out of range")
        if kind in STORED:
            if compression >= len(COMPRESSIONS):
                raise UnsupportedError(f"{WHAT}: compression {compression} is not known", offset=self._position)
            if self._compression not in (None, compression):
                raise self._fail(f"compressions {self._compression} and {compression} in one file")
            if not stored:
                raise self._fail("stored bytes of a block are missing")
            if not compression and stored != self._header.block_size:
                raise self._fail(f"{stored} bytes for a block of {self._header.block_size}")
            self._compression = compression
        elif stored or compression:
            raise self._fail(f"an operation of type {kind} with data")
        if kind == CowKind.REPLACE and source != self._data:
            raise self._fail(f"the data of block {block} at {source}, and not at {self._data}")
        if kind == CowKind.ZERO and source:
            raise self._fail(f"zeros from {source}")
        kept = source if kind in ORDERED else 0
        self._ops.add(kind, block, kept, stored, self._data if kind in STORED else 0)

    def _numbers(self, stored: int, source: int) -> None:
        if not self._slots:
            raise UnsupportedError(f"{WHAT}: a sequence in a file without clusters", offset=self._position)
        if len(self._ops) or stored % 4 or source != self._data:
            raise self._fail(f"a sequence of {stored} bytes at {source} behind {len(self._ops)} operations")
        if len(self._sequence) + stored // 4 > self._limits.chunks:
            raise LimitError(f"{WHAT}: a sequence of more than {self._limits.chunks} blocks (limits.chunks)")
        data = self._read(source, stored)
        if len(data) < stored:
            raise self._fail("the file ends within the sequence")
        numbers = array("I", data)
        if sys.byteorder == "big":
            numbers.byteswap()
        self._sequence.extend(numbers)

    def _cluster(self, stored: int, source: int) -> None:
        self._position += OP_SIZE
        if not self._slots or stored or self._position + source != self._data:
            raise self._fail(f"the next cluster at {self._position + source}, the data of this one end at {self._data}")
        self._position = self._start = self._data
        self._data += self._slots * OP_SIZE

    def _footer(self, count: int, stored: int, size: int, found: int) -> None:
        if (stored, size, found) != (FOOTER_DATA, count * OP_SIZE, count):
            raise self._fail(f"a footer for {found} operations of {size} bytes, there are {count}")
        self._position += OP_SIZE
        data = self._read(self._position, FOOTER_DATA)
        if len(data) < FOOTER_DATA:
            raise self._fail("the file ends within its footer")
        self._position += FOOTER_DATA
        if self._slots:  # an open cluster has no data
            self._data = self._position

    def _trim(self, label: int | None) -> None:
        """Drop what comes behind the label."""
        if label is None:
            return
        places = [before for number, before in self._labels if number == label]
        if not places:
            raise FormatError(f"{WHAT}: there is no label {label}")
        for name in self._ops.__slots__:
            del getattr(self._ops, name)[places[-1] :]


@dataclass(slots=True)
class Writer:
    """Writes a file of version 2, an operation at a time, each where it belongs.

    write: takes (offset, bytes), in no order. compression: its number. Call `finish` at the end.
    """

    write: Write
    header: Header
    compression: int = 0
    _position: int = 0
    _start: int = 0
    _data: int = 0
    _first_data: int = 0
    _count: int = 0
    _pending: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.write(0, build_header(self.header) + bytes(self.header.buffer_size))
        self._begin(self.header.body)

    def _begin(self, position: int) -> None:
        self._position = self._start = position
        self._data = self._first_data = position + (self.header.cluster_ops or 1) * OP_SIZE

    def copy(self, block: int, source: int) -> None:
        """source: number of the old block."""
        self._op(CowKind.COPY, block, source)

    def zero(self, block: int) -> None:
        self._op(CowKind.ZERO, block, 0)

    def replace(self, block: int, stored: Buffer) -> None:
        """stored: compressed as the file's compression asks for."""
        self._op(CowKind.REPLACE, block, self._data, stored)

    def xor(self, block: int, source: int, stored: Buffer) -> None:
        """source: byte offset in the old image; stored: what that and the new block differ in, compressed."""
        self._op(CowKind.XOR, block, source, stored)

    def label(self, label: int) -> None:
        self._op(CowKind.LABEL, 0, label)

    def sequence(self, blocks: array[int]) -> None:
        """In which order blocks are to be merged; before all operations, and only in files with clusters."""
        if not self.header.cluster_ops:
            raise ValueError("a sequence needs clusters")
        step = 2 * self.header.block_size // 4
        for start in range(0, len(blocks), step):
            part = array("I", blocks[start : start + step])
            if sys.byteorder == "big":
                part.byteswap()
            self._op(CowKind.SEQUENCE, 0, self._data, part.tobytes())

    def _op(self, kind: int, block: int, source: int, stored: Buffer = b"") -> None:
        compression = self.compression if kind in STORED else 0
        self._put(_OP.pack(kind, compression, len(stored), block, source))
        if stored:
            self.write(self._data, bytes(stored))
            self._data += len(stored)
        if not self.header.cluster_ops:
            self._begin(self._data)
        elif self._position == self._start + (self.header.cluster_ops - 1) * OP_SIZE:
            self._close()

    def _put(self, op: bytes) -> None:
        self._pending += op
        self._position += OP_SIZE
        self._count += 1
        if not self.header.cluster_ops:
            self._flush()

    def _flush(self) -> None:
        self.write(self._position - len(self._pending), bytes(self._pending))
        self._pending.clear()

    def _close(self) -> None:
        """End the cluster."""
        after = self._position + OP_SIZE
        self._put(_OP.pack(CowKind.CLUSTER, 0, 0, 0, self._data - after))
        self._flush()
        self._begin(self._data)

    def finish(self) -> int:
        """Write the footer; returns the size of the file in bytes."""
        if self.header.cluster_ops:
            if self._data > self._first_data:
                unused = self._first_data - self._position - OP_SIZE
                self.write(self._position + OP_SIZE, bytes(unused))
                self._close()
            self._flush()
        size, count = self._count * OP_SIZE, self._count
        footer = _OP.pack(CowKind.FOOTER, 0, FOOTER_DATA, size, count)
        self.write(self._position, footer + bytes(FOOTER_DATA))
        return self._position + len(footer) + FOOTER_DATA
