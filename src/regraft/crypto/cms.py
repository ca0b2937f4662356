# SPDX-License-Identifier: Apache-2.0
"""Detached signatures in the Cryptographic Message Syntax: CMS SignedData (RFC 5652, section 5).

What is accepted is what `openssl cms -verify -binary` accepts for a detached signature in DER, less what could mean
two things: content carried inside, indefinite lengths, bytes behind the end, digests and keys that no longer count.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from regraft.crypto import der
from regraft.crypto.algorithms import (
    DIGESTS,
    ECDSA_WITH,
    ED25519,
    RSA_ENCRYPTION,
    DigestName,
    PrivateKey,
    Scheme,
    digest_named,
    scheme_named,
    sign,
    verify,
)
from regraft.crypto.certificates import Certificate
from regraft.crypto.chain import trusted_chain
from regraft.crypto.signer import Signer
from regraft.crypto.trust import Purpose, Trust, belongs
from regraft.errors import FormatError, SignatureError, UsageError
from regraft.limits import DEFAULT, Limits

DATA, SIGNED_DATA = "1.2.840.113549.1.7.1", "1.2.840.113549.1.7.2"
CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_TIME = (f"1.2.840.113549.1.9.{number}" for number in (3, 4, 5))


@dataclass(frozen=True, slots=True)
class SignerInfo:
    """One signature: whose, over what, how. `attributes` are the signed ones, None in the form without any."""

    issuer: bytes | None
    serial: int | None
    subject_key: bytes | None
    digest: DigestName
    scheme: Scheme
    signature: bytes
    signed_attributes: bytes | None
    message_digest: bytes | None
    signing_time: datetime | None

    def is_of(self, certificate: Certificate) -> bool:
        if self.subject_key is not None:
            return certificate.subject_key == self.subject_key
        return certificate.issuer.encoded == self.issuer and certificate.serial == self.serial


@dataclass(frozen=True, slots=True)
class SignedData:
    """A parsed signature, nothing of it verified."""

    certificates: tuple[Certificate, ...]
    signers: tuple[SignerInfo, ...]

    @classmethod
    def parse(cls, data: bytes, *, limits: Limits = DEFAULT) -> SignedData:
        """From DER. Raises FormatError for bytes that are not a detached signature, SignatureError for weak ones."""
        content_info = der.only(data, der.SEQUENCE, "a CMS message").inside()
        if content_info.object("a content type") != SIGNED_DATA:
            raise FormatError("a CMS message that is not signed data")
        wrapper = content_info.take(der.context(0), "signed data")
        content_info.finish("a CMS message")
        body = der.only(wrapper.content, der.SEQUENCE, "signed data", wrapper.offset).inside()
        if body.integer("a version") not in (1, 3, 4, 5):
            raise FormatError("signed data of an unknown version")
        algorithms = body.take(der.SET, "digest algorithms").inside()
        digests = set()
        while not algorithms.done:
            digests.add(digest_named(algorithms.take(der.SEQUENCE, "a digest algorithm")))
        encapsulated = body.take(der.SEQUENCE, "a description of the content").inside()
        if encapsulated.object("a content type") != DATA:
            raise FormatError("a signature over something else than plain data")
        if not encapsulated.done:
            raise FormatError("a signature that carries content of its own", cure="sign without -nodetach")
        embedded = body.optional(der.context(0))
        body.optional(der.context(1))
        infos = body.take(der.SET, "signers").inside()
        body.finish("signed data")

        certificates = []
        reader = None if embedded is None else embedded.inside()
        while reader is not None and not reader.done:
            element = reader.take(der.SEQUENCE, "a certificate")
            certificates.append(Certificate.parse(element.raw, element.offset))
            if len(certificates) > limits.certificates:
                raise FormatError(f"more than {limits.certificates} certificates (limit certificates)")
        signers = []
        while not infos.done:
            signers.append(_signer_info(infos.take(der.SEQUENCE, "a signer")))
            if len(signers) > limits.certificates:
                raise FormatError(f"more than {limits.certificates} signers (limit certificates)")
        if signers and digests != {signer.digest for signer in signers}:
            raise FormatError("the list of digests is not that of the signers")
        return cls(tuple(certificates), tuple(signers))


def verify_detached(
    signature: bytes,
    content: bytes,
    trust: Trust,
    *,
    purpose: Purpose = "emailProtection",
    signer_name: str | None = None,
    at: datetime,
    limits: Limits = DEFAULT,
) -> Signer:
    """Verify that `signature` is over `content` and by a signer that `trust` vouches for, `at` that time (with zone).

    There must be a signer, and with several each must be good. `signer_name`, if given, must be the common name of
    every one of them. Returns the first signer. Raises SignatureError, and nothing else, for whatever is not so.
    """
    if not trust.certificates:
        raise SignatureError("a CMS signature needs trusted certificates, a public key was given", cure=_KEY_CURE)
    if not signature:
        raise SignatureError("the signature is empty")
    if len(signature) > limits.signature_size:
        raise SignatureError(f"the signature has {len(signature)} bytes, more than {limits.signature_size}")
    try:
        message = SignedData.parse(signature, limits=limits)
        if not message.signers:
            raise SignatureError("the signature has no signer")
        proofs = [_verify_one(info, message, content, trust, purpose, signer_name, at) for info in message.signers]
    except FormatError as error:
        raise SignatureError(f"the signature is damaged: {error}") from None
    return proofs[0]


_KEY_CURE = "give the signer's certificate, or that of its authority, with -k"


def _verify_one(
    info: SignerInfo,
    message: SignedData,
    content: bytes,
    trust: Trust,
    purpose: Purpose,
    signer_name: str | None,
    at: datetime,
) -> Signer:
    certificate = next((found for found in message.certificates if info.is_of(found)), None)
    if certificate is None:
        raise SignatureError("the signature does not carry its signer's certificate", cure="sign without -nocerts")
    names = certificate.subject.common_names
    if signer_name is not None and (not names or any(name != signer_name for name in names)):
        raise SignatureError(f"the signer is {certificate.subject}, expected the common name {signer_name!r}")

    signed = content
    if info.signed_attributes is not None:
        if info.message_digest is None or not hmac.compare_digest(
            info.message_digest, hashlib.new(info.digest, content).digest()
        ):
            raise SignatureError("the signature is over other content")
        signed = info.signed_attributes
    elif content[:1] == bytes((der.SET,)):
        # The signed attributes of another message, presented as content, would verify here.
        raise SignatureError("the signature has no signed attributes, and the content looks like some")
    verify(certificate.public_key(), info.scheme, info.signature, signed, "the signature")

    chain = trusted_chain(certificate, message.certificates, trust, purpose=purpose, at=at)
    return Signer(
        method="cms",
        scheme=str(info.scheme),
        key=certificate.fingerprint,
        name=names[0] if names else "",
        subject=str(certificate.subject),
        anchor=str(chain[-1].subject),
        signing_time=info.signing_time,
    )


def _signer_info(element: der.Element) -> SignerInfo:
    reader = element.inside()
    version = reader.integer("a version")
    issuer = serial = subject_key = None
    if (key := reader.optional(der.context(0, constructed=False))) is not None:
        subject_key = key.content
    else:
        identity = reader.take(der.SEQUENCE, "a signer's issuer and serial number").inside()
        issuer = identity.take(der.SEQUENCE, "an issuer").raw
        serial = identity.integer("a serial number")
        identity.finish("a signer's issuer and serial number")
    if version != (3 if issuer is None else 1):
        raise FormatError("a signer of another version than its kind has", offset=element.offset)
    digest = digest_named(reader.take(der.SEQUENCE, "a digest algorithm"))
    attributes = reader.optional(der.context(0))
    scheme = scheme_named(reader.take(der.SEQUENCE, "a signature algorithm"), digest)
    signature = reader.take(der.OCTET_STRING, "a signature").content
    reader.optional(der.context(1))
    reader.finish("a signer")

    signed = message_digest = signing_time = None
    if attributes is not None:
        message_digest, signing_time = _attributes(attributes)
        signed = bytes((der.SET,)) + attributes.raw[1:]
    return SignerInfo(issuer, serial, subject_key, digest, scheme, signature, signed, message_digest, signing_time)


def _attributes(element: der.Element) -> tuple[bytes, datetime | None]:
    """The message digest and the signing time of signed attributes (RFC 5652, section 11)."""
    found: dict[str, der.Element] = {}
    reader = element.inside()
    while not reader.done:
        attribute = reader.take(der.SEQUENCE, "an attribute").inside()
        name = attribute.object("an attribute's type")
        values = attribute.take(der.SET, "an attribute's values")
        attribute.finish("an attribute")
        if name in found:
            raise FormatError(f"the signed attribute {name} occurs twice", offset=element.offset)
        found[name] = values
    if CONTENT_TYPE not in found or MESSAGE_DIGEST not in found:
        raise FormatError("signed attributes without content type or message digest", offset=element.offset)
    if der.object_identifier(_single(found[CONTENT_TYPE], der.OBJECT)) != DATA:
        raise FormatError("signed attributes over something else than plain data", offset=element.offset)
    moment = None
    if SIGNING_TIME in found:
        times = found[SIGNING_TIME].inside()
        moment = der.time(times.any())
        times.finish("a signing time")
    return _single(found[MESSAGE_DIGEST], der.OCTET_STRING).content, moment


def _single(values: der.Element, tag: int) -> der.Element:
    return der.only(values.content, tag, "an attribute's single value", values.offset)


# --- signing


def sign_detached(
    content: bytes,
    certificate: Certificate,
    key: PrivateKey,
    *,
    extra_certificates: Sequence[Certificate] = (),
    digest: DigestName = "sha256",
    attributes: bool = True,
    at: datetime | None,
) -> bytes:
    """A detached signature in DER, as `openssl cms -sign -binary -nosmimecap -outform DER` makes it.

    `at` is the signing time, None to leave it out. With an RSA key (PKCS#1 v1.5) or Ed25519, the same input gives the
    same bytes. `extra_certificates` are the intermediate ones. Raises UsageError when key and certificate do not match.
    """
    if not belongs(key, certificate):
        raise UsageError("the private key is not the certificate's", cure="give the key and the certificate of a pair")
    scheme, algorithm = _signing_scheme(certificate, digest)
    digest_algorithm = der.encode(der.SEQUENCE, der.encode_object(_object(DIGESTS, scheme.digest)))
    signed = b""
    if attributes:
        fields = [
            _attribute(CONTENT_TYPE, der.encode_object(DATA)),
            _attribute(MESSAGE_DIGEST, der.encode(der.OCTET_STRING, hashlib.new(scheme.digest, content).digest())),
        ]
        if at is not None:
            fields.append(_attribute(SIGNING_TIME, der.encode_time(at.astimezone(UTC))))
        signed = der.encode_set(*fields)
    info = der.encode(
        der.SEQUENCE,
        der.encode_integer(1),
        der.encode(der.SEQUENCE, certificate.issuer.encoded, der.encode_integer(certificate.serial)),
        digest_algorithm,
        bytes((der.context(0),)) + signed[1:] if signed else b"",
        algorithm,
        der.encode(der.OCTET_STRING, sign(key, scheme, signed or content)),
    )
    body = der.encode(
        der.SEQUENCE,
        der.encode_integer(1),
        der.encode_set(digest_algorithm),
        der.encode(der.SEQUENCE, der.encode_object(DATA)),
        der.encode(der.context(0), *sorted({found.encoded for found in (certificate, *extra_certificates)})),
        der.encode_set(info),
    )
    return der.encode(der.SEQUENCE, der.encode_object(SIGNED_DATA), der.encode(der.context(0), body))


def _signing_scheme(certificate: Certificate, digest: DigestName) -> tuple[Scheme, bytes]:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    public = certificate.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        identifier = der.encode(der.SEQUENCE, der.encode_object(RSA_ENCRYPTION), der.encode(der.NULL))
        return Scheme("rsa", digest), identifier
    if isinstance(public, ec.EllipticCurvePublicKey):
        return Scheme("ecdsa", digest), der.encode(der.SEQUENCE, der.encode_object(_object(ECDSA_WITH, digest)))
    return Scheme("ed25519", "sha512"), der.encode(der.SEQUENCE, der.encode_object(ED25519))


def _object(table: dict[str, DigestName], digest: DigestName) -> str:
    return next(name for name, found in table.items() if found == digest)


def _attribute(name: str, value: bytes) -> bytes:
    return der.encode(der.SEQUENCE, der.encode_object(name), der.encode_set(value))
