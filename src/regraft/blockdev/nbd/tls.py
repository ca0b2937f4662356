# SPDX-License-Identifier: Apache-2.0
"""TLS for the server: X.509, at least 1.2 (doc/proto.md, "TLS support"; where TLS is set up it is required)."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from regraft.errors import UsageError


def server_context(certificate: str, key: str, *, clients: str = "") -> ssl.SSLContext:
    """From paths of PEM files: the server's chain and key, and the authorities of clients if these must be certified.

    Raises UsageError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    _load("certificate and key", certificate, lambda: context.load_cert_chain(certificate, key, password=""))
    if clients:
        _load("authorities of clients", clients, lambda: context.load_verify_locations(clients))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load(what: str, path: str, load: Callable[[], None]) -> None:
    try:
        load()
    except ssl.SSLError as error:
        raise UsageError(
            f"{what} {path}: {error.reason or error}", cure="give PEM files that belong together"
        ) from None
    except OSError as error:
        raise UsageError(f"{what} {path}: {error.strerror}", cure="check the path and its permissions") from None
