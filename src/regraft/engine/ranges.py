# SPDX-License-Identifier: Apache-2.0
"""Byte ranges and the pure rule for joining them into requests."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

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
