# SPDX-License-Identifier: Apache-2.0
"""Where the chunk files of an artifact lie: the stores that were named, or the usual ones beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from regraft.cli._network import Network
from regraft.cli._options import Places
from regraft.cli._output import say
from regraft.engine.chunkcache import Cached, Check, Retrying
from regraft.engine.chunkstores import LOCAL_THREADS, LocalStore, ReadStore
from regraft.formats import caibx
from regraft.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from regraft.transports.chunkstore import UrlStore
    from regraft.transports.fetcher import Fetcher


@dataclass(frozen=True, slots=True)
class Stores:
    """Open stores. threads: for reading. remote: whether any is behind a URL. wire: bytes from those so far."""

    stores: Sequence[ReadStore]
    threads: int
    remote: bool
    wire: Callable[[], int]

    @property
    def location(self) -> str:
        """For messages."""
        return ", ".join(store.location for store in self.stores)


def is_url(location: str) -> bool:
    """Whether `location` is a URL and not a path."""
    return "://" in location


def folder_of(location: str) -> str:
    """The folder that the file at a path or URL lies in."""
    if not is_url(location):
        return os.path.dirname(location) or "."
    parts = urlsplit(location)
    return urlunsplit(parts._replace(path=parts.path.rpartition("/")[0]))


def default_stores(index: str) -> list[str]:
    """Where the chunks of the casync index at a path or URL are looked for: NAME.castr, then casync's default.castr.

    Of local ones, only those that are there, if any is.
    """
    parts = urlsplit(index) if is_url(index) else None
    path = parts.path if parts else index
    found = []
    if path.endswith(caibx.SUFFIX):
        found.append(path.removesuffix(caibx.SUFFIX) + caibx.STORE_SUFFIX)
    found.append(os.path.join(os.path.dirname(path), caibx.DEFAULT_STORE))
    if parts:
        return [urlunsplit(parts._replace(path=each)) for each in found]
    return [each for each in found if os.path.isdir(each)] or found


def open_stores(
    places: Places,
    usual: Sequence[str],
    check: Check,
    network: Network,
    stack: ExitStack,
    fetcher: Fetcher | None,
    limits: Limits = DEFAULT,
) -> Stores:
    """Open stores at paths and URLs, for as long as `stack` lasts. Asks and reads nothing yet.

    usual: where they are if `places` does not say. check: of what goes into a cache and comes out of it. fetcher: to
    be used for URLs; one is made if that is None and there are any.
    """
    opened: list[ReadStore] = []
    remote: list[UrlStore] = []
    for location in places.stores or usual:
        if not is_url(location):
            opened.append(_local(location))
            continue
        if fetcher is None:
            fetcher = stack.enter_context(network.connect(limits))
        remote.append(_remote(location, fetcher))
        opened.append(remote[-1])
    if places.cache is not None:
        cache = LocalStore(places.cache)
        opened = [Cached(store, cache, check, report=say) for store in opened]
    threads = network.limits(limits).chunk_connections if remote else LOCAL_THREADS
    return Stores(opened, threads, bool(remote), lambda: sum(store.received for store in remote))


def open_store_at(location: str, network: Network, stack: ExitStack) -> ReadStore:
    """A single store at a path or URL, for as long as `stack` lasts."""
    return _remote(location, stack.enter_context(network.connect())) if is_url(location) else _local(location)


def _local(location: str) -> ReadStore:
    return Retrying(LocalStore(location))


def _remote(location: str, fetcher: Fetcher) -> UrlStore:
    from regraft.transports.chunkstore import UrlStore

    return UrlStore(fetcher, location)
