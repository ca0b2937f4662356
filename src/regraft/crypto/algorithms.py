# SPDX-License-Identifier: Apache-2.0
"""Which signature algorithms count, how they are named in DER, and the one place that checks a signature's bytes.

Digests: SHA-256, SHA-384, SHA-512. Keys: RSA of 2048 to 16384 bits with PKCS#1 v1.5 (RFC 8017, section 8.2) or PSS
(section 8.1), ECDSA on curves of 256 bits and more (RFC 5754), Ed25519 (RFC 8419). Everything else, MD5 and SHA-1
first, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from regraft.crypto import der
from regraft.errors import FormatError, SignatureError

PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
DigestName: TypeAlias = Literal["sha256", "sha384", "sha512"]

RSA_MINIMUM, RSA_MAXIMUM, EC_MINIMUM = 2048, 16384, 256  #: bits
RSA_ENCRYPTION, RSA_PSS, MGF1 = "1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10", "1.2.840.113549.1.1.8"
ED25519 = "1.3.101.112"
DIGESTS: dict[str, DigestName] = {
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
RSA_WITH: dict[str, DigestName] = {
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
}
ECDSA_WITH: dict[str, DigestName] = {
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
}
_WEAK = {
    "1.2.840.113549.2.5": "MD5",
    "1.3.14.3.2.26": "SHA-1",
    "2.16.840.1.101.3.4.2.4": "SHA-224",
    "1.2.840.113549.1.1.4": "RSA with MD5",
    "1.2.840.113549.1.1.5": "RSA with SHA-1",
    "1.2.840.10045.4.1": "ECDSA with SHA-1",
}
_HASHES: dict[str, type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a signature is made. `salt` is the length of PSS's salt in bytes, None to take what the signature has."""

    kind: Literal["rsa", "rsa-pss", "ecdsa", "ed25519"]
    digest: DigestName
    salt: int | None = None

    def __str__(self) -> str:
        return f"{self.kind}-{self.digest}"


def digest_named(identifier: der.Element) -> DigestName:
    """The digest that an AlgorithmIdentifier names. Raises SignatureError for one that does not count."""
    reader = identifier.inside()
    name = reader.object("a digest algorithm")
    _no_parameters(reader)
    if name not in DIGESTS:
        raise SignatureError(f"the signature uses the digest {_WEAK.get(name, name)}, which is not accepted")
    return DIGESTS[name]


def scheme_named(identifier: der.Element, digest: DigestName | None = None) -> Scheme:
    """The scheme that an AlgorithmIdentifier names; `digest` is the one named beside it, in CMS.

    Raises SignatureError for a scheme that does not count or does not fit the digest.
    """
    reader = identifier.inside()
    name = reader.object("a signature algorithm")
    if name == RSA_PSS:
        scheme = _pss(reader)
    else:
        _no_parameters(reader)
        if name == RSA_ENCRYPTION and digest is not None:
            scheme = Scheme("rsa", digest)
        elif name in RSA_WITH:
            scheme = Scheme("rsa", RSA_WITH[name])
        elif name in ECDSA_WITH:
            scheme = Scheme("ecdsa", ECDSA_WITH[name])
        elif name == ED25519:
            scheme = Scheme("ed25519", "sha512")
        else:
            raise SignatureError(f"the signature algorithm {_WEAK.get(name, name)} is not accepted")
    if digest is not None and scheme.digest != digest:
        raise SignatureError(f"the signature algorithm {scheme} does not belong to the digest {digest}")
    return scheme


def _no_parameters(reader: der.Reader) -> None:
    parameters = reader.optional(der.NULL)
    if parameters is not None and parameters.content:
        raise FormatError("a NULL with content", offset=parameters.offset)
    reader.finish("an algorithm without parameters")


def _pss(reader: der.Reader) -> Scheme:
    """RSASSA-PSS-params (RFC 4055, section 3.1). Its defaults mean SHA-1, so both digests must be given."""
    parameters = reader.take(der.SEQUENCE, "the parameters of RSA-PSS").inside()
    reader.finish("an algorithm")
    digest, mask, salt, trailer = (parameters.optional(der.context(number)) for number in range(4))
    parameters.finish("the parameters of RSA-PSS")
    if digest is None or mask is None:
        raise SignatureError("the signature uses RSA-PSS with SHA-1, which is not accepted")
    name = digest_named(der.only(digest.content, der.SEQUENCE, "PSS's digest", digest.offset))
    mask_reader = der.only(mask.content, der.SEQUENCE, "PSS's mask", mask.offset).inside()
    if mask_reader.object("PSS's mask function") != MGF1:
        raise SignatureError("the signature uses RSA-PSS with another mask than MGF1")
    if digest_named(mask_reader.take(der.SEQUENCE, "MGF1's digest")) != name:
        raise SignatureError("the signature uses RSA-PSS with two different digests")
    mask_reader.finish("PSS's mask")
    length = 20 if salt is None else der.integer(der.only(salt.content, der.INTEGER, "PSS's salt length", salt.offset))
    if not 0 <= length <= RSA_MAXIMUM // 8:
        raise SignatureError(f"the signature uses RSA-PSS with a salt of {length} bytes")
    if trailer is not None and der.integer(der.only(trailer.content, der.INTEGER, "PSS's trailer")) != 1:
        raise SignatureError("the signature uses RSA-PSS with an unknown trailer")
    return Scheme("rsa-pss", name, length)


def load_public_key(spki: bytes) -> PublicKey:
    """A key from the DER of its SubjectPublicKeyInfo. Raises SignatureError when it is damaged or too weak."""
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"a public key cannot be read: {error}") from None
    return checked_key(key)


def checked_key(key: object) -> PublicKey:
    """`key` if it is of a kind and size that counts. Raises SignatureError."""
    if isinstance(key, rsa.RSAPublicKey):
        if not RSA_MINIMUM <= key.key_size <= RSA_MAXIMUM:
            raise SignatureError(f"an RSA key of {key.key_size} bits is not accepted ({RSA_MINIMUM} to {RSA_MAXIMUM})")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.key_size < EC_MINIMUM:
            raise SignatureError(f"the curve {key.curve.name} is not accepted ({EC_MINIMUM} bits or more)")
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise SignatureError(f"a key of the kind {type(key).__name__.strip('_')} is not accepted (RSA, ECDSA, Ed25519)")


def verify(key: PublicKey, scheme: Scheme, signature: bytes, content: bytes, what: str) -> None:
    """Return if `signature` over `content` was made with the private half of `key`; `what` is for the message.

    Raises SignatureError, also when the key is of another kind than the scheme's.
    """
    if not signature:
        raise SignatureError(f"{what} is empty")
    digest = _HASHES[scheme.digest]()
    try:
        if isinstance(key, rsa.RSAPublicKey) and scheme.kind == "rsa":
            key.verify(signature, content, padding.PKCS1v15(), digest)
        elif isinstance(key, rsa.RSAPublicKey) and scheme.kind == "rsa-pss":
            salt = padding.PSS.AUTO if scheme.salt is None else scheme.salt
            key.verify(signature, content, padding.PSS(padding.MGF1(digest), salt), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey) and scheme.kind == "ecdsa":
            key.verify(signature, content, ec.ECDSA(digest))
        elif isinstance(key, ed25519.Ed25519PublicKey) and scheme.kind == "ed25519":
            key.verify(signature, content)
        else:
            raise SignatureError(f"{what} is of the kind {scheme.kind}, the key that should have made it is not")
    except InvalidSignature:
        raise SignatureError(f"{what} is wrong: other content, or made with another key") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{what} cannot be checked: {error}") from None


def sign(key: PrivateKey, scheme: Scheme, content: bytes) -> bytes:
    """The signature of `content`. `scheme` must fit the key; PSS with `salt` None takes the longest salt."""
    digest = _HASHES[scheme.digest]()
    if isinstance(key, rsa.RSAPrivateKey):
        if scheme.kind == "rsa":
            return key.sign(content, padding.PKCS1v15(), digest)
        salt = padding.PSS.MAX_LENGTH if scheme.salt is None else scheme.salt
        return key.sign(content, padding.PSS(padding.MGF1(digest), salt), digest)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(content, ec.ECDSA(digest))
    return key.sign(content)
