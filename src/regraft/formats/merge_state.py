# SPDX-License-Identifier: Apache-2.0
"""The journal of a merge, as bytes: two progress records, the order of the work, two windows.

    0        record A, 512 bytes
    4096     record B
    8192     the schedule
    then     window 0 and window 1, each at a multiple of 4096

A record:

    magic 8 · sequence u64 · identity of the plan 32 · SHA-256 of the schedule 32 · identity of the base 32
    length of the schedule u64 · bytes of one window u64 · state u8 · window u8 · exit status u16
    next batch u32 · length in the window u64 · SHA-256 of it 32 · length of words u16 · words of the error
    zeros · CRC-32 of what is before it, at 508

The schedule:

    magic 8 · rows of the plan u32 · rows in order u32 · batches u32 · 0 u32 · bytes of a window u64
    row numbers in order u32 each · end of each batch u32 · kind of each batch u8 · operation of each row u8

All little-endian. Records alternate: the valid one with the greater sequence holds. State 0: batch `next batch` is to
be begun. State 1: it is a window that lies whole, row behind row, in `window`, and is being written from there. State
2: all is done and was read back. Kind 0 of a batch: direct, 1: a window.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from dataclasses import dataclass
from enum import IntEnum

from regraft.errors import StateError
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

MAGIC = b"RGMERGE\x01"
SCHEDULE_MAGIC = b"RGORDER\x01"
RECORD_SIZE = 512
ALIGNMENT = 4096
SCHEDULE_AT = 2 * ALIGNMENT

_RECORD = struct.Struct("<8sQ32s32s32sQQBBHIQ32sH")
_CRC_AT = RECORD_SIZE - 4
_WORDS = _CRC_AT - _RECORD.size
_SCHEDULE = struct.Struct("<8sIIIIQ")


class State(IntEnum):
    """How far a merge is, as recorded."""

    IDLE = 0
    JOURNALED = 1
    COMPLETE = 2


@dataclass(frozen=True, slots=True)
class Record:
    """A progress record; lengths in bytes. `status` is the exit status of the error that ended the last run, or 0."""

    plan: bytes
    schedule: bytes
    base: bytes
    schedule_length: int
    capacity: int
    sequence: int = 0
    state: State = State.IDLE
    window: int = 0
    batch: int = 0
    length: int = 0
    digest: bytes = bytes(32)
    status: int = 0
    words: str = ""

    @property
    def window_at(self) -> int:
        """Where the window lies in the journal."""
        return _aligned(SCHEDULE_AT + self.schedule_length) + self.window * _aligned(self.capacity)

    @property
    def journal_size(self) -> int:
        """What the journal takes as a whole."""
        return _aligned(SCHEDULE_AT + self.schedule_length) + 2 * _aligned(self.capacity)


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT


def build_record(record: Record) -> bytes:
    words = record.words.encode()[:_WORDS]
    data = _RECORD.pack(
        MAGIC, record.sequence, record.plan, record.schedule, record.base, record.schedule_length, record.capacity,
        record.state, record.window, record.status, record.batch, record.length, record.digest, len(words),
    )  # fmt: skip
    data = (data + words).ljust(_CRC_AT, b"\0")
    return data + struct.pack("<I", zlib.crc32(data))


def parse_record(data: Buffer) -> Record | None:
    """The record, or None if there is none: torn, never written, or not one."""
    data = bytes(data[:RECORD_SIZE])
    if len(data) < RECORD_SIZE or struct.unpack_from("<I", data, _CRC_AT)[0] != zlib.crc32(data[:_CRC_AT]):
        return None
    (
        magic, sequence, plan, schedule, base, schedule_length, capacity, state, window, status, batch, length, digest,
        count,
    ) = _RECORD.unpack_from(data)  # fmt: skip
    if magic != MAGIC or state > State.COMPLETE or window > 1 or length > capacity or count > _WORDS:
        return None
    words = data[_RECORD.size : _RECORD.size + count].decode(errors="ignore")
    return Record(
        plan, schedule, base, schedule_length, capacity, sequence, State(state), window, batch, length, digest, status,
        words,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Columns:
    """A schedule without the plan that it belongs to; arrays "I"."""

    rows: array[int]
    starts: array[int]
    journaled: bytes
    choice: bytes
    window: int


def build_schedule(columns: Columns) -> bytes:
    head = _SCHEDULE.pack(
        SCHEDULE_MAGIC, len(columns.choice), len(columns.rows), len(columns.journaled), 0, columns.window
    )
    return b"".join((head, _little(columns.rows), _little(columns.starts[1:]), columns.journaled, columns.choice))


def parse_schedule(data: Buffer, *, limits: Limits = DEFAULT) -> Columns:
    """Raises StateError for bytes that are no schedule. Whether the order is right is another question."""
    data = memoryview(data).cast("B")
    if len(data) < _SCHEDULE.size:
        raise StateError(f"a schedule of {len(data)} bytes")
    magic, rows, written, batches, _, window = _SCHEDULE.unpack_from(data)
    whole = _SCHEDULE.size + 4 * written + 5 * batches + rows
    if magic != SCHEDULE_MAGIC or len(data) != whole or max(rows, written, batches) > limits.chunks:
        raise StateError(f"{len(data)} bytes that are no schedule of {written} rows in {batches} batches")
    starts_at = _SCHEDULE.size + 4 * written
    kinds_at = starts_at + 4 * batches
    order = _words(data[_SCHEDULE.size : starts_at])
    starts = array("I", [0]) + _words(data[starts_at:kinds_at])
    return Columns(order, starts, bytes(data[kinds_at : kinds_at + batches]), bytes(data[kinds_at + batches :]), window)


def _words(data: memoryview) -> array[int]:
    words = array("I", bytes(data))
    if sys.byteorder == "big":
        words.byteswap()
    return words


def _little(words: array[int]) -> bytes:
    if sys.byteorder == "big":
        words = words[:]
        words.byteswap()
    return words.tobytes()
