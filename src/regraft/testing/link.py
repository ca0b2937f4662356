# SPDX-License-Identifier: Apache-2.0
"""A slow, long link on one machine: a TCP relay that delays and paces what passes through it.

All connections share the bandwidth, as they would share a line; a new one waits a round trip for its handshake.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import suppress

_PIECE = 16 << 10


class _Line:
    """One direction of the link. When a piece has passed is decided the moment it comes, for all connections."""

    def __init__(self, bandwidth: float) -> None:
        self._bandwidth = bandwidth
        self._lock = threading.Lock()
        self._free = 0.0
        self.bytes = 0

    def pass_(self, count: int) -> float:
        """When the last of `count` bytes has left, if they come now (seconds of the monotonic clock)."""
        with self._lock:
            self._free = max(time.monotonic(), self._free) + count / self._bandwidth
            self.bytes += count
            return self._free


class DelayedLink:
    """Relays connections to `target_host`:`port`; use as a context manager.

    Args:
        round_trip: in seconds, half of it in each direction.
        bandwidth: in bytes per second, in each direction.
    """

    def __init__(self, target_host: str, port: int, *, round_trip: float, bandwidth: float) -> None:
        self._target = (target_host, port)
        self._delay = round_trip / 2
        self._up, self._down = _Line(bandwidth), _Line(bandwidth)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self.connections = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def received(self) -> int:
        """Bytes that passed from the target to clients, headers included."""
        return self._down.bytes

    def __enter__(self) -> DelayedLink:  # noqa: PYI034 - not meant for subclasses
        threading.Thread(target=self._accept, name="delayed-link", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for end in self._sockets:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
                target = socket.create_connection(self._target)
            except OSError:
                return
            self.connections += 1
            with self._lock:
                self._sockets |= {client, target}
            for end in (client, target):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened = time.monotonic() + 2 * self._delay  # SYN and its answer
            done = threading.Semaphore(0)
            self._relay(client, target, self._up, opened, done)
            self._relay(target, client, self._down, opened, done)
            threading.Thread(target=self._retire, args=(client, target, done), daemon=True).start()

    def _relay(
        self, source: socket.socket, sink: socket.socket, line: _Line, opened: float, done: threading.Semaphore
    ) -> None:
        flying: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(source, flying, line, opened), daemon=True).start()
        threading.Thread(target=self._write, args=(sink, flying, done), daemon=True).start()

    def _read(
        self, source: socket.socket, flying: queue.SimpleQueue[tuple[float, bytes]], line: _Line, opened: float
    ) -> None:
        data = b"x"
        while data:
            try:
                data = source.recv(_PIECE)
            except OSError:
                data = b""
            left = max(line.pass_(len(data)), opened)
            flying.put((left + self._delay, data))
            _until(left)  # the sender's buffers fill up, as before a slow line

    def _write(
        self, sink: socket.socket, flying: queue.SimpleQueue[tuple[float, bytes]], done: threading.Semaphore
    ) -> None:
        with suppress(OSError):
            while True:
                when, data = flying.get()
                _until(when)
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    break
                sink.sendall(data)
        done.release()

    def _retire(self, client: socket.socket, target: socket.socket, done: threading.Semaphore) -> None:
        done.acquire()
        # a client that has gone must not leave the server sending; a server that has closed may still be read
        done.acquire(timeout=60)
        with self._lock:
            self._sockets -= {client, target}
        for end in (client, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _until(when: float) -> None:
    wait = when - time.monotonic()
    if wait > 0:
        time.sleep(wait)
