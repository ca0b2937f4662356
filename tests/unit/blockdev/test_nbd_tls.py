# SPDX-License-Identifier: Apache-2.0
"""NBD over TLS: required where it is set up, with client certificates if wished."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pki
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from nbd_talk import ACK, GO, READ, STARTTLS, STRUCTURED, TLS_REQD, Client, PatternExport, go, option, request

from regraft.blockdev.nbd.handover import hand_over
from regraft.blockdev.nbd.server import Server, listen_tcp
from regraft.blockdev.nbd.tls import server_context
from regraft.errors import StateError, UsageError
from regraft.limits import Limits

MIB = 1 << 20
DISK = PatternExport()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PEM files of an authority, a server and a client, as libnbd wants them to be named."""
    path = tmp_path_factory.mktemp("tls")
    authority = pki.authority("NBD root", kind="p256")
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    server = pki.issue("server", authority, kind="p256", purposes=(pki.SERVER,), extra=((address, False),))
    client = pki.issue("client", authority, kind="p256", purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,))
    (path / "ca-cert.pem").write_bytes(authority.pem)
    for name, pair in (("server", server), ("client", client)):
        (path / f"{name}-cert.pem").write_bytes(pair.pem)
        (path / f"{name}-key.pem").write_bytes(pair.key_pem)
    return path


def context(folder: Path, *, clients: bool = False) -> ssl.SSLContext:
    authorities = str(folder / "ca-cert.pem") if clients else ""
    return server_context(str(folder / "server-cert.pem"), str(folder / "server-key.pem"), clients=authorities)


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server([DISK], [listen_tcp()], tls=context(folder), limits=Limits(nbd_handshake_time=2)) as server:
        yield server


def connected(server: Server) -> Client:
    return Client(socket.create_connection(server.listeners[0].getsockname()))


def upgraded(server: Server, folder: Path, *, certified: bool = False) -> Client:
    client = connected(server)
    client.greet()
    assert client.ask(GO, go(b""))[0][0] == TLS_REQD
    assert client.ask(STARTTLS) == [(ACK, b"")]
    settings = ssl.create_default_context(cafile=str(folder / "ca-cert.pem"))
    if certified:
        settings.load_cert_chain(str(folder / "client-cert.pem"), str(folder / "client-key.pem"))
    client.line = settings.wrap_socket(client.line, server_hostname="127.0.0.1")
    return client


def read(client: Client) -> None:
    assert client.ask(STRUCTURED) == [(ACK, b"")]
    assert client.ask(GO, go(b"disk"))[-1] == (ACK, b"")
    for at in (0, 7, 300_000):
        assert client.command(READ, at, 200_000).data(at, 200_000) == DISK.content[at : at + 200_000]
    client.say(request(READ, 0, MIB) * 20)
    for _ in range(20):
        assert client.answer().data(0, MIB) == DISK.content
    client.line.close()


def test_reading_over_tls(server: Server, folder: Path) -> None:
    read(upgraded(server, folder))


class Slow(PatternExport):
    """No read is ready, and each takes a moment."""

    def ready(self, offset: int, length: int) -> bool:
        return offset < 1000

    def read_into(self, offset: int, view: memoryview) -> None:
        time.sleep(0.0 if offset < 1000 else 0.01)
        super().read_into(offset, view)


def test_slow_reads_over_tls_while_requests_come(folder: Path) -> None:
    disk = Slow()
    with Server([disk], [listen_tcp()], tls=context(folder)) as server:
        client = upgraded(server, folder)
        assert client.ask(STRUCTURED) == [(ACK, b"")]
        assert client.ask(GO, go(b"disk"))[-1] == (ACK, b"")
        for turn in range(10):
            starts = {turn * 1000 + row: (turn * 1000 + row) * 37 % 700_000 for row in range(20)}
            for cookie, start in starts.items():
                client.say(request(READ, start, 70_000, cookie=cookie) + request(READ, 5, 50, cookie=cookie + 100_000))
            for _ in range(40):
                answer = client.answer()
                fast = answer.cookie >= 100_000
                start, length = (5, 50) if fast else (starts[answer.cookie], 70_000)
                assert answer.data(start, length) == disk.content[start : start + length]
        client.line.close()


def test_a_client_that_is_certified(folder: Path) -> None:
    with Server([DISK], [listen_tcp()], tls=context(folder, clients=True)) as server:
        read(upgraded(server, folder, certified=True))


def test_a_client_that_is_not_certified(folder: Path) -> None:
    words: list[str] = []
    with Server([DISK], [listen_tcp()], tls=context(folder, clients=True), report=words.append) as server:
        client = upgraded(server, folder)
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            read(client)
        client.line.close()
    assert words


def test_plaintext_behind_starttls_is_not_taken_for_secured(server: Server, folder: Path) -> None:
    client = connected(server)
    client.greet()
    client.say(option(STARTTLS) + option(GO, go(b"disk")))
    client.reply()
    assert client.ended()
    client.line.close()
    read(upgraded(server, folder))


@pytest.mark.parametrize("instead", [b"", b"\x16\x03\x01", b"GET / HTTP/1.0\r\n\r\n", bytes(1000)])
def test_a_client_that_does_not_go_on_with_tls(server: Server, folder: Path, instead: bytes) -> None:
    client = connected(server)
    client.greet()
    client.ask(STARTTLS)
    client.say(instead)
    assert client.ended()  # at once, or when the time of the handshake is over
    client.line.close()
    read(upgraded(server, folder))


def test_the_end_comes_while_tls_is_idle(server: Server, folder: Path) -> None:
    client = upgraded(server, folder)
    client.ask(GO, go(b"disk"))
    server.stop()
    assert client.ended()
    client.line.close()


def test_clients_within_tls_are_not_handed_over_but_closed(server: Server, folder: Path) -> None:
    client = upgraded(server, folder)
    client.ask(GO, go(b"disk"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    with pytest.raises(StateError):
        hand_over(server, ours)
    ours.close()
    assert client.ended()
    client.line.close()
    read(upgraded(server, folder))


def test_uris_name_the_scheme(server: Server) -> None:
    port = server.listeners[0].getsockname()[1]
    assert server.uris(DISK) == [f"nbds://127.0.0.1:{port}/disk"]


def test_files_that_are_not_what_they_should_be(folder: Path, tmp_path: Path) -> None:
    certificate, key = str(folder / "server-cert.pem"), str(folder / "server-key.pem")
    (tmp_path / "junk").write_bytes(b"junk")
    for arguments in (
        (certificate, str(folder / "client-key.pem")),
        (str(tmp_path / "junk"), key),
        (certificate, "no"),
    ):
        with pytest.raises(UsageError):
            server_context(*arguments)
    with pytest.raises(UsageError):
        server_context(certificate, key, clients=str(tmp_path / "junk"))
