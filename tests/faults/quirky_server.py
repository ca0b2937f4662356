# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server on loopback that answers each request as a script says, down to the last byte."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

Span = tuple[int, int]


class Exchange:
    """One request, and the means to answer it. `number` counts requests from 0; `spans` are (start, end)."""

    def __init__(self, server: QuirkyServer, sock: socket.socket, number: int, head: bytes) -> None:
        self.server = server
        self.sock = sock
        self.number = number
        lines = head.decode("latin-1").split("\r\n")
        self.path = lines[0].split(" ")[1]
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        found = self.headers.get("range", "")
        self.spans: list[Span] = [(int(a), int(b) + 1) for a, b in re.findall(r"(\d+)-(\d+)", found)]
        self.keep = True

    @property
    def content(self) -> bytes:
        return self.server.content

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reply(self, status: int, headers: Sequence[str] = (), body: bytes = b"", *, length: int | None = None) -> None:
        """A whole answer; `length` is what Content-Length says, if not the truth."""
        if not any(header.lower().startswith("transfer-encoding") for header in headers):
            headers = [*headers, f"Content-Length: {len(body) if length is None else length}"]
        self.send(f"HTTP/1.1 {status} X\r\n".encode() + "".join(f"{h}\r\n" for h in headers).encode() + b"\r\n" + body)

    def whole(self, *headers: str) -> None:
        self.reply(200, headers, self.content)

    def single(self, span: Span, *headers: str) -> None:
        start, end = span
        self.reply(206, [content_range(self, span), *headers], self.content[start:end])

    def multipart(
        self,
        spans: Sequence[Span] | None = None,
        *headers: str,
        boundary: str = "0123",
        kind: str = "multipart/byteranges; boundary=0123",
        end: str = "\r\n",
    ) -> None:
        body = multipart_body(self, self.spans if spans is None else spans, boundary=boundary, end=end)
        self.reply(206, [f"Content-Type: {kind}", *headers], body)

    def good(self, *headers: str) -> None:
        """As a flawless server would."""
        if not self.spans:
            self.whole(*headers)
        elif len(self.spans) == 1:
            self.single(self.spans[0], *headers)
        else:
            self.multipart(None, *headers)

    def close(self) -> None:
        self.keep = False


def content_range(exchange: Exchange, span: Span) -> str:
    return f"Content-Range: bytes {span[0]}-{span[1] - 1}/{len(exchange.content)}"


def multipart_body(exchange: Exchange, spans: Sequence[Span], *, boundary: str = "0123", end: str = "\r\n") -> bytes:
    body = bytearray()
    for span in spans:
        head = f"{end}--{boundary}{end}Content-Type: application/octet-stream{end}{content_range(exchange, span)}"
        body += f"{head}{end}{end}".encode() + exchange.content[slice(*span)]
    return bytes(body + f"{end}--{boundary}--{end}".encode())


Script = Callable[[Exchange], None]


class QuirkyServer:
    """Serves `content` as `script` says. Use as a context manager."""

    def __init__(self, content: bytes, script: Script = Exchange.good) -> None:
        self.content = content
        self.script = script
        self.log: list[Exchange] = []
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.released = threading.Event()  #: set at the end: for scripts that stall
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._sockets.add(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError), sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader = sock.makefile("rb")
            keep = True
            with reader:
                while keep:
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        line = reader.readline()
                        if not line:
                            return
                        head += line
                    with self._lock:
                        exchange = Exchange(self, sock, len(self.log), head[:-4])
                        self.log.append(exchange)
                    self.script(exchange)
                    keep = exchange.keep
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._sockets.discard(sock)
