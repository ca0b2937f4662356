# SPDX-License-Identifier: Apache-2.0
"""Bare RSA signatures with SHA-256, as `openssl dgst -sha256 -sign` makes them and SWUpdate's RSA modes take them."""

from __future__ import annotations

import hashlib
from typing import Literal, TypeAlias

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from regraft.crypto import algorithms
from regraft.crypto.algorithms import PrivateKey, Scheme
from regraft.crypto.signer import Signer
from regraft.crypto.trust import Trust
from regraft.errors import SignatureError, UsageError

Padding: TypeAlias = Literal["rsa", "rsa-pss"]


def verify(signature: bytes, content: bytes, trust: Trust, padding: Padding | None = None) -> Signer:
    """Verify `signature` over `content` with the trusted public key.

    `padding` is PKCS#1 v1.5 (`rsa`) or PSS with a salt of any length (`rsa-pss`); None takes either.
    Raises SignatureError.
    """
    key = trust.public_key
    if not isinstance(key, rsa.RSAPublicKey):
        raise SignatureError(
            "an RSA signature needs a trusted RSA public key", cure="give it with -k (openssl rsa -in key.pem -pubout)"
        )
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    tries: tuple[Padding, ...] = (padding,) if padding else ("rsa", "rsa-pss")
    for position, kind in enumerate(tries, 1):
        scheme = Scheme(kind, "sha256")
        try:
            algorithms.verify(key, scheme, signature, content, "the signature")
        except SignatureError:
            if position == len(tries):
                raise
        else:
            return Signer(method=kind, scheme=str(scheme), key=hashlib.sha256(spki).hexdigest())
    raise SignatureError("no way to verify the signature was given")


def sign(content: bytes, key: PrivateKey, padding: Padding = "rsa") -> bytes:
    """The signature of `content`; PSS takes the longest salt. Raises UsageError for a key of another kind."""
    if not isinstance(key, rsa.RSAPrivateKey):
        raise UsageError("a bare signature needs an RSA key", cure="give an RSA key, or a certificate to sign with CMS")
    return algorithms.sign(key, Scheme(padding, "sha256"), content)
