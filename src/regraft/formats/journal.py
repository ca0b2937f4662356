# SPDX-License-Identifier: Apache-2.0
"""The journal of finished rows, as bytes: a header that names the work, then records that are only ever appended.

    header   magic 8 · identity of the recipe 32 · rows u64 · CRC-32 of these u32
    record   count u32 · count x (first row u64, rows u64) · CRC-32 of these u32

All little-endian. A record counts only if all of it is there: a torn or missing tail is the state of a moment earlier.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from regraft.errors import StateError
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

MAGIC = b"RGJRNL\x00\x01"
HEADER_SIZE = 8 + 32 + 8 + 4

Runs = Sequence[tuple[int, int]]  #: (first row, number of rows)


def build_header(identity: bytes, rows: int) -> bytes:
    """`identity`: 32 bytes that name the recipe."""
    head = MAGIC + struct.pack("<32sQ", identity, rows)
    return head + struct.pack("<I", zlib.crc32(head))


def build_record(runs: Runs) -> bytes:
    record = struct.pack(f"<I{2 * len(runs)}Q", len(runs), *(number for run in runs for number in run))
    return record + struct.pack("<I", zlib.crc32(record))


def parse(data: Buffer, identity: bytes, rows: int, *, limits: Limits = DEFAULT) -> tuple[bytearray, int]:
    """(a flag per row: 1 if finished, length of the valid part in bytes).

    Raises StateError if this is not the journal of that recipe. A damaged tail is cut off: a power cut leaves one.
    """
    if len(data) > limits.journal_size:
        raise StateError(f"a journal of {len(data)} bytes, more than {limits.journal_size}")
    view = memoryview(data).cast("B")
    if bytes(view[:HEADER_SIZE]) != build_header(identity, rows):
        raise StateError("the journal belongs to another update")
    finished = bytearray(rows)
    position = HEADER_SIZE
    while True:
        if position + 8 > len(view):
            break
        (count,) = struct.unpack_from("<I", view, position)
        end = position + 4 + 16 * count
        if count > rows or end + 4 > len(view):
            break
        if struct.unpack_from("<I", view, end)[0] != zlib.crc32(view[position:end]):
            break
        numbers = struct.unpack_from(f"<{2 * count}Q", view, position + 4)
        for first, number in zip(numbers[::2], numbers[1::2], strict=True):
            if first + number > rows:
                raise StateError("the journal names rows that the update does not have")
            finished[first : first + number] = b"\1" * number
        position = end + 4
    return finished, position
