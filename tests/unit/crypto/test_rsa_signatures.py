# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from pki import root, self_signed

from regraft.crypto import rsa
from regraft.crypto.trust import Trust
from regraft.errors import SignatureError, UsageError

CONTENT = b"software = {};\n"


@pytest.mark.parametrize("padding", ["rsa", "rsa-pss"])
def test_what_we_sign_we_accept(padding: rsa.Padding) -> None:
    signature = rsa.sign(CONTENT, root().private, padding)
    trust = Trust.load(root().public_pem)
    assert rsa.verify(signature, CONTENT, trust, padding).method == padding
    assert rsa.verify(signature, CONTENT, trust).method == padding


@pytest.mark.parametrize("padding", ["rsa", "rsa-pss", None])
def test_nothing_else_is_accepted(padding: rsa.Padding | None) -> None:
    trust = Trust.load(root().public_pem)
    signature = rsa.sign(CONTENT, root().private, padding or "rsa")
    wrong = [b"", b"\0", signature[:-1], signature + b"\0", bytes(256), signature[:-1] + bytes([signature[-1] ^ 1])]
    wrong.append(rsa.sign(CONTENT, self_signed().private, padding or "rsa"))
    for candidate in wrong:
        with pytest.raises(SignatureError):
            rsa.verify(candidate, CONTENT, trust, padding)
    with pytest.raises(SignatureError):
        rsa.verify(signature, CONTENT + b" ", trust, padding)


def test_one_padding_is_not_the_other() -> None:
    trust = Trust.load(root().public_pem)
    with pytest.raises(SignatureError):
        rsa.verify(rsa.sign(CONTENT, root().private, "rsa"), CONTENT, trust, "rsa-pss")
    with pytest.raises(SignatureError):
        rsa.verify(rsa.sign(CONTENT, root().private, "rsa-pss"), CONTENT, trust, "rsa")


def test_other_keys_make_no_bare_signatures() -> None:
    with pytest.raises(UsageError):
        rsa.sign(CONTENT, self_signed("p256").private)
    for trust in (Trust.load(self_signed("p256").public_pem), Trust.load(root().pem)):
        with pytest.raises(SignatureError, match="trusted RSA public key"):
            rsa.verify(b"x", CONTENT, trust)
