# SPDX-License-Identifier: Apache-2.0
"""TLS is verified, always; and https never leads to http."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from regraft.errors import RedirectError, TransportError
from regraft.limits import DEFAULT
from regraft.transports.fetcher import Fetcher, Timing
from regraft.transports.policy import Policy

LIMITS = replace(DEFAULT, retries=2, idle_timeout=2.0, connect_timeout=2.0)


def certificate(folder: Path, name: str, *, address: str = "127.0.0.1", days: int = 30) -> Path:
    """A self-signed certificate and its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/down":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/f")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None: ...


@contextmanager
def https(pem: Path, *, clients: Path | None = None) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def get(url: str, **policy: object) -> bytes:
    with Fetcher(Policy(**policy), LIMITS, timing=Timing(sleep=lambda _: None)) as fetcher:  # type: ignore[arg-type]
        return fetcher.get(url, 100)


def test_a_trusted_server(tmp_path: Path) -> None:
    pem = certificate(tmp_path, "server")
    with https(pem) as url:
        assert get(url + "/f", ca_file=str(pem)) == b"hello"


def test_an_untrusted_expired_or_misnamed_server_is_refused_without_a_second_try(tmp_path: Path) -> None:
    other = certificate(tmp_path, "other")
    cases = [
        (certificate(tmp_path, "unknown"), None),
        (certificate(tmp_path, "wrong"), other),
        (expired := certificate(tmp_path, "expired", days=-1), expired),
        (misnamed := certificate(tmp_path, "misnamed", address="127.0.0.2"), misnamed),
    ]
    for pem, trusted in cases:
        with https(pem) as url, pytest.raises(TransportError) as caught:
            get(url + "/f", ca_file=str(trusted) if trusted else None)
        assert "certificate is not trusted" in str(caught.value)


def test_a_client_certificate(tmp_path: Path) -> None:
    pem, mine = certificate(tmp_path, "server"), certificate(tmp_path, "mine")
    with https(pem, clients=mine) as url:
        settings = {"ca_file": str(pem), "client_certificate": str(mine), "client_key": str(mine)}
        assert get(url + "/f", **settings) == b"hello"
        with pytest.raises(TransportError):
            get(url + "/f", ca_file=str(pem))


def test_https_never_leads_to_http(tmp_path: Path) -> None:
    pem = certificate(tmp_path, "server")
    with https(pem) as url, pytest.raises(RedirectError):
        get(url + "/down", ca_file=str(pem))


def test_a_missing_ca_file_is_said(tmp_path: Path) -> None:
    pem = certificate(tmp_path, "server")
    with https(pem) as url, pytest.raises(TransportError):
        get(url + "/f", ca_file=str(tmp_path / "nothing.pem"))
