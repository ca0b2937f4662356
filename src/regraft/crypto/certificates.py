# SPDX-License-Identifier: Apache-2.0
"""X.509 certificates (RFC 5280, section 4): the fields that decide about trust, and PEM (RFC 7468)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from regraft.crypto import der
from regraft.crypto.algorithms import PublicKey, Scheme, load_public_key, scheme_named
from regraft.errors import FormatError

COMMON_NAME = "2.5.4.3"
_SUBJECT_KEY, _KEY_USAGE, _BASIC_CONSTRAINTS = "2.5.29.14", "2.5.29.15", "2.5.29.19"
_NAME_CONSTRAINTS, _AUTHORITY_KEY, _EXTENDED_USAGE = "2.5.29.30", "2.5.29.35", "2.5.29.37"
#: Critical extensions that need no action here: subjectAltName, certificatePolicies, cRLDistributionPoints.
_HARMLESS = frozenset({"2.5.29.17", "2.5.29.32", "2.5.29.31"})
_UNDERSTOOD = _HARMLESS | {_SUBJECT_KEY, _KEY_USAGE, _BASIC_CONSTRAINTS, _AUTHORITY_KEY, _EXTENDED_USAGE}
_USAGES = ("digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement", "keyCertSign")
_SHORT = {COMMON_NAME: "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU"}
_CHARSETS = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----[ \t]*\r?\n([A-Za-z0-9+/=\s]*)-----END \1-----", re.ASCII)


@dataclass(frozen=True, slots=True)
class Name:
    """A distinguished name: its DER (`encoded`), which is what counts, and its parts as (object identifier, text)."""

    encoded: bytes
    parts: tuple[tuple[str, str], ...]

    @property
    def common_names(self) -> tuple[str, ...]:
        return tuple(text for kind, text in self.parts if kind == COMMON_NAME)

    def __str__(self) -> str:
        return ", ".join(f"{_SHORT.get(kind, kind)}={text}" for kind, text in self.parts) or "(no name)"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says. `usages` and `purposes` are None where the extension is absent, which allows all.

    `authority` None without basicConstraints; `path_length` the number of authorities allowed below this one.
    `unknown` are the critical extensions that are not understood here: such a certificate cannot be relied on.
    """

    encoded: bytes
    tbs: bytes
    signature_algorithm: der.Element
    signature: bytes
    serial: int
    issuer: Name
    subject: Name
    not_before: datetime
    not_after: datetime
    spki: bytes
    authority: bool | None
    path_length: int | None
    usages: frozenset[str] | None
    purposes: frozenset[str] | None
    subject_key: bytes | None
    authority_key: bytes | None
    unknown: tuple[str, ...]

    @property
    def self_issued(self) -> bool:
        return self.issuer.encoded == self.subject.encoded

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER, as hexadecimal digits."""
        return hashlib.sha256(self.encoded).hexdigest()

    def public_key(self) -> PublicKey:
        """Raises SignatureError when the key is damaged or too weak."""
        return load_public_key(self.spki)

    def scheme(self) -> Scheme:
        """How the issuer signed this. Raises SignatureError for an algorithm that does not count."""
        return scheme_named(self.signature_algorithm)

    @classmethod
    def parse(cls, data: bytes, base: int = 0) -> Certificate:
        """From DER. Raises FormatError."""
        outer = der.only(data, der.SEQUENCE, "a certificate", base).inside()
        tbs = outer.take(der.SEQUENCE, "a certificate's content")
        algorithm = outer.take(der.SEQUENCE, "a signature algorithm")
        signature = der.bit_string(outer.take(der.BIT_STRING, "a signature"))
        outer.finish("a certificate")

        body = tbs.inside()
        body.optional(der.context(0))
        serial = body.integer("a serial number")
        if body.take(der.SEQUENCE, "a signature algorithm").raw != algorithm.raw:
            raise FormatError("a certificate names two signature algorithms", offset=tbs.offset)
        issuer = _name(body.take(der.SEQUENCE, "an issuer"))
        validity = body.take(der.SEQUENCE, "a validity").inside()
        not_before, not_after = der.time(validity.any()), der.time(validity.any())
        validity.finish("a validity")
        subject = _name(body.take(der.SEQUENCE, "a subject"))
        spki = body.take(der.SEQUENCE, "a public key")
        body.optional(der.context(1, constructed=False))
        body.optional(der.context(2, constructed=False))
        extensions = _extensions(body.optional(der.context(3)))
        body.finish("a certificate")

        authority, path_length = _basic_constraints(extensions.get(_BASIC_CONSTRAINTS))
        return cls(
            encoded=data,
            tbs=tbs.raw,
            signature_algorithm=algorithm,
            signature=signature,
            serial=serial,
            issuer=issuer,
            subject=subject,
            not_before=not_before,
            not_after=not_after,
            spki=spki.raw,
            authority=authority,
            path_length=path_length,
            usages=_key_usage(extensions.get(_KEY_USAGE)),
            purposes=_purposes(extensions.get(_EXTENDED_USAGE)),
            subject_key=_subject_key(extensions.get(_SUBJECT_KEY)),
            authority_key=_authority_key(extensions.get(_AUTHORITY_KEY)),
            unknown=tuple(
                name
                for name, extension in extensions.items()
                if (extension.critical and name not in _UNDERSTOOD) or name == _NAME_CONSTRAINTS
            ),
        )


@dataclass(frozen=True, slots=True)
class _Extension:
    critical: bool
    value: bytes
    offset: int

    def only(self, tag: int, what: str) -> der.Element:
        return der.only(self.value, tag, what, self.offset)


def _name(element: der.Element) -> Name:
    parts: list[tuple[str, str]] = []
    reader = element.inside()
    while not reader.done:
        relative = reader.take(der.SET, "a part of a name").inside()
        while not relative.done:
            pair = relative.take(der.SEQUENCE, "a part of a name").inside()
            kind, value = pair.object("a kind of name"), pair.any()
            pair.finish("a part of a name")
            parts.append((kind, value.content.decode(_CHARSETS.get(value.tag, "latin-1"), "replace")))
    return Name(element.raw, tuple(parts))


def _extensions(wrapper: der.Element | None) -> dict[str, _Extension]:
    found: dict[str, _Extension] = {}
    if wrapper is None:
        return found
    reader = der.only(wrapper.content, der.SEQUENCE, "extensions", wrapper.offset).inside()
    while not reader.done:
        element = reader.take(der.SEQUENCE, "an extension")
        inside = element.inside()
        name = inside.object("an extension")
        flag = inside.optional(der.BOOLEAN)
        value = inside.take(der.OCTET_STRING, "an extension's value")
        inside.finish("an extension")
        if name in found:
            raise FormatError(f"a certificate has the extension {name} twice", offset=element.offset)
        found[name] = _Extension(flag is not None and der.boolean(flag), value.content, value.offset)
    return found


def _basic_constraints(extension: _Extension | None) -> tuple[bool | None, int | None]:
    if extension is None:
        return None, None
    reader = extension.only(der.SEQUENCE, "basicConstraints").inside()
    flag, length = reader.optional(der.BOOLEAN), reader.optional(der.INTEGER)
    reader.finish("basicConstraints")
    path_length = None if length is None else der.integer(length)
    if path_length is not None and path_length < 0:
        raise FormatError("a negative path length", offset=extension.offset)
    return flag is not None and der.boolean(flag), path_length


def _key_usage(extension: _Extension | None) -> frozenset[str] | None:
    if extension is None:
        return None
    content = extension.only(der.BIT_STRING, "keyUsage").content
    if not 1 <= len(content) <= 3 or content[0] > 7:
        raise FormatError("a keyUsage of a strange size", offset=extension.offset)
    bits = content[1] if len(content) > 1 else 0
    return frozenset(usage for number, usage in enumerate(_USAGES) if bits << number & 0x80)


def _purposes(extension: _Extension | None) -> frozenset[str] | None:
    if extension is None:
        return None
    reader = extension.only(der.SEQUENCE, "extendedKeyUsage").inside()
    found = []
    while not reader.done:
        found.append(reader.object("a purpose"))
    return frozenset(found)


def _subject_key(extension: _Extension | None) -> bytes | None:
    return None if extension is None else extension.only(der.OCTET_STRING, "subjectKeyIdentifier").content


def _authority_key(extension: _Extension | None) -> bytes | None:
    if extension is None:
        return None
    reader = extension.only(der.SEQUENCE, "authorityKeyIdentifier").inside()
    element = reader.optional(der.context(0, constructed=False))
    return None if element is None else element.content


def pem_blocks(text: bytes) -> Iterator[tuple[str, bytes]]:
    """The blocks of a PEM file in order, as (label, DER). Text around them is a comment. Raises FormatError."""
    matches = list(_PEM.finditer(text))
    if len(matches) != text.count(b"-----BEGIN "):
        raise FormatError("a PEM block is damaged or has no end", cure="give the file as its maker wrote it")
    for match in matches:
        try:
            yield match[1].decode(), base64.b64decode(b"".join(match[2].split()), validate=True)
        except binascii.Error:
            raise FormatError("a PEM block is not base64", offset=match.start()) from None


def to_pem(certificate: Certificate) -> bytes:
    """The PEM block of a certificate."""
    lines = base64.encodebytes(certificate.encoded).replace(b"\n", b"")
    wrapped = b"\n".join(lines[i : i + 64] for i in range(0, len(lines), 64))
    return b"-----BEGIN CERTIFICATE-----\n" + wrapped + b"\n-----END CERTIFICATE-----\n"
