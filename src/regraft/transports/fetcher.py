# SPDX-License-Identifier: Apache-2.0
"""The one way to the network: whole small files, and ranges of large ones."""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from regraft.engine.ranges import Link
from regraft.engine.throttle import Throttle
from regraft.errors import LimitError, RedirectError, StallError, TransportError
from regraft.limits import DEFAULT, Limits
from regraft.transports.hosts import HostMemory
from regraft.transports.measure import ASSUMED, Meter
from regraft.transports.policy import Location, Policy
from regraft.transports.statuses import asked_wait, backoff, may_pass, status_error

if TYPE_CHECKING:
    import urllib3

    from regraft.transports.connections import Transfer, Watchdog
    from regraft.transports.response import Response
    from regraft.transports.source import UrlSource

_REDIRECTS = frozenset((301, 302, 303, 307, 308))


@dataclass(frozen=True, slots=True)
class Timing:
    """Clock and chance, to be replaced in tests. Seconds; `wall` since 1970, `chance` in [0, 1)."""

    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random


class Pace:
    """Slows down all transfers of a Fetcher together, wherever their bytes go."""

    def __init__(self, rate: float, timing: Timing) -> None:
        """`rate` in bytes per second."""
        #: Bytes to ask for at once: a part of a second's, so that waiting is short and even.
        self.piece = max(int(rate / 8), 1 << 10)
        self._throttle, self._sleep = Throttle(rate, clock=timing.clock), timing.sleep
        self._lock = threading.Lock()

    def wait(self, count: int) -> float:
        """Wait until `count` more bytes were allowed to come; the seconds that this took."""
        with self._lock:
            seconds = self._throttle.wait(count)
        if seconds > 0:
            self._sleep(seconds)
        return seconds


class Fetcher:
    """Connections to servers, kept alive and shared by everything that is fetched. Thread-safe.

    Args:
        policy: what may be asked, and with which credentials.
        limits: the maxima; those of the section "transport" and `buffer`.
        hosts: what is known of hosts from earlier runs; updated as it is learnt.
        timing: clock and chance.
        rate: body bytes per second that all transfers together take at most, 0 for no limit.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        limits: Limits = DEFAULT,
        *,
        hosts: HostMemory | None = None,
        timing: Timing | None = None,
        rate: float = 0,
    ) -> None:
        self.policy = policy if policy is not None else Policy()
        self.limits = limits
        self.hosts = hosts if hosts is not None else HostMemory()
        self.timing = timing if timing is not None else Timing()
        self._pace = Pace(rate, self.timing) if rate > 0 else None
        self._lock = threading.Lock()
        self._managers: dict[str | None, urllib3.PoolManager] = {}
        self._meters: dict[str, Meter] = {}
        self._watchdog: Watchdog | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            managers, self._managers = self._managers, {}
            watchdog, self._watchdog = self._watchdog, None
        for manager in managers.values():
            manager.clear()
        if watchdog is not None:
            watchdog.close()

    def open(self, url: str, *, size: int | None = None) -> UrlSource:
        """The file behind `url`, to be read in ranges. Asks nothing yet. `size` in bytes, if it is known.

        Raises UsageError or PolicyError for a URL that may not be asked.
        """
        from regraft.transports.source import UrlSource

        return UrlSource(self, self.policy.admit(url), size)

    def get(
        self,
        url: str,
        maximum: int,
        *,
        begin: Callable[[Transfer], None] = lambda _: None,
        count: Callable[[int], None] = lambda _: None,
    ) -> bytes:
        """The whole file behind `url`, of at most `maximum` bytes.

        begin: told of the transfer of each try before it is made, so that it can be ended; may raise. count: told of
        the body's bytes as they arrive. Raises LimitError above `maximum`, TransportError and its kinds when the file
        cannot be had.
        """
        from regraft.transports.connections import Interrupted, Transfer

        origin = self.policy.admit(url)
        failures = 0
        while True:
            transfer = Transfer()
            begin(transfer)
            try:
                with self.exchange(origin, origin, {}, transfer, count) as response:
                    if response.status != 200:
                        raise self.refusal(response)
                    return self._whole(response, maximum)
            except Interrupted as stop:
                failures += 1
                if failures >= self.limits.retries:
                    raise gave_up(stop.error, failures) from stop
                self.timing.sleep(backoff(failures, self.timing.chance(), stop.wait, self.limits.retry_wait))

    def _whole(self, response: Response, maximum: int) -> bytes:
        content = io.BytesIO()
        length = 0 if response.encoding else response.length or 0
        if length <= maximum:  # else refused before a byte of it is read
            for piece in response.plain():
                content.write(piece)
                if content.tell() > maximum:
                    break
        if length > maximum or content.tell() > maximum:
            raise LimitError(
                f"{response.location.url} has more than {maximum} bytes",
                cure="check the URL: this does not look like the file that is wanted",
            )
        return content.getvalue()  # without a copy in CPython

    # for UrlSource

    def meter(self, location: Location) -> Meter:
        """Measurements of the link to a host, shared by all that is fetched from there."""
        with self._lock:
            if location.origin not in self._meters:
                known = self.hosts.recall(location.origin, self.timing.wall())
                self._meters[location.origin] = Meter((known.link if known else None) or ASSUMED)
            return self._meters[location.origin]

    def link(self, url: str) -> Link:
        """What is known or assumed of the link to the host of `url`."""
        return self.meter(self.policy.admit(url)).link

    def refusal(self, response: Response) -> Exception:
        """What to raise for an answer that is neither success nor about ranges."""
        from regraft.transports.connections import Interrupted

        error = status_error(response.status, response.location.url)
        if may_pass(response.status):
            return Interrupted(error, asked_wait(response.headers, self.timing.wall()))
        return error

    def exchange(
        self,
        origin: Location,
        start: Location,
        headers: dict[str, str],
        transfer: Transfer,
        count: Callable[[int], None],
    ) -> Response:
        """One GET of `start`, following redirects; secrets go to the server of `origin` only.

        `count` is told of the body's bytes as they arrive. Raises Interrupted, TransportError.
        """
        from regraft.transports.response import Response

        location = start
        meter = self.meter(origin)
        for _ in range(self.limits.redirects + 1):
            raw = self._ask(origin, location, headers, transfer, meter)
            response = Response(raw, location, transfer, self.limits, self.timing.clock, meter, count, self._pace)
            if response.status not in _REDIRECTS:
                return response
            with response:
                target = response.headers.get("location")
                response.drain()
            location = self.policy.follow(origin, location, target)
        raise RedirectError(f"{origin.url} redirects more than {self.limits.redirects} times, last to {location.url}")

    def _ask(
        self, origin: Location, location: Location, headers: dict[str, str], transfer: Transfer, meter: Meter
    ) -> urllib3.BaseHTTPResponse:
        from regraft.transports.connections import Interrupted, translate

        manager = self._manager(self.policy.proxy_for(location))
        # a trickle of header bytes never trips the idle time-out, so the whole head has one of its own
        patience = self.limits.connect_timeout + self.limits.idle_timeout
        try:
            with self._guard().guard(transfer, patience), transfer.bound():
                began = self.timing.clock()
                transfer.connecting = 0.0
                response = manager.urlopen(
                    "GET",
                    location.url,
                    headers={**self.policy.request_headers(origin, location), **headers},
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                )
                meter.answered(self.timing.clock() - began - transfer.connecting)
                return response
        except Exception as error:
            transfer.release()
            if transfer.aborted:
                raise Interrupted(StallError(f"{location.url}: no answer within {patience:.0f} seconds")) from error
            raise translate(error, location.url) from error

    def _manager(self, proxy: str | None) -> urllib3.PoolManager:
        from regraft.transports.connections import make_manager

        with self._lock:
            if proxy not in self._managers:
                self._managers[proxy] = make_manager(self.policy, self.limits, proxy)
            return self._managers[proxy]

    def _guard(self) -> Watchdog:
        from regraft.transports.connections import Watchdog

        with self._lock:
            if self._watchdog is None:
                self._watchdog = Watchdog()
            return self._watchdog


def gave_up(error: TransportError, tries: int) -> TransportError:
    """The same error with the number of tries in its words."""
    error.args = (f"{error} ({tries} tries)",)
    return error
