# SPDX-License-Identifier: Apache-2.0
"""What a device trusts: the content of the file given with SWUpdate's `-k`. And private keys, for the signing side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from regraft.crypto.algorithms import PrivateKey, PublicKey, checked_key
from regraft.crypto.certificates import Certificate, pem_blocks
from regraft.errors import FormatError, LimitError, SignatureError, UsageError
from regraft.limits import DEFAULT, KIB, Limits

Purpose: TypeAlias = Literal["emailProtection", "codeSigning", "any"]
_FILE_SIZE = 16 * KIB  #: bytes a certificate or key takes in PEM, at most
_CURE = "give a PEM file with certificates (CMS) or one public key (RSA) with -k"


@dataclass(frozen=True, slots=True)
class Trust:
    """Either certificates or one public key, never both, never neither.

    Of the certificates, the self-signed ones are what a signer's chain must end in; the others help to get there. That
    is how stock SWUpdate takes the file: an intermediate or a leaf alone does not make a signature good.
    """

    certificates: tuple[Certificate, ...] = ()
    public_key: PublicKey | None = None

    def __post_init__(self) -> None:
        if bool(self.certificates) == (self.public_key is not None):
            raise FormatError("trust needs certificates or a public key, one of the two", cure=_CURE)

    @classmethod
    def load(cls, pem: bytes, *, limits: Limits = DEFAULT) -> Trust:
        """From one or more `CERTIFICATE` blocks, or one `PUBLIC KEY` block.

        Raises FormatError (nothing to trust in it, a private key, both kinds, damaged), LimitError, SignatureError (a
        key too weak to count).
        """
        if len(pem) > limits.certificates * _FILE_SIZE:
            raise LimitError(f"a trust file of {len(pem)} bytes (limit certificates: {limits.certificates})")
        certificates: list[Certificate] = []
        keys: list[PublicKey] = []
        for label, content in pem_blocks(pem):
            if label in ("CERTIFICATE", "X509 CERTIFICATE"):
                certificates.append(Certificate.parse(content))
            elif label in ("PUBLIC KEY", "RSA PUBLIC KEY"):
                keys.append(_public_key(content, label))
            elif "PRIVATE KEY" in label:
                raise FormatError(
                    "the trust file holds a private key, which must never be on a device",
                    cure="give the certificate or the public key instead (openssl rsa -in key.pem -pubout)",
                )
            else:
                raise FormatError(f"the trust file holds a {label!r}", cure=_CURE)
        if len(certificates) > limits.certificates:
            raise LimitError(f"the trust file has {len(certificates)} certificates (limit certificates)")
        if len(keys) > 1:
            raise FormatError("the trust file holds several public keys", cure=_CURE)
        return cls(tuple(certificates), keys[0] if keys else None)


def _public_key(content: bytes, label: str) -> PublicKey:
    try:
        if label == "PUBLIC KEY":
            return checked_key(serialization.load_der_public_key(content))
        return checked_key(serialization.load_der_public_key(_rsa_to_spki(content)))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FormatError(f"the public key in the trust file cannot be read: {error}", cure=_CURE) from None


def _rsa_to_spki(content: bytes) -> bytes:
    from regraft.crypto import der
    from regraft.crypto.algorithms import RSA_ENCRYPTION

    algorithm = der.encode(der.SEQUENCE, der.encode_object(RSA_ENCRYPTION), der.encode(der.NULL))
    return der.encode(der.SEQUENCE, algorithm, der.encode(der.BIT_STRING, b"\0", content))


def load_private_key(pem: bytes, password: bytes | None = None) -> PrivateKey:
    """A private key for signing: RSA of at least 2048 bits, ECDSA, or Ed25519.

    Raises UsageError (no key, a password missing or wrong, another kind), SignatureError (too weak).
    """
    try:
        key = serialization.load_pem_private_key(pem, password)
    except TypeError:
        words = "is not encrypted, but a password was given" if password is not None else "needs a password"
        raise UsageError(f"the private key {words}", cure="give the password file that belongs to the key") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"the private key cannot be read: {error}", cure="give a PEM private key") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise UsageError("the private key is neither RSA, ECDSA nor Ed25519", cure="sign with one of these")
    checked_key(key.public_key())
    return key


def load_certificate(pem: bytes) -> tuple[Certificate, tuple[Certificate, ...]]:
    """The signer's certificate, which comes first in the file, and the others. Raises UsageError, FormatError."""
    found = [Certificate.parse(content) for label, content in pem_blocks(pem) if label.endswith("CERTIFICATE")]
    if not found:
        raise UsageError("there is no certificate in the file", cure="give a PEM certificate with -c")
    return found[0], tuple(found[1:])


def belongs(key: PrivateKey, certificate: Certificate) -> bool:
    """Whether the certificate is for this key."""
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        other = certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except SignatureError:
        return False
    return public == other
