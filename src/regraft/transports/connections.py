# SPDX-License-Identifier: Apache-2.0
"""urllib3's connections, made so that another thread can end them at once; and its errors in our words."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ssl import SSLCertVerificationError
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from regraft.errors import StallError, TransportError
from regraft.limits import Limits

if TYPE_CHECKING:
    from regraft.transports.policy import Policy

_current = threading.local()


class Interrupted(Exception):  # noqa: N818 - not an error yet: it is tried again
    """A try failed in a way that may pass. `error` is what to raise in the end, `wait` what the server asks for."""

    def __init__(self, error: TransportError, wait: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


class _Handle:
    """A second descriptor of a connection's socket: it stays valid while TLS is wrapped around the first one."""

    __slots__ = ("_fd",)

    def __init__(self, sock: socket.socket) -> None:
        self._fd = os.dup(sock.fileno())

    def shut(self) -> None:
        twin = socket.socket(fileno=self._fd)
        with suppress(OSError):
            twin.shutdown(socket.SHUT_RDWR)
        twin.detach()

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            os.close(self._fd)


class Transfer:
    """One request and its answer. `abort` may be called from any thread, at any time, more than once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handle: _Handle | None = None
        self.aborted = False
        self.connecting = 0.0  #: seconds that making a new connection took

    def attach(self, handle: _Handle) -> None:
        with self._lock:
            self._handle = handle
            if self.aborted:
                handle.shut()

    def release(self) -> None:
        """The transfer has ended: its connection may serve another."""
        with self._lock:
            self._handle = None

    def abort(self) -> None:
        with self._lock:
            self.aborted = True
            if self._handle is not None:
                self._handle.shut()

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Connections that this thread uses meanwhile belong to this transfer."""
        _current.transfer = self
        try:
            yield
        finally:
            _current.transfer = None


class _Lines:
    """Passes lines on and keeps the last one."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self._file.readline(limit)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _WholeHead(http.client.HTTPResponse):
    """Refuses headers that the connection broke off: http.client takes an end of input for their end, and half a number
    for a number."""

    def begin(self) -> None:
        if getattr(self, "headers", None) is not None:
            return
        file = self.fp
        lines: Any = _Lines(file)
        self.fp = lines
        try:
            super().begin()
        finally:
            self.fp = file
        if lines.last not in (b"\r\n", b"\n"):
            raise http.client.RemoteDisconnected("the connection ended within the headers")


class _Watched(HTTPConnection):
    response_class = _WholeHead
    _handle: _Handle | None = None

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        self._handle = _Handle(sock)
        self._attach()
        return sock

    def connect(self) -> None:
        began = time.monotonic()
        super().connect()
        transfer: Transfer | None = getattr(_current, "transfer", None)
        if transfer is not None:
            transfer.connecting = time.monotonic() - began

    def request(self, *args: Any, **settings: Any) -> None:
        self._attach()
        super().request(*args, **settings)

    def close(self) -> None:
        self._handle = None
        super().close()

    def _attach(self) -> None:
        transfer: Transfer | None = getattr(_current, "transfer", None)
        if transfer is not None and self._handle is not None:
            transfer.attach(self._handle)


class _WatchedTls(_Watched, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTls


def make_manager(policy: Policy, limits: Limits, proxy: str | None) -> urllib3.PoolManager:
    """A pool of connections for `policy`, through `proxy` if given. Verifies certificates, always."""
    settings: dict[str, Any] = {
        "num_pools": 8,
        "maxsize": max(limits.connections, limits.chunk_connections),
        "retries": False,
        "timeout": urllib3.Timeout(connect=limits.connect_timeout, read=limits.idle_timeout),
        "cert_reqs": "CERT_REQUIRED",
        "ca_certs": policy.ca_file,
        "cert_file": policy.client_certificate,
        "key_file": policy.client_key,
    }
    manager: urllib3.PoolManager
    if proxy is None:
        manager = urllib3.PoolManager(**settings)
    else:
        location = urllib3.util.parse_url(proxy)
        headers = urllib3.make_headers(proxy_basic_auth=location.auth) if location.auth else None
        manager = urllib3.ProxyManager(location._replace(auth=None).url, proxy_headers=headers, **settings)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return manager


def translate(error: Exception, url: str) -> Exception:
    """What to raise for what urllib3, http.client or a socket raised: Interrupted, or an error that stays."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SSLCertVerificationError):
            return TransportError(
                f"{url}: the server's certificate is not trusted: {cause.verify_message or cause}",
                cure="check the device's clock, and give the authority's certificate if it is not a public one",
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, urllib3.exceptions.ReadTimeoutError | TimeoutError):
        return Interrupted(StallError(f"{url}: nothing arrived for too long"))
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return Interrupted(StallError(f"{url}: no connection in time"))
    if isinstance(error, urllib3.exceptions.LocationValueError | urllib3.exceptions.URLSchemeUnknown):
        return TransportError(f"{url}: {error}", cure="check the URL")
    return Interrupted(TransportError(f"{url}: {_words(error)}"))


def _words(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "..."


class Watchdog:
    """Ends transfers whose headers do not come in time. One thread, there only while something is guarded."""

    _linger = 5.0

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._guarded: dict[Transfer, float] = {}
        self._running = False
        self._closed = False

    @contextmanager
    def guard(self, transfer: Transfer, seconds: float) -> Iterator[None]:
        """Abort `transfer` when the block lasts longer than `seconds`."""
        with self._changed:
            self._guarded[transfer] = time.monotonic() + seconds
            if not self._running:
                self._running = True
                threading.Thread(target=self._watch, name="regraft-watchdog", daemon=True).start()
        try:
            yield
        finally:
            with self._changed:
                del self._guarded[transfer]

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _watch(self) -> None:
        idle_since = time.monotonic()
        with self._changed:
            while True:
                now = time.monotonic()
                if self._guarded:
                    idle_since = now
                elif self._closed or now - idle_since > self._linger:
                    self._running = False
                    return
                for transfer, deadline in self._guarded.items():
                    if deadline <= now:
                        transfer.abort()
                nearest = min(self._guarded.values(), default=now + self._linger)
                # a guard set meanwhile may end sooner: look at least once a second
                self._changed.wait(min(max(nearest - now, 0.05), 1.0))
