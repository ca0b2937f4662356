# SPDX-License-Identifier: Apache-2.0
"""The body of one answer, read in large pieces, watched for stalls, counted."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Self

from regraft.errors import StallError, TransportError
from regraft.limits import Limits
from regraft.transports.connections import Interrupted, Transfer, translate
from regraft.transports.headers import encoding_of, parse_length
from regraft.transports.measure import Meter

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

    from regraft.transports.fetcher import Pace
    from regraft.transports.policy import Location

#: Bytes read at once.
PIECE = 256 << 10
#: A rest of a body that is read to its end, so that the connection can be used again.
_WORTH_DRAINING = 64 << 10


class Response:
    """A status, headers (looked up in any case) and a body. Use as a context manager: it ends the transfer."""

    def __init__(
        self,
        raw: BaseHTTPResponse,
        location: Location,
        transfer: Transfer,
        limits: Limits,
        clock: Callable[[], float],
        meter: Meter,
        count: Callable[[int], None],
        pace: Pace | None = None,
    ) -> None:
        self._raw = raw
        self._transfer = transfer
        self._limits = limits
        self._clock = clock
        self._meter = meter
        self._count = count
        self._pace = pace
        self._open = True
        self.location = location
        self.status = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self.length = parse_length(raw.headers.get("content-length"))
        self.framed = self.length is not None or "chunked" in raw.headers.get("transfer-encoding", "").lower()
        self.received = 0  #: bytes of the body so far
        meter.begin(clock())
        self._window, self._window_bytes = clock(), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def encoding(self) -> str:
        return encoding_of(self.headers)

    def read(self) -> bytes:
        """What has arrived, up to PIECE bytes, waiting for at least one; b"" at the end. Raises Interrupted."""
        try:
            # a bound close to what is left saves the allocator from shrinking a large block for a small answer
            most = PIECE if self._pace is None else min(PIECE, self._pace.piece)
            left = most if self.length is None else min(most, self.length - self.received + 1)
            data = self._raw.read1(max(left, 1), decode_content=False)
        except Exception as error:
            raise translate(error, self.location.url) from error
        if not data:
            return b""
        now = self._clock()
        self.received += len(data)
        self._count(len(data))
        self._meter.received(len(data), now)
        self._window_bytes += len(data)
        if now - self._window >= self._limits.low_speed_time:
            if self._window_bytes < self._limits.low_speed * (now - self._window):
                raise Interrupted(
                    StallError(f"{self.location.url}: less than {self._limits.low_speed} bytes per second arrive")
                )
            self._window, self._window_bytes = now, 0
        if self._pace is not None:
            self._window += self._pace.wait(len(data))  # which is not the peer's time
        return data

    def resume(self) -> None:
        """Reading had to wait for us, not for the peer: that time does not count."""
        self._window, self._window_bytes = self._clock(), 0

    def plain(self) -> Iterator[bytes]:
        """The body in pieces of at most PIECE bytes with its Content-Encoding undone.

        Raises TransportError for an encoding that nobody asked for and we cannot undo, Interrupted.
        """
        encoding = self.encoding
        if not encoding:
            while data := self.read():
                yield data
            return
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise TransportError(
                f"{self.location.url} came with Content-Encoding {encoding[:40]!r}, which was not asked for",
                cure="switch off compression for this file at the server or its proxy",
            )
        decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            while data := self.read():
                while data and not decoder.eof:
                    plain = decoder.decompress(data, PIECE)
                    data = decoder.unconsumed_tail
                    if plain:
                        yield plain
        except zlib.error as error:
            raise Interrupted(TransportError(f"{self.location.url}: damaged {encoding} encoding: {error}")) from error
        while plain := decoder.decompress(decoder.unconsumed_tail, PIECE):
            yield plain
        if not decoder.eof:
            raise Interrupted(TransportError(f"{self.location.url}: the {encoding} encoding ends too soon"))

    def drain(self) -> None:
        """Read a short rest, so that the connection can be used again; nothing is lost when that fails."""
        if self.length is None or self.length - self.received > _WORTH_DRAINING:
            return
        try:
            while self.received < self.length and self.read():
                pass
        except (Interrupted, TransportError):
            return

    def close(self) -> None:
        """End the transfer; the connection is kept only if the whole body was read."""
        if not self._open:
            return
        self._open = False
        self._meter.end(self._clock())
        if self.length is None or self.received < self.length or self._transfer.aborted:
            self._raw.close()
        else:
            self._raw.drain_conn()  # reads nothing, but tells http.client so when the body is empty
        self._raw.release_conn()
        self._transfer.release()
