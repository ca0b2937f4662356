# SPDX-License-Identifier: Apache-2.0
"""From a signer's certificate to one that is trusted (RFC 5280, section 6, without revocation).

The rules are those of OpenSSL's S/MIME signing purpose, which SWUpdate applies, made stricter: an authority must say so
in basicConstraints, names compare byte for byte, and name constraints are refused rather than ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from regraft.crypto.algorithms import verify
from regraft.crypto.certificates import Certificate
from regraft.crypto.trust import Purpose, Trust
from regraft.errors import SignatureError

PURPOSES: dict[str, str] = {"emailProtection": "1.3.6.1.5.5.7.3.4", "codeSigning": "1.3.6.1.5.5.7.3.3"}
_LONGEST = 8  #: certificates in a chain
_TRIES = 64  #: signatures of certificates that are checked for one signer


@dataclass(slots=True)
class _Search:
    anchors: frozenset[bytes]
    candidates: tuple[Certificate, ...]
    tries: int = 0
    failure: SignatureError | None = None

    def fail(self, cause: str) -> None:
        """Remember why this way did not lead on; the first reason is what the user gets to see."""
        self.failure = self.failure or SignatureError(cause)

    def paths(self, path: tuple[Certificate, ...]) -> Iterator[tuple[Certificate, ...]]:
        last = path[-1]
        if last.self_issued and last.encoded in self.anchors:
            yield path
            return
        if len(path) >= _LONGEST:
            self.fail(f"the signer's chain has more than {_LONGEST} certificates")
            return
        found = False
        for issuer in self.candidates:
            if issuer in path or not _may_have_issued(issuer, last):
                continue
            self.tries += 1
            if self.tries > _TRIES:
                self.fail(f"no chain to a trusted certificate within {_TRIES} tries")
                return
            try:
                verify(
                    issuer.public_key(), last.scheme(), last.signature, last.tbs, f"the certificate of {last.subject}"
                )
            except SignatureError as error:
                self.failure = self.failure or error
                continue
            found = True
            yield from self.paths((*path, issuer))
        if not found:
            if last.self_issued:
                self.fail(f"the signer's chain ends in {last.subject}, which is self-signed and not trusted")
            else:
                self.fail(f"nobody trusted: no certificate of {last.issuer}, who issued {last.subject}, is at hand")


def trusted_chain(
    signer: Certificate, embedded: Sequence[Certificate], trust: Trust, *, purpose: Purpose, at: datetime
) -> tuple[Certificate, ...]:
    """The chain from `signer` to a self-signed certificate in `trust`, all of it valid `at` that time.

    Issuers are looked for among the trusted certificates first, then among those `embedded` in the signature.
    Raises SignatureError with the first reason why there is none.
    """
    anchors = frozenset(certificate.encoded for certificate in trust.certificates if certificate.self_issued)
    search = _Search(anchors, tuple(dict.fromkeys((*trust.certificates, *embedded))))
    for path in search.paths((signer,)):
        try:
            _check(path, purpose, at)
        except SignatureError as error:
            search.failure = search.failure or error
        else:
            return path
    raise search.failure or SignatureError(f"nobody trusted vouches for {signer.subject}")


def _may_have_issued(issuer: Certificate, certificate: Certificate) -> bool:
    if issuer.subject.encoded != certificate.issuer.encoded:
        return False
    return (
        certificate.authority_key is None
        or issuer.subject_key is None
        or certificate.authority_key == issuer.subject_key
    )


def _check(path: tuple[Certificate, ...], purpose: Purpose, at: datetime) -> None:
    below = 0  # authorities between this one and the signer, self-issued ones not counted
    for position, certificate in enumerate(path):
        name = certificate.subject
        if at < certificate.not_before:
            raise SignatureError(
                f"the certificate of {name} is valid only from {certificate.not_before:%Y-%m-%d %H:%M:%S} UTC",
                cure="set the clock, or sign with a certificate that is valid now",
            )
        if at > certificate.not_after:
            raise SignatureError(
                f"the certificate of {name} expired on {certificate.not_after:%Y-%m-%d %H:%M:%S} UTC",
                cure="set the clock, or sign with a certificate that is valid now",
            )
        if certificate.unknown:
            raise SignatureError(f"the certificate of {name} has extensions not understood: {certificate.unknown}")
        certificate.public_key()
        _check_purpose(certificate, purpose, signer=position == 0)
        if position:
            if certificate.authority is not True:
                raise SignatureError(f"the certificate of {name} is not that of an authority (basicConstraints)")
            if certificate.usages is not None and "keyCertSign" not in certificate.usages:
                raise SignatureError(f"the certificate of {name} must not sign certificates (keyUsage)")
            if certificate.path_length is not None and below > certificate.path_length:
                raise SignatureError(f"the certificate of {name} allows {certificate.path_length} authorities below it")
            below += not certificate.self_issued


def _check_purpose(certificate: Certificate, purpose: Purpose, *, signer: bool) -> None:
    name, purposes, usages = certificate.subject, certificate.purposes, certificate.usages
    if purpose != "any" and purposes is not None and PURPOSES[purpose] not in purposes:
        raise SignatureError(f"the certificate of {name} is not for {purpose} (extendedKeyUsage)")
    if signer and purpose == "codeSigning" and purposes is None:
        raise SignatureError(f"the certificate of {name} does not say that it is for codeSigning (extendedKeyUsage)")
    if signer and usages is not None and not usages & {"digitalSignature", "nonRepudiation"}:
        raise SignatureError(f"the certificate of {name} must not make signatures (keyUsage)")
