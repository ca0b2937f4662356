# SPDX-License-Identifier: Apache-2.0
"""Move all clients of a server, and its listening sockets, to another process; the clients notice nothing.

After the handshake a connection has no state but a `Session` and what remains of the stream of requests, so it is
enough to pass these, with the descriptor (unix(7), SCM_RIGHTS). Over a SOCK_SEQPACKET channel the old process sends one
JSON record per message: `begin`, then each `listener` and `connection` with its descriptor. The new one answers
`ready`; only when the old one then says `go` does it serve. Until there, either may fail: the old one goes on.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from regraft.blockdev.nbd.connection import Connection
from regraft.blockdev.nbd.exports import CONTEXTS, Session
from regraft.blockdev.nbd.protocol import REQUEST
from regraft.blockdev.nbd.requests import Remains
from regraft.blockdev.nbd.server import Server
from regraft.errors import FormatError, LimitError, StateError
from regraft.formats import strict_json

VERSION = 2
_RECORD = 192 << 10  # bytes of one record; requests that are not answered yet take most of it
_LISTENERS = 16
_CURE = "start the new server with the same exports and a matching version of regraft"


def hand_over(server: Server, channel: socket.socket, *, timeout: float = 10.0) -> int:
    """Give the clients of a running server away; the server is then idle. How many they were.

    Clients within TLS are closed (their keys cannot be moved), as are those in the handshake; they may come again.
    Raises StateError if the successor does not take over: the server then serves as before.
    """
    channel.settimeout(timeout)
    resting = server.rest(timeout)
    try:
        with _talking("the successor"):
            counts = {"listeners": len(server.listeners), "connections": len(resting)}
            _send(channel, {"kind": "begin", "version": VERSION, **counts})
            for listener in server.listeners:
                _send(channel, {"kind": "listener"}, listener)
            for connection in resting:
                _send(channel, _describe(connection), connection.socket)
            _expect(_receive(channel)[0], "ready")
            _send(channel, {"kind": "go"})
    except BaseException:  # whatever it was: clients that rest would never be answered
        server.go_on(resting)
        raise
    for connection in resting:
        connection.socket.close()
    server.abandon()
    return len(resting)


def take_over(server: Server, channel: socket.socket, *, timeout: float = 10.0) -> int:
    """Take the clients and listening sockets of a predecessor into a server not yet started, and start it.

    Gives how many clients they were. Raises StateError if the predecessor fails, or serves something else.
    """
    channel.settimeout(timeout)
    received: list[socket.socket] = []
    try:
        with _talking("the predecessor"):
            begin = _receive(channel)[0]
            _expect(begin, "begin")
            if begin.get("version") != VERSION:
                raise StateError(f"the predecessor hands over in version {begin.get('version')!r}", cure=_CURE)
            for _ in range(_number(begin, "listeners", _LISTENERS)):
                _expect(_receive_with(channel, received), "listener")
            listeners = list(received)
            sessions = [
                _understand(server, _receive_with(channel, received))
                for _ in range(_number(begin, "connections", 1 << 16))
            ]
            _send(channel, {"kind": "ready"})
            _expect(_receive(channel)[0], "go")
    except BaseException:
        for descriptor in received:
            descriptor.close()
        raise
    server.listeners += listeners
    for client, (session, remains) in zip(received[len(listeners) :], sessions, strict=True):
        server.adopt(client, session, remains)
    server.start()
    return len(sessions)


@contextmanager
def _talking(whom: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(f"{whom} is gone: {error.strerror or error}", cure="try again") from None
    except (FormatError, LimitError) as error:
        raise StateError(f"{whom} said what cannot be understood: {error}", cure=_CURE) from None


def _describe(connection: Connection) -> dict[str, Any]:
    session, remains = connection.session, connection.remains
    if session is None:
        raise StateError("a connection without a session cannot be handed over")
    return {
        "kind": "connection",
        "export": session.export.name,
        "size": session.export.size,
        "structured": session.structured,
        "contexts": list(session.contexts),
        "header": remains.header.hex(),
        "skip": remains.skip,
        "write": REQUEST.pack(*remains.write).hex() if remains.write else "",
        "unanswered": b"".join(REQUEST.pack(*request) for request in remains.unanswered).hex(),
    }


def _understand(server: Server, record: dict[str, Any]) -> tuple[Session, Remains]:
    _expect(record, "connection")
    export = next((export for export in server.exports if export.name == record.get("export")), None)
    if export is None or export.size != record.get("size"):
        raise StateError(f"a client of {record.get('export')!r}, which is not served here with this size", cure=_CURE)
    contexts = record.get("contexts")
    if not isinstance(contexts, list) or any(not isinstance(name, str) or name not in CONTEXTS for name in contexts):
        raise StateError("a client with unknown metadata contexts", cure=_CURE)
    header, write, unanswered = (_octets(record, name) for name in ("header", "write", "unanswered"))
    skip = _number(record, "skip", 0xFFFFFFFF)
    whole = len(write) in (0, REQUEST.size) and not len(unanswered) % REQUEST.size
    if len(header) >= REQUEST.size or not whole or bool(skip) > bool(write):
        raise StateError("a client in the middle of an impossible request", cure=_CURE)
    names = tuple(str(name) for name in contexts)
    session = Session(export, record.get("structured") is True, names)
    again = tuple(REQUEST.iter_unpack(unanswered))
    return session, Remains(header, skip, REQUEST.unpack(write) if write else None, again)


def _octets(record: dict[str, Any], name: str) -> bytes:
    try:
        return bytes.fromhex(record[name])
    except (KeyError, TypeError, ValueError):
        raise StateError(f"a record without hexadecimal {name!r}", cure=_CURE) from None


def _number(record: dict[str, Any], name: str, most: int) -> int:
    number = record.get(name)
    if type(number) is not int or not 0 <= number <= most:
        raise StateError(f"a record whose {name!r} is not a number up to {most}", cure=_CURE)
    return number


def _expect(record: dict[str, Any], kind: str) -> None:
    if record.get("kind") != kind:
        raise StateError(f"a record of the kind {record.get('kind')!r} where {kind!r} belongs", cure=_CURE)


def _send(channel: socket.socket, record: dict[str, Any], passed: socket.socket | None = None) -> None:
    descriptors = [passed.fileno()] if passed is not None else []
    socket.send_fds(channel, [json.dumps(record).encode()], descriptors)


def _receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, descriptors, _, _ = socket.recv_fds(channel, _RECORD, 4)
    try:
        if not data:
            raise StateError("the other side has closed", cure="try again")
        record = strict_json.parse(data)
        if not isinstance(record, dict):
            raise StateError("a record that is no object", cure=_CURE)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return record, descriptors


def _receive_with(channel: socket.socket, received: list[socket.socket]) -> dict[str, Any]:
    """A record with one descriptor, which is appended to `received`."""
    record, descriptors = _receive(channel)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
        received.append(socket.socket(fileno=descriptor))
    if len(descriptors) != 1:
        raise StateError(f"a record with {len(descriptors)} descriptors instead of one", cure=_CURE)
    return record
