# SPDX-License-Identifier: Apache-2.0
"""The journal as bytes: what is whole counts, what is torn does not."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import pytest

from regraft.errors import StateError
from regraft.formats import journal
from regraft.limits import DEFAULT

IDENTITY = bytes(range(32))
HEADER = journal.build_header(IDENTITY, 100)
FIRST, SECOND = journal.build_record([(0, 3), (10, 5)]), journal.build_record([(99, 1)])
WHOLE = HEADER + FIRST + SECOND


def finished(data: bytes) -> list[int]:
    flags, _ = journal.parse(data, IDENTITY, 100)
    return [row for row, flag in enumerate(flags) if flag]


def test_records_add_up() -> None:
    assert finished(HEADER) == []
    assert finished(HEADER + FIRST) == [0, 1, 2, 10, 11, 12, 13, 14]
    assert finished(WHOLE) == [0, 1, 2, 10, 11, 12, 13, 14, 99]
    assert journal.parse(WHOLE, IDENTITY, 100)[1] == len(WHOLE)


def test_the_layout_is_this() -> None:
    assert HEADER[:8] == b"RGJRNL\0\1"
    assert HEADER[8:48] == IDENTITY + struct.pack("<Q", 100)
    assert struct.pack("<I", zlib.crc32(HEADER[:48])) == HEADER[48:]
    assert SECOND[:20] == struct.pack("<IQQ", 1, 99, 1)


def test_a_torn_tail_is_the_state_of_a_moment_earlier() -> None:
    for end in range(len(HEADER), len(WHOLE) + 1):
        flags, valid = journal.parse(WHOLE[:end], IDENTITY, 100)
        records = (end >= len(HEADER) + len(FIRST)) + (end == len(WHOLE))
        assert sum(flags) == [0, 8, 9][records]
        assert valid == [len(HEADER), len(HEADER + FIRST), len(WHOLE)][records]


def test_every_flipped_bit_costs_records_and_never_adds_one() -> None:
    everything = set(finished(WHOLE))
    for bit in range(8 * len(WHOLE)):
        data = bytearray(WHOLE)
        data[bit // 8] ^= 1 << bit % 8
        if bit // 8 < len(HEADER):
            with pytest.raises(StateError):
                finished(bytes(data))
        else:
            assert set(finished(bytes(data))) < everything


@pytest.mark.parametrize("end", range(len(HEADER)))
def test_without_a_whole_header_it_is_no_journal(end: int) -> None:
    with pytest.raises(StateError):
        finished(WHOLE[:end])


@pytest.mark.parametrize(("identity", "rows"), [(bytes(32), 100), (IDENTITY, 99)])
def test_the_journal_of_another_update_is_refused(identity: bytes, rows: int) -> None:
    with pytest.raises(StateError, match="another update"):
        journal.parse(WHOLE, identity, rows)


@pytest.mark.parametrize("run", [(100, 1), (99, 2), (0, 1 << 63), ((1 << 64) - 1, 1), (1 << 63, 1 << 63)])
def test_rows_that_are_not_there(run: tuple[int, int]) -> None:
    with pytest.raises(StateError, match="does not have"):
        finished(HEADER + journal.build_record([run]))


def test_a_count_that_lies_ends_it() -> None:
    assert finished(WHOLE + struct.pack("<I", 0xFFFFFFFF) + bytes(64)) == finished(WHOLE)


def test_a_journal_above_the_limit_is_refused() -> None:
    with pytest.raises(StateError, match="more than"):
        journal.parse(WHOLE, IDENTITY, 100, limits=replace(DEFAULT, journal_size=len(WHOLE) - 1))
