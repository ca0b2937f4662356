# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from regraft.engine.ranges import Range
from regraft.errors import ChangedError, TransportError
from regraft.transports.faults import Corrupt, ErrorAfter, Reorder, Stall

RANGES = [Range(at, 2) for at in range(0, 20, 2)]


class Plain:
    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Iterator[tuple[int, bytes]]:
        for position, wanted in enumerate(ranges):
            yield position, bytes(range(wanted.offset, wanted.end))


def test_error_after_so_many_and_then_no_more() -> None:
    source = ErrorAfter(Plain(), 3)
    results = source.fetch(RANGES)
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(TransportError):
        next(results)
    assert len(list(source.fetch(RANGES))) == 10


def test_error_of_choice() -> None:
    with pytest.raises(ChangedError):
        list(ErrorAfter(Plain(), 0, error=ChangedError("x")).fetch(RANGES))


def test_corruption_is_one_bit_of_the_named_ranges() -> None:
    good, bad = dict(Plain().fetch(RANGES)), dict(Corrupt(Plain(), {2, 5}, byte=1, bit=7).fetch(RANGES))
    assert [position for position in good if good[position] != bad[position]] == [2, 5]
    assert bad[2] == bytes([4, 5 ^ 128])


def test_stall() -> None:
    waits: list[float] = []
    list(Stall(Plain(), 4, 9.0, sleep=waits.append).fetch(RANGES))
    assert waits == [9.0]


def test_reorder_keeps_the_order_that_was_asked_for() -> None:
    assert [position for position, _ in Reorder(Plain(), 4).fetch(RANGES)] == [3, 2, 1, 0, 7, 6, 5, 4, 9, 8]
    assert [position for position, _ in Reorder(Plain(), 4).fetch(RANGES, ordered=True)] == list(range(10))
