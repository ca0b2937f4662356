# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from pki import authority, issue, key, leaf, root, self_signed

from regraft.crypto.certificates import Certificate, to_pem
from regraft.crypto.trust import Trust, load_certificate, load_private_key
from regraft.errors import FormatError, LimitError, RegraftError, SignatureError, UsageError


def numbers(key: Any) -> object:
    """What a public key is; keys themselves do not compare in older libraries."""
    return key.public_numbers()


def validity(certificate: Any) -> tuple[dt.datetime, dt.datetime]:
    """With its zone, which older libraries left out."""
    if hasattr(certificate, "not_valid_before_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return certificate.not_valid_before.replace(tzinfo=dt.UTC), certificate.not_valid_after.replace(tzinfo=dt.UTC)


def test_certificates_are_loaded_in_order() -> None:
    trust = Trust.load(b"a comment\n" + root().pem + b"\n" + leaf().pem.replace(b"\n", b"\r\n"))
    assert [str(certificate.subject) for certificate in trust.certificates] == ["CN=Root", "CN=Leaf"]
    assert trust.public_key is None


@pytest.mark.parametrize("kind", [serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1])
def test_a_public_key_is_loaded(kind: serialization.PublicFormat) -> None:
    public = key("Root").public_key()
    trust = Trust.load(public.public_bytes(serialization.Encoding.PEM, kind))
    assert numbers(trust.public_key) == numbers(public)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(lambda: b"", "needs certificates or a public key", id="nothing"),
        pytest.param(lambda: b"hello", "needs certificates or a public key", id="text"),
        pytest.param(lambda: self_signed().key_pem, "private key", id="private key"),
        pytest.param(lambda: root().pem + self_signed().public_pem, "one of the two", id="both"),
        pytest.param(lambda: self_signed().public_pem * 2, "several public keys", id="two keys"),
        pytest.param(lambda: root().pem[:-10], "damaged or has no end", id="cut off"),
        pytest.param(lambda: root().pem.replace(b"MII", b"M!I", 1), "damaged", id="not base64"),
        pytest.param(lambda: root().pem.replace(b"MII", b"MI", 1), "base64|DER|certificate", id="a letter short"),
        pytest.param(lambda: root().pem.replace(b"CERTIFICATE", b"X509 CRL"), "'X509 CRL'", id="something else"),
    ],
)
def test_files_that_give_no_trust_are_refused(content: object, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        Trust.load(content())  # type: ignore[operator]


def test_weak_keys_give_no_trust() -> None:
    with pytest.raises(SignatureError, match="1024 bits"):
        Trust.load(self_signed("rsa1024").public_pem)


def test_the_number_of_certificates_is_limited() -> None:
    with pytest.raises(LimitError):
        Trust.load(root().pem * 33)


def test_trust_in_nothing_cannot_be_made() -> None:
    with pytest.raises(FormatError):
        Trust()


def test_every_field_is_as_another_library_reads_it() -> None:
    for pair in (root(), leaf(), self_signed("p256"), authority("Deep", path_length=3), issue("Bare", usages=None)):
        ours, theirs = pair.parsed, pair.certificate
        assert ours.serial == theirs.serial_number
        assert ours.tbs == theirs.tbs_certificate_bytes
        assert ours.signature == theirs.signature
        assert ours.issuer.encoded == theirs.issuer.public_bytes()
        assert ours.subject.common_names == tuple(part.value for part in theirs.subject)
        assert (ours.not_before, ours.not_after) == validity(theirs)
        assert numbers(ours.public_key()) == numbers(theirs.public_key())


def test_certificates_go_out_as_they_came_in() -> None:
    assert to_pem(root().parsed) == root().pem


def test_a_certificate_survives_any_flip_and_cut() -> None:
    data = leaf().der
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        for candidate in (bytes(flipped), data[:position]):
            try:
                certificate = Certificate.parse(candidate)
                certificate.scheme()
                certificate.public_key()
            except RegraftError:
                continue


def test_private_keys_with_and_without_password() -> None:
    private = key("Root")
    best = serialization.BestAvailableEncryption(b"secret")
    locked = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, best)
    loaded = load_private_key(locked, b"secret")
    assert numbers(loaded.public_key()) == numbers(private.public_key())
    assert numbers(load_private_key(root().key_pem).public_key()) == numbers(private.public_key())
    for pem, password in ((locked, None), (locked, b"wrong"), (root().key_pem, b"secret"), (b"", None)):
        with pytest.raises(UsageError):
            load_private_key(pem, password)


def test_a_weak_private_key_does_not_sign() -> None:
    with pytest.raises(SignatureError, match="1024"):
        load_private_key(self_signed("rsa1024").key_pem)


def test_the_signers_certificate_comes_first() -> None:
    first, others = load_certificate(leaf().pem + root().pem)
    assert (str(first.subject), [str(other.subject) for other in others]) == ("CN=Leaf", ["CN=Root"])
    with pytest.raises(UsageError):
        load_certificate(root().key_pem)
