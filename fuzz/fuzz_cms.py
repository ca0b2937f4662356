# SPDX-License-Identifier: Apache-2.0
"""Any bytes as a signature, as a certificate and as a trust file."""

from __future__ import annotations

import contextlib

from _material import AT, CONTENT, ROOT, SIGNATURE, SIGNATURE_WITHOUT_ATTRIBUTES, SIGNER

from regraft.crypto.certificates import Certificate, to_pem
from regraft.crypto.cms import verify_detached
from regraft.crypto.trust import Trust
from regraft.errors import FormatError, RegraftError, SignatureError

TRUST = Trust((Certificate.parse(ROOT),))


def target(data: bytes) -> None:
    try:
        signer = verify_detached(data, CONTENT, TRUST, at=AT)
        if signer.name != "Fuzz signer":
            raise AssertionError(f"accepted: {signer}")
    except SignatureError:
        pass
    try:
        verify_detached(data, CONTENT + b" ", TRUST, at=AT)
        raise AssertionError("accepted over other content")
    except SignatureError:
        pass
    try:
        certificate = Certificate.parse(data)
        certificate.scheme()
        certificate.public_key()
    except (FormatError, SignatureError):
        pass
    with contextlib.suppress(RegraftError):
        Trust.load(data)


def seeds() -> list[bytes]:
    return [SIGNATURE, SIGNATURE_WITHOUT_ATTRIBUTES, SIGNER, ROOT, to_pem(Certificate.parse(ROOT)), b""]
