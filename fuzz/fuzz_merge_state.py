# SPDX-License-Identifier: Apache-2.0
"""Any bytes as a progress record and as the schedule of a merge, and a schedule with a sound head."""

from __future__ import annotations

import struct
import zlib
from array import array

from regraft.engine import order as ordering
from regraft.errors import RegraftError
from regraft.formats import merge_state
from regraft.model import Algorithm, Blob, Codec, Kind, Op, OpTable, Plan, Recipe, Units

_ROWS = 12


def _plan() -> Plan:
    table, units = OpTable(None), Units(Algorithm.SHA256)
    for row in range(_ROWS):
        unit = units.add(blob=0, codec=0, offset=8 * row, stored=8, length=8, digest=bytes(32))
        table.add(8, None, Op(Kind.COPY, at=8 * ((row + 5) % _ROWS)), Op(Kind.DATA, unit=unit))
    return Plan(Recipe(table, units, (Blob("blob"),), (Codec("none"),)), table, ("base",))


_PLAN = _plan()


def target(data: bytes) -> None:
    padded = data[: merge_state.RECORD_SIZE - 4].ljust(merge_state.RECORD_SIZE - 4, b"\0")
    for content in (data, padded + struct.pack("<I", zlib.crc32(padded))):
        record = merge_state.parse_record(content)
        if record is not None and merge_state.parse_record(merge_state.build_record(record)) != record:
            raise AssertionError("a record does not survive its way through bytes")
    for content in (data, _head(data)):
        try:
            ordering.load(content, _PLAN)
        except RegraftError:
            continue
        if merge_state.build_schedule(merge_state.parse_schedule(content))[24:] != content[24:]:
            raise AssertionError("a schedule does not survive its way through bytes")


def _head(data: bytes) -> bytes:
    """The data as the columns of a schedule of this plan, as far as they go."""
    written, batches = _ROWS, data[0] % 5 + 1 if data else 1
    head = struct.pack("<8sIIIIQ", merge_state.SCHEDULE_MAGIC, _ROWS, written, batches, 0, 64)
    size = 4 * written + 5 * batches + _ROWS
    return head + data[:size].ljust(size, b"\0")


def seeds() -> list[bytes]:
    schedule = ordering.order(_PLAN, window=40)
    built = schedule.build()
    record = merge_state.Record(bytes(32), bytes(32), bytes(32), len(built), 4096, words="why")
    free = merge_state.Columns(array("I"), array("I", [0]), b"", b"", 0)
    return [b"", built, built[32:], merge_state.build_record(record), merge_state.build_schedule(free)]
