# SPDX-License-Identifier: Apache-2.0
"""Byte ranges and the pure rule for joining them into requests."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from regraft.limits import DEFAULT, MIB, Limits
from regraft.model.buffers import Buffer


class Range(NamedTuple):
    """`length` bytes from `offset`."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


class RangeSource(Protocol):
    """Stored bytes that can be read in ranges: a local file or a file behind a URL."""

    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
        """Yield (position in `ranges`, exactly the bytes of that range), each position once.

        `ranges` are sorted by offset and do not overlap. With `ordered` they come in that order, else as they arrive.
        Yielded as soon as complete, so that nothing that arrived is lost when the process dies. The bytes are
        unverified. Closing the iterator ends all transfers. Raises TransportError or SourceError.
        """


@dataclass(frozen=True, slots=True)
class Link:
    """What a request costs: `bandwidth` in bytes per second, `round_trip` in seconds."""

    bandwidth: float
    round_trip: float

    @property
    def gap(self) -> int:
        """Unwanted bytes that cost as much as one more round trip."""
        return int(self.bandwidth * self.round_trip)


#: Bytes that one more part of a multipart answer costs: its headers, and its share of the Range header.
PART_OVERHEAD = 160


@dataclass(frozen=True, slots=True)
class Request:
    """One request: `spans` are asked for, in order; `wanted` bytes of their `total` are of use."""

    spans: tuple[Range, ...]
    wanted: int
    total: int

    @property
    def header(self) -> str:
        """The value of the Range header (RFC 9110 section 14.2)."""
        return "bytes=" + ",".join(f"{span.offset}-{span.end - 1}" for span in self.spans)


@dataclass(frozen=True, slots=True)
class Shape:
    """How requests are cut: see `shape`. Sizes in bytes, `max_header` in characters."""

    gap: int
    max_spans: int
    max_bytes: int
    max_header: int


def shape(link: Link, ranges_per_request: int, limits: Limits = DEFAULT) -> Shape:
    """The shape of requests that keeps `link` busy, when the server takes `ranges_per_request` ranges at once.

    Unwanted bytes between two wanted ranges are fetched when that costs less than asking for another span: the
    headers of a part and the span's share of a round trip, which `limits.connections` requests in flight share. A
    request is so large that the others in flight outlast its round trip, and so small that all of them fit into
    `limits.buffer`.
    """
    connections = max(1, limits.connections)
    spans = max(1, min(ranges_per_request, limits.ranges_per_request))
    cap = min(limits.request_size, max(1, limits.buffer // connections))
    return Shape(
        gap=PART_OVERHEAD + link.gap // (spans * connections),
        max_spans=spans,
        max_bytes=min(cap, max(MIB, 4 * link.gap)),
        max_header=limits.range_header,
    )


class Gathering:
    """Collects wanted ranges, in order of offset, into one request until the next does not fit any more."""

    __slots__ = ("_header", "_shape", "_spans", "_total", "_wanted")

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._spans: list[Range] = []
        self._wanted = self._total = self._header = 0

    def add(self, wanted: Range) -> bool:
        """Take `wanted`, or leave all as it was and return False. The first range is always taken.

        Raises ValueError when it begins before the end of the last one, or is empty.
        """
        if wanted.length <= 0:
            raise ValueError(f"empty range at byte {wanted.offset}")
        if not self._spans:
            self._begin(wanted)
            return True
        last = self._spans[-1]
        gap = wanted.offset - last.end
        if gap < 0:
            raise ValueError(f"range at byte {wanted.offset} begins before the end of the one before, {last.end}")
        if gap <= self._shape.gap:
            if self._total + gap + wanted.length > self._shape.max_bytes:
                return False
            self._spans[-1] = Range(last.offset, last.length + gap + wanted.length)
            self._total += gap + wanted.length
            self._wanted += wanted.length
            return True
        if (
            len(self._spans) >= self._shape.max_spans
            or self._total + wanted.length > self._shape.max_bytes
            or self._header + _characters(wanted) > self._shape.max_header
        ):
            return False
        self._begin(wanted)
        return True

    def _begin(self, wanted: Range) -> None:
        self._spans.append(wanted)
        self._wanted += wanted.length
        self._total += wanted.length
        self._header += _characters(wanted)

    def request(self) -> Request:
        """The request as collected so far."""
        return Request(tuple(self._spans), self._wanted, self._total)


def _characters(span: Range) -> int:
    # an upper bound that stays one when the span grows: its end has at most one digit more after any merge
    return len(str(span.offset)) + len(str(span.end)) + 3


def merge(ranges: Iterable[Range], gap: int, *, max_bytes: int) -> list[Range]:
    """Join sorted ranges that do not overlap into spans of at most `max_bytes`, over gaps of at most `gap` bytes.

    A single range above `max_bytes` stays whole. Raises ValueError for ranges that are unsorted, overlap or are empty.
    """
    rules = Shape(gap, 1, max_bytes, 1 << 16)
    return [request.spans[0] for request in _gather(ranges, rules)]


def plan_requests(
    ranges: Iterable[Range], *, link: Link, ranges_per_request: int, limits: Limits = DEFAULT
) -> list[Request]:
    """The requests that fetch `ranges` (sorted, not overlapping, not empty) over `link`, in order of offset.

    No request has more than `ranges_per_request` spans, `limits.request_size` bytes (unless it is one range larger
    than that) or `limits.range_header` characters. Raises ValueError when the ranges are not sorted, overlap or are
    empty.
    """
    return list(_gather(ranges, shape(link, ranges_per_request, limits)))


def _gather(ranges: Iterable[Range], rules: Shape) -> Iterator[Request]:
    gathering: Gathering | None = None
    end = 0
    for wanted in ranges:
        if wanted.offset < end:
            raise ValueError(f"range at byte {wanted.offset} begins before the end of the one before, {end}")
        end = wanted.end
        if gathering is not None and not gathering.add(wanted):
            yield gathering.request()
            gathering = None
        if gathering is None:
            gathering = Gathering(rules)
            gathering.add(wanted)
    if gathering is not None:
        yield gathering.request()
