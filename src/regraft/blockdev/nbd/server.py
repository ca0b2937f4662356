# SPDX-License-Identifier: Apache-2.0
"""The server: listens, gives every client a thread, and ends in good order."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from urllib.parse import quote

from regraft.blockdev.export import Export
from regraft.blockdev.nbd.connection import Asked, Connection
from regraft.blockdev.nbd.exports import Exports, Session
from regraft.blockdev.nbd.requests import Remains
from regraft.blockdev.nbd.slow import Workers
from regraft.errors import BusyError, UsageError
from regraft.limits import DEFAULT, Limits

_BACKLOG = 64


def listen_tcp(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A listening socket; port 0 picks a free one. Raises UsageError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        words = error.strerror or str(error)
        cure = "give another --host or --port"
        raise UsageError(f"cannot listen on {host} port {port}: {words}", cure=cure) from None


def listen_unix(path: str) -> socket.socket:
    """A listening socket that only this user may connect to. One that a dead server left is replaced.

    Raises BusyError if a living one serves there, UsageError if the path cannot be used.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_dead(path)
        os.fchmod(listener.fileno(), 0o600)  # before it has a name: there is no moment in which others may
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise UsageError(f"cannot listen on {path}: {error.strerror or error}", cure="give another --socket") from None
    except BusyError:
        listener.close()
        raise
    return listener


def _remove_dead(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # bind() will tell that it is in the way
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise
            os.unlink(path)
            return
    raise BusyError(f"a server listens on {path} already", cure="stop it, or give another --socket")


class Server:
    """Serves exports to any number of clients, each in a thread. Use it as a context manager, or `start` and `stop`.

    `report` is called, from any thread, with a sentence for each fault of a client and each read that failed.
    """

    def __init__(
        self,
        exports: Iterable[Export],
        listeners: Iterable[socket.socket] = (),
        *,
        tls: ssl.SSLContext | None = None,
        report: Callable[[str], None] = lambda _: None,
        limits: Limits = DEFAULT,
    ) -> None:
        """Takes over the listening sockets. With `tls`, clients are told nothing before they have upgraded."""
        self.exports = Exports(exports)
        self.listeners = list(listeners)
        self._tls = tls
        self._report = report
        self._limits = limits
        self._workers = Workers(limits)
        self._lock = threading.Lock()
        self._threads: dict[Connection, threading.Thread] = {}
        self._acceptor: threading.Thread | None = None
        self._wake, self._alarm = socket.socketpair()

    def __enter__(self) -> Server:  # noqa: PYI034 - not meant for subclasses
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def clients(self) -> int:
        """How many are connected."""
        with self._lock:
            return len(self._threads)

    def uris(self, export: Export) -> list[str]:
        """Where an export is found, one for each listening socket, as the NBD project's doc/uri.md writes it."""
        return [_uri(listener, export.name, tls=self._tls is not None) for listener in self.listeners]

    def start(self) -> None:
        """Accept clients, in a thread of its own."""
        self._acceptor = threading.Thread(target=self._accept, name="regraft-nbd", daemon=True)
        self._acceptor.start()

    def serve(self, client: socket.socket) -> Connection:
        """Serve a client that is connected already, e.g. by a socket pair, from the greeting on."""
        return self._begin(self._connection(client))

    def adopt(self, client: socket.socket, session: Session, remains: Remains | None = None) -> Connection:
        """Serve a client whose handshake took place elsewhere, or was not needed: the kernel's."""
        return self._begin(self._connection(client, session, remains))

    def stop(self, timeout: float = 5.0) -> None:
        """Accept no more, answer what was asked, close; clients that take longer than `timeout` seconds are cut off."""
        self._stop_accepting()
        for listener in self.listeners:
            _close_listener(listener)
        self.listeners.clear()
        self._finish(Asked.STOP, timeout)
        self._workers.close()
        self._wake.close()
        self._alarm.close()

    def rest(self, timeout: float = 5.0) -> list[Connection]:
        """Accept no more and let all clients come to rest: those given back can go on here, by `go_on`, or elsewhere.

        Clients within TLS or still in the handshake are closed, and so are those that are not done in time.
        """
        self._stop_accepting()
        with self._lock:
            all_of_them = list(self._threads)
        self._finish(Asked.REST, timeout)
        return [connection for connection in all_of_them if connection.resting]

    def go_on(self, connections: Iterable[Connection]) -> None:
        """Take up again what `rest` has stopped."""
        for connection in connections:
            connection.ask(Asked.SERVE)
            self._begin(connection)
        self.start()

    def abandon(self) -> None:
        """Let the listening sockets go, without removing their paths: another process has them."""
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()

    def _connection(
        self, client: socket.socket, session: Session | None = None, remains: Remains | None = None
    ) -> Connection:
        return Connection(
            client,
            self.exports,
            tls=self._tls,
            workers=self._workers,
            report=self._report,
            limits=self._limits,
            session=session,
            remains=remains,
        )

    def _begin(self, connection: Connection) -> Connection:
        thread = threading.Thread(target=self._run, args=(connection,), name="regraft-nbd-client", daemon=True)
        with self._lock:
            self._threads[connection] = thread
        thread.start()
        return connection

    def _run(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            with self._lock:
                self._threads.pop(connection, None)

    def _accept(self) -> None:
        poll = select.poll()
        by_descriptor = {listener.fileno(): listener for listener in self.listeners}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        poll.register(self._wake.fileno(), select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                listener = by_descriptor.get(descriptor)
                if listener is None:
                    return
                self._accept_one(listener)

    def _accept_one(self, listener: socket.socket) -> None:
        listener.setblocking(False)  # the client may have gone since
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        except OSError as error:
            self._report(f"no client could be accepted: {error.strerror}")
            time.sleep(0.1)  # without descriptors, waiting is all that helps
            return
        if self.clients >= self._limits.nbd_connections:
            self._report(f"a client was turned away: {self._limits.nbd_connections} are connected")
            client.close()
            return
        try:
            self.serve(client)
        except (OSError, RuntimeError) as error:  # it is gone already, or no thread can be had
            self._report(f"a client could not be served: {error}")
            client.close()

    def _stop_accepting(self) -> None:
        if self._acceptor is not None:
            self._alarm.send(b"\0")
            self._acceptor.join()
            self._wake.recv(1)
            self._acceptor = None

    def _finish(self, asked: Asked, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._lock:
            threads = dict(self._threads)
        for connection in threads:
            connection.ask(asked, deadline)
        for connection, thread in threads.items():
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                connection.abort()
                thread.join(1.0)


def _close_listener(listener: socket.socket) -> None:
    path = listener.getsockname() if listener.family == socket.AF_UNIX else ""
    listener.close()
    if path and isinstance(path, str):
        with suppress(OSError):
            os.unlink(path)


def _uri(listener: socket.socket, name: str, *, tls: bool) -> str:
    scheme = "nbds" if tls else "nbd"
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"{scheme}+unix:///{quote(name, safe='')}?socket={quote(os.path.abspath(address))}"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{scheme}://{host}:{address[1]}/{quote(name, safe='')}"
