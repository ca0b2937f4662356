# SPDX-License-Identifier: Apache-2.0
"""A store of chunk files behind a URL: a plain GET for each, as casync and desync ask for them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from regraft.errors import RegraftError, StatusError, TransportError
from regraft.model.buffers import Buffer

if TYPE_CHECKING:
    from regraft.transports.connections import Transfer
    from regraft.transports.fetcher import Fetcher

#: Statuses that say, of one of the names that a chunk may have, that it lies under another one. Stores that nobody may
#: list answer 403 for what is not there.
_NOT_HERE = (403, 404, 410)


class UrlStore:
    """A ReadStore over HTTP. Which of a chunk's names are in use is learnt: it is asked for first from then on."""

    def __init__(self, fetcher: Fetcher, url: str) -> None:
        """Asks nothing yet. Raises UsageError or PolicyError for a URL that may not be asked."""
        self.location = fetcher.policy.admit(url).url
        self.received = 0  #: bytes of bodies so far, as they came over the wire
        self._fetcher, self._url = fetcher, urlsplit(url)
        self._lock = threading.Lock()
        self._active: set[Transfer] = set()
        self._usual = 0  # the place in `paths` of the name under which the last chunk was
        self._runs = 0  # raised by `abort`: reads that began before are not tried again

    def read(self, paths: Sequence[str], maximum: int) -> Buffer | None:
        """See ReadStore.read. Raises StatusError when the server refuses all names of the chunk."""
        usual = self._usual if self._usual < len(paths) else 0
        refused: StatusError | None = None
        for number in (usual, *(number for number in range(len(paths)) if number != usual)):
            try:
                content = self._get(self._place(paths[number]), maximum)
            except StatusError as error:
                if error.status not in _NOT_HERE:
                    raise
                if error.status == 403:
                    refused = error
                continue
            self._usual = number
            return content
        if refused is not None:
            raise refused
        return None

    def absent(self, paths: Sequence[str]) -> RegraftError:
        return StatusError(
            f"{self._place(paths[0], shown=True)} answered 404: the chunk is not in this store",
            status=404,
            cure="name the stores that have the chunks with --store; else the publisher has not uploaded all of them",
        )

    def abort(self) -> None:
        with self._lock:
            self._runs += 1
            active = list(self._active)
        for transfer in active:
            transfer.abort()

    def _place(self, path: str, *, shown: bool = False) -> str:
        base = urlsplit(self.location) if shown else self._url
        return urlunsplit(base._replace(path=f"{base.path.rstrip('/')}/{path}"))

    def _get(self, url: str, maximum: int) -> bytes:
        run = self._runs
        mine: set[Transfer] = set()

        def begin(transfer: Transfer) -> None:
            with self._lock:
                if self._runs != run:
                    raise TransportError(f"{self.location}: the reading was ended")
                mine.add(transfer)
                self._active.add(transfer)

        try:
            return self._fetcher.get(url, maximum, begin=begin, count=self._count)
        finally:
            with self._lock:
                self._active -= mine

    def _count(self, received: int) -> None:
        with self._lock:
            self.received += received
