# SPDX-License-Identifier: Apache-2.0
"""A server of static files with byte ranges, for demonstrations, tests and small fleets on a trusted network.

GET and HEAD; single and multiple ranges, If-Range, If-None-Match, strong ETags, connections kept alive. Nothing outside
its folder is served, whatever the path or symbolic links say.
"""

from __future__ import annotations

import html
import io
import itertools
import os
import socket
import socketserver
import stat
import threading
import time
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar, cast
from urllib.parse import quote, unquote

import regraft
from regraft.engine.ranges import Range
from regraft.limits import DEFAULT, Limits
from regraft.server.byteranges import UNSATISFIABLE, WHOLE, Selection, etag_matches, part_heads, select

_KINDS = {".html": "text/html", ".txt": "text/plain", ".json": "application/json"}
_SMALL = 64 << 10  # bytes up to which a range is read and sent together with others, instead of by sendfile
_BATCH = 256 << 10
_LISTED = 10_000  # entries of a folder


@dataclass(slots=True)
class Counts:
    """What was served so far. `body` in bytes of bodies, whether or not the client took all of them."""

    requests: int = 0
    body: int = 0


class StaticServer:
    """Serves the files in `folder`. `start` and `stop`, or use it as a context manager."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: Limits = DEFAULT,
        log: Any = None,
    ) -> None:
        self.root = os.path.realpath(folder)
        self.limits = limits
        self.counts = Counts()
        self.requests: list[str] = []  #: the last request lines' methods, paths and statuses
        self._lock = threading.Lock()
        self._log = log
        self._thread: threading.Thread | None = None
        self._server = _Server((host, port), self)

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        host, port = self._server.server_address[:2]
        name = host.decode() if isinstance(host, bytes) else str(host)
        return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"

    def __enter__(self) -> StaticServer:  # noqa: PYI034 - not meant for subclasses
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve from a thread of its own."""
        self._thread = threading.Thread(target=self.serve, name="regraft-serve", daemon=True)
        self._thread.start()

    def serve(self) -> None:
        """Serve until `stop` is called from another thread."""
        self._server.serve_forever(poll_interval=0.1)

    def stop(self) -> None:
        """End: no more requests, and open connections are closed."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.close_all()
        self._server.server_close()

    def note(self, line: str, status: int, body: int) -> None:
        """A request was answered."""
        with self._lock:
            self.counts.requests += 1
            self.counts.body += body
            self.requests.append(f"{line} {status}")
            del self.requests[:-1000]
        if self._log is not None:
            self._log(line, status, body)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    connections: ClassVar[int] = 256

    def __init__(self, address: tuple[str, int], owner: StaticServer) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.owner = owner
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            crowded = len(self._open) >= self.connections
            if not crowded:
                self._open.add(request)
        if crowded:
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_all(self) -> None:
        with self._open_lock:
            connections = list(self._open)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class _DeadlineReader(io.RawIOBase):
    """Reads from a socket until a moment, however many small pieces come."""

    def __init__(self, sock: socket.socket, patience: float) -> None:
        self._sock = sock
        self._patience = patience
        self._deadline = time.monotonic() + patience

    def extend(self) -> None:
        self._deadline = time.monotonic() + self._patience

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request did not come in time")
        self._sock.settimeout(left)
        return self._sock.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"regraft/{regraft.__version__}"
    sys_version = ""
    disable_nagle_algorithm = True
    _boundaries = itertools.count(1)

    def setup(self) -> None:
        super().setup()
        self.owner = cast(_Server, self.server).owner
        self._reader = _DeadlineReader(self.connection, self.owner.limits.idle_timeout)
        self.rfile = io.BufferedReader(self._reader, 16 << 10)

    def handle_one_request(self) -> None:
        self._reader.extend()
        super().handle_one_request()

    def do_GET(self) -> None:
        self._serve(send_body=True)

    def do_HEAD(self) -> None:
        self._serve(send_body=False)

    def log_message(self, *_: object) -> None:
        """Requests are reported by `note`."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        del message, explain
        self.request_version = self.protocol_version  # whatever came, the answer has a status line
        content = f"{code} {HTTPStatus(code).phrase}\n".encode()
        self.close_connection = self.close_connection or code >= 500 or code == 400
        self._head(code, [("Content-Type", "text/plain"), ("Content-Length", str(len(content)))])
        if self.command != "HEAD":
            self.wfile.write(content)
        self.owner.note(f"{self.command} {getattr(self, 'path', '?')}", code, len(content))

    def _head(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.connection.settimeout(self.owner.limits.idle_timeout)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _serve(self, *, send_body: bool) -> None:
        length = self.headers.get("content-length", "0")
        if length != "0" or "transfer-encoding" in self.headers:
            self.close_connection = True  # a body, which we do not read: what follows is no request
        path = self._resolve()
        if path is None:
            self.send_error(404)
            return
        try:
            # a pipe must not block us
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self.send_error(404)
            return
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and not self.path.partition("?")[0].endswith("/"):
            with open(descriptor, "rb", buffering=0) as file:
                self._serve_file(file, status, path, send_body=send_body)
            return
        os.close(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self._serve_listing(path, send_body=send_body)
        else:
            self.send_error(404)

    def _serve_listing(self, path: str, *, send_body: bool) -> None:
        name = self.path.partition("?")[0]
        if not name.endswith("/"):  # else its relative links would lead elsewhere
            self._head(301, [("Location", "/" + quote(unquote(name).strip("/")) + "/"), ("Content-Length", "0")])
            self._note(301, 0)
            return
        page = listing(path, unquote(name))
        self._head(200, [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(page)))])
        if send_body:
            self.wfile.write(page)
        self._note(200, len(page) if send_body else 0)

    def _resolve(self) -> str | None:
        """The real path behind the request's; None for what is not in the folder."""
        name = unquote(self.path.partition("?")[0].partition("#")[0], errors="surrogateescape")
        if not name.startswith("/") or "\0" in name or ".." in name.split("/"):
            return None
        path = os.path.realpath(os.path.join(self.owner.root, name.lstrip("/")))
        if os.path.commonpath((path, self.owner.root)) != self.owner.root:
            return None
        return path

    def _serve_file(self, file: Any, status: os.stat_result, path: str, *, send_body: bool) -> None:
        size = status.st_size
        etag = f'"{status.st_ino:x}-{size:x}-{status.st_mtime_ns:x}"'
        modified = formatdate(int(status.st_mtime), usegmt=True)
        common = [("Last-Modified", modified), ("ETag", etag), ("Accept-Ranges", "bytes")]
        if self._unchanged(etag, modified):
            self._note(304, 0)
            self._head(304, common)
            return
        selection = self._selection(size, etag, modified) if send_body else WHOLE
        kind = _KINDS.get(os.path.splitext(path)[1], "application/octet-stream")
        ranges, heads, tail = selection.ranges, [b""], b""
        if selection is UNSATISFIABLE:
            self._note(416, 0)
            self._head(416, [("Content-Range", f"bytes */{size}"), ("Content-Length", "0")])
            return
        if selection.status == 200:
            ranges = (Range(0, size),)
            common.append(("Content-Type", kind))
        elif len(ranges) == 1:
            common.append(("Content-Type", kind))
            common.append(("Content-Range", f"bytes {ranges[0].offset}-{ranges[0].end - 1}/{size}"))
        else:
            boundary = f"{next(self._boundaries):020d}"
            heads, tail = part_heads(ranges, size, kind, boundary)
            common.append(("Content-Type", f"multipart/byteranges; boundary={boundary}"))
        total = sum(map(len, heads)) + sum(span.length for span in ranges) + len(tail)
        common.append(("Content-Length", str(total)))
        # counted first: whoever has the answer finds it counted
        self._note(selection.status, total if send_body else 0)
        self._head(selection.status, common)
        if send_body:
            self._send(file, ranges, heads, tail)

    def _unchanged(self, etag: str, modified: str) -> bool:
        named = self.headers.get("if-none-match")
        if named is not None:
            return etag_matches(named, etag, weak=True)
        return self.headers.get("if-modified-since") == modified

    def _selection(self, size: int, etag: str, modified: str) -> Selection:
        condition = self.headers.get("if-range")
        if condition is not None and condition.strip() not in (etag, modified):
            return WHOLE
        return select(self.headers.get("range"), size, most=self.owner.limits.server_ranges)

    def _send(self, file: Any, ranges: tuple[Range, ...], heads: list[bytes], tail: bytes) -> None:
        """Send parts: small ones together, large ones by the kernel without a copy here."""
        pending = bytearray()
        for head, span in zip(heads, ranges, strict=True):
            pending += head
            if span.length <= _SMALL:
                content = os.pread(file.fileno(), span.length, span.offset)
                if len(content) != span.length:
                    raise ConnectionAbortedError("the file became shorter while it was sent")
                pending += content
            else:
                self._flush(pending)
                if self.connection.sendfile(file, span.offset, span.length) != span.length:
                    raise ConnectionAbortedError("the file became shorter while it was sent")
            if len(pending) >= _BATCH:
                self._flush(pending)
        pending += tail
        self._flush(pending)

    def _flush(self, pending: bytearray) -> None:
        if pending:
            self.connection.sendall(pending)
            pending.clear()

    def _note(self, status: int, body: int) -> None:
        self.owner.note(f"{self.command} {self.path}", status, body)


def listing(folder: str, name: str) -> bytes:
    """A minimal page that lists a folder. `name` is the request's path."""
    with os.scandir(folder) as entries:
        found = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in itertools.islice(entries, _LISTED))
    lines = [f'<li><a href="{quote(entry)}">{html.escape(entry)}</a></li>' for entry in found]
    title = html.escape(name)
    page = f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1><ul>{''.join(lines)}</ul>\n"
    return page.encode("utf-8", "surrogateescape")
