# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.engine.ranges import PART_OVERHEAD, Link, Range, Request, merge, plan_requests, shape
from regraft.limits import DEFAULT, MIB

LINK = Link(bandwidth=2.5e6, round_trip=0.1)


@st.composite
def sorted_ranges(draw: st.DrawFn) -> list[Range]:
    at = 0
    found = []
    for gap, length in draw(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 20_000)), max_size=60)):
        found.append(Range(at + gap, length))
        at += gap + length
    return found


def test_gaps_are_closed_when_they_are_small_enough() -> None:
    ranges = [Range(0, 10), Range(10, 5), Range(20, 5), Range(100, 5)]
    assert merge(ranges, 0, max_bytes=MIB) == [Range(0, 15), Range(20, 5), Range(100, 5)]
    assert merge(ranges, 5, max_bytes=MIB) == [Range(0, 25), Range(100, 5)]
    assert merge(ranges, 75, max_bytes=MIB) == [Range(0, 105)]


def test_spans_stay_below_the_maximum_but_for_a_single_range_above_it() -> None:
    assert merge([Range(0, 60), Range(60, 60), Range(120, 500)], 0, max_bytes=100) == [
        Range(0, 60),
        Range(60, 60),
        Range(120, 500),
    ]


def test_header_is_the_one_of_http() -> None:
    assert Request((Range(0, 1), Range(10, 5)), 6, 6).header == "bytes=0-0,10-14"


def test_one_range_per_request_joins_more_than_many() -> None:
    few, many = shape(LINK, 1), shape(LINK, 128)
    assert many.gap < 1000 < few.gap < LINK.gap
    assert many.gap >= PART_OVERHEAD


def test_requests_are_large_on_a_long_link_and_fit_into_the_buffer_together() -> None:
    assert shape(LINK, 128).max_bytes == MIB
    assert shape(Link(1e9, 0.1), 128).max_bytes == DEFAULT.buffer // DEFAULT.connections


@pytest.mark.parametrize("ranges", [[Range(5, 1), Range(0, 1)], [Range(0, 5), Range(4, 5)], [Range(0, 0)]])
def test_ranges_that_break_the_rules(ranges: list[Range]) -> None:
    with pytest.raises(ValueError):
        plan_requests(ranges, link=LINK, ranges_per_request=8)


@given(
    sorted_ranges(),
    st.integers(1, 40),
    st.integers(1, 60_000),
    st.integers(40, 400),
    st.floats(1e3, 1e8),
    st.floats(0, 2),
)
def test_requests_cover_what_is_wanted_in_order_and_within_limits(
    ranges: list[Range], per: int, size: int, header: int, bandwidth: float, trip: float
) -> None:
    limits = replace(DEFAULT, request_size=size, range_header=header)
    link = Link(bandwidth, trip)
    requests = plan_requests(ranges, link=link, ranges_per_request=per, limits=limits)
    spans = [span for request in requests for span in request.spans]
    assert all(a.end <= b.offset for a, b in itertools.pairwise(spans))
    for wanted in ranges:
        assert any(span.offset <= wanted.offset and wanted.end <= span.end for span in spans)
    assert sum(request.wanted for request in requests) == sum(wanted.length for wanted in ranges)
    for request in requests:
        assert request.total == sum(span.length for span in request.spans) >= request.wanted
        assert len(request.spans) <= per
        alone = len([w for w in ranges if request.spans[0].offset <= w.offset < request.spans[-1].end]) == 1
        assert alone or (request.total <= size and len(request.header) <= header + len("bytes="))
