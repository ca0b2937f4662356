# SPDX-License-Identifier: Apache-2.0
"""The journal of a merge as bytes: what is whole counts, what is torn does not."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest

from regraft.errors import StateError
from regraft.formats import merge_state
from regraft.formats.merge_state import Columns, Record, State
from regraft.limits import DEFAULT

RECORD = Record(
    b"p" * 32, b"s" * 32, b"b" * 32, 5000, 70_000, sequence=7, state=State.JOURNALED, window=1, batch=3, length=60_000,
    digest=b"d" * 32, status=50, words="write slot at 5: Input/output error",
)  # fmt: skip
SCHEDULE = Columns(array("I", [3, 1, 0]), array("I", [0, 2, 3]), b"\1\0", b"\0\0\1\0", 4096)


def test_a_record_is_one_sector_and_survives_it() -> None:
    data = merge_state.build_record(RECORD)
    assert len(data) == merge_state.RECORD_SIZE == 512
    assert merge_state.parse_record(data) == RECORD


def test_every_flipped_bit_and_every_truncation_makes_it_none() -> None:
    data = merge_state.build_record(RECORD)
    for end in range(len(data)):
        assert merge_state.parse_record(data[:end]) is None
    for bit in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        assert merge_state.parse_record(wrong) is None


def test_words_are_cut_to_what_there_is_room_for() -> None:
    found = merge_state.parse_record(merge_state.build_record(replace(RECORD, words="é" * 1000)))
    assert found is not None
    assert set(found.words) == {"é"}


def test_a_window_longer_than_there_is_room_for_is_no_record() -> None:
    assert merge_state.parse_record(merge_state.build_record(replace(RECORD, length=70_001))) is None


def test_the_parts_of_the_journal_do_not_overlap() -> None:
    first, second = (replace(RECORD, window=window).window_at for window in (0, 1))
    assert first >= merge_state.SCHEDULE_AT + RECORD.schedule_length
    assert second >= first + RECORD.capacity
    assert RECORD.journal_size >= second + RECORD.capacity


def test_a_schedule_survives() -> None:
    assert merge_state.parse_schedule(merge_state.build_schedule(SCHEDULE)) == SCHEDULE


def test_bytes_that_are_no_schedule_are_refused() -> None:
    data = merge_state.build_schedule(SCHEDULE)
    for end in range(len(data)):
        with pytest.raises(StateError):
            merge_state.parse_schedule(data[:end])
    with pytest.raises(StateError):
        merge_state.parse_schedule(data + b"\0")
    for bit in range(8 * 24):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        if bit // 8 not in range(20, 24):  # which mean nothing
            with pytest.raises(StateError):
                merge_state.parse_schedule(wrong)


def test_more_rows_than_allowed_are_refused() -> None:
    with pytest.raises(StateError):
        merge_state.parse_schedule(merge_state.build_schedule(SCHEDULE), limits=replace(DEFAULT, chunks=3))
