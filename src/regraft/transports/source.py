# SPDX-License-Identifier: Apache-2.0
"""A file behind a URL: its identity, what its server can do, and the way to its ranges."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.engine.ranges import Link, Range
from regraft.errors import ChangedError
from regraft.model.buffers import Buffer
from regraft.transports.headers import Validator, parse_content_range
from regraft.transports.ladder import Answer, Level, step

if TYPE_CHECKING:
    from regraft.transports.connections import Transfer
    from regraft.transports.fetcher import Fetcher
    from regraft.transports.policy import Location
    from regraft.transports.response import Response

# with credentials or a signature in its URL, the place that a redirect led to may stop to serve before the first one
_PLACE_IS_STALE = frozenset((401, 403, 404, 410))


@dataclass(slots=True)
class Stats:
    """What the fetching of one file has cost so far. `bytes` of bodies as they came over the wire."""

    bytes: int = 0
    requests: int = 0
    retries: int = 0
    level: Level = Level.MANY
    link: Link | None = None


class UrlSource:
    """A RangeSource over HTTP. Made by `Fetcher.open`. Several threads may fetch at once."""

    def __init__(self, fetcher: Fetcher, origin: Location, size: int | None) -> None:
        self.fetcher = fetcher
        self.origin = origin
        self._lock = threading.Lock()
        self._place = origin
        self._validator = Validator()
        self._size = size
        self._stats = Stats()
        known = fetcher.hosts.recall(origin.origin, fetcher.timing.wall())
        self._level = known.level if known is not None else Level.MANY
        self._proved = known is not None
        self._meter = fetcher.meter(origin)

    @property
    def url(self) -> str:
        return self.origin.url

    @property
    def size(self) -> int | None:
        """Of the file, in bytes; None until an answer has told."""
        return self._size

    @property
    def etag(self) -> str:
        """The file's ETag with its quotes, "" if there is none or no answer has told yet."""
        return self._validator.etag

    @property
    def link(self) -> Link:
        """The link as measured, or as assumed until then."""
        return self._meter.link

    @property
    def stats(self) -> Stats:
        """A copy of the figures so far."""
        with self._lock:
            now = self._stats
            return Stats(now.bytes, now.requests, now.retries, self._level, self._meter.link)

    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
        """See RangeSource.fetch. At most `limits.buffer` bytes are in flight, plus one request.

        Raises TransportError and its kinds, ChangedError when the file is not the one that was begun with, LimitError
        for a range above `limits.stored_size`, ValueError for ranges that are not sorted or overlap.
        """
        from regraft.transports.run import Run

        run = Run(self, ranges, ordered)
        try:
            yield from run.results()
        finally:
            run.close()

    # for Run

    @property
    def level(self) -> Level:
        return self._level

    @property
    def proved(self) -> bool:
        """Whether it is known what the server does with ranges."""
        return self._proved

    @property
    def if_range(self) -> str:
        return self._validator.if_range

    def request(self, headers: dict[str, str], transfer: Transfer) -> Response:
        """One GET with these headers, from where redirects led last time. Raises Interrupted, TransportError."""
        with self._lock:
            self._stats.requests += 1
            place = self._place
        try:
            response = self.fetcher.exchange(self.origin, place, headers, transfer, self._count)
        except Exception:
            self._place = self.origin
            raise
        if response.status in _PLACE_IS_STALE and place != self.origin:
            response.close()
            self._place = place = self.origin
            response = self.fetcher.exchange(self.origin, place, headers, transfer, self._count)
        if response.status < 300:
            self._place = response.location
        return response

    def _count(self, received: int) -> None:
        with self._lock:
            self._stats.bytes += received

    def count_retry(self) -> None:
        with self._lock:
            self._stats.retries += 1

    def identify(self, response: Response) -> None:
        """Compare what a 200 or 206 answer says of the file with what is known, and learn. Raises ChangedError."""
        found = Validator.of(response.headers)
        if response.encoding:
            found = Validator(modified=found.modified)  # the ETag is that of the compressed form
        total = None
        if (
            response.status == 206
            and "content-range" in response.headers
            and "boundary" not in (response.headers.get("content-type", "").lower())
        ):
            total = parse_content_range(response.headers["content-range"]).total
        elif response.status == 200 and not response.encoding:
            total = response.length
        with self._lock:
            why = self._validator.contradicts(found)
            if not why:
                self._validator = Validator(
                    self._validator.etag or found.etag,
                    self._validator.strong or (found.strong and not self._validator.etag),
                    self._validator.modified or found.modified,
                )
        if why:
            raise ChangedError(f"{self.url} changed while it was read: {why}")
        if total is not None:
            self.learn_size(total)

    def learn_size(self, total: int) -> None:
        """Raises ChangedError when the file was of another size before."""
        with self._lock:
            if self._size is None:
                self._size = total
            size = self._size
        if size != total:
            raise ChangedError(f"{self.url} has {total} bytes, expected {size}")

    def prove(self) -> None:
        """The server has answered a request for ranges in kind."""
        if not self._proved:
            self._proved = True
            self._remember()

    def stepped(self, level: Level, spans: int, answer: Answer) -> bool:
        """Tell the ladder of an answer to a request made on `level`; whether another rung is stood on now."""
        with self._lock:
            before = self._level
            self._level = min(before, step(level, spans, answer))
            changed = self._level < level
        if changed:
            self._proved = True
            self._remember()
        return changed

    def _remember(self) -> None:
        link = self._meter.link if self._meter.measured else None
        self.fetcher.hosts.note(self.origin.origin, self._level, link, self.fetcher.timing.wall())

    def finish(self) -> None:
        """A run has ended: keep what was measured."""
        if self._proved and self._meter.measured:
            self._remember()
