# SPDX-License-Identifier: Apache-2.0
"""The proof that a verification succeeded. Only the verifying functions of this package make one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed. `method` is e.g. `cms`, `rsa`, `rsa-pss`; `key` the SHA-256 of the certificate or public key, in hex.

    For a certificate: `name` is its common name, `subject` and `anchor` the names at both ends of the chain, and
    `signing_time` is what the signer claims. A bare key has none of these.
    """

    method: str
    scheme: str
    key: str
    name: str = ""
    subject: str = ""
    anchor: str = ""
    signing_time: datetime | None = None

    def __str__(self) -> str:
        return f"{self.subject or 'key ' + self.key[:16]} ({self.method}, {self.scheme})"
