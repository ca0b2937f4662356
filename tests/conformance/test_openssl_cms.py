# SPDX-License-Identifier: Apache-2.0
"""The same signatures count for `openssl cms -verify` and for us; where we are stricter, the table says so and why."""

from __future__ import annotations

import datetime as dt
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from pki import (
    CODE,
    EMAIL,
    NOW,
    SERVER,
    Pair,
    authority,
    intermediate,
    issue,
    leaf,
    openssl_accepts,
    openssl_sign,
    root,
    self_signed,
)
from tools import tool

from regraft.crypto.cms import sign_detached, verify_detached
from regraft.crypto.trust import Trust
from regraft.errors import RegraftError

CONTENT = b'software = { version = "1.0"; };\n'


@dataclass(frozen=True)
class Case:
    """`make` gives signature and trust file. `stricter` is why we refuse what openssl accepts."""

    make: Callable[[Path], tuple[bytes, bytes]]
    good: bool
    stricter: str = ""
    content: bytes = CONTENT
    at: dt.datetime = NOW


def by(
    *pairs: Callable[[], Pair],
    trust: Callable[[], bytes] | None = None,
    options: tuple[str, ...] = (),
    extra: Callable[[], bytes] = lambda: b"",
    change: Callable[[bytes], bytes] = lambda signature: signature,
) -> Callable[[Path], tuple[bytes, bytes]]:
    def make(folder: Path) -> tuple[bytes, bytes]:
        made = [pair() for pair in pairs]
        signature = openssl_sign(folder, CONTENT, *made, options=options, extra=extra())
        return change(signature), trust() if trust else b"".join(pair.pem for pair in made)

    return make


def below(**settings: object) -> Callable[[Path], tuple[bytes, bytes]]:
    """A signer with odd properties, issued by the trusted root."""
    return by(lambda: issue("Odd", root(), **settings), trust=lambda: root().pem)


def under(**settings: object) -> Callable[[Path], tuple[bytes, bytes]]:
    """A good signer under an intermediate authority with odd properties."""

    def make(folder: Path) -> tuple[bytes, bytes]:
        settings.setdefault("authority", True)
        settings.setdefault("usages", ("key_cert_sign",))
        settings.setdefault("purposes", None)
        odd = issue("Odd authority", root(), **settings)
        signer = issue("Below", odd)
        return openssl_sign(folder, CONTENT, signer, extra=odd.pem), root().pem

    return make


def both() -> bytes:
    return intermediate().pem + root().pem


CASES = {
    "self-signed and trusted": Case(by(self_signed), True),
    "intermediate inside the signature": Case(
        by(leaf, trust=lambda: root().pem, extra=lambda: intermediate().pem), True
    ),
    "intermediate in the trust file": Case(by(leaf, trust=both), True),
    "intermediate nowhere": Case(by(leaf, trust=lambda: root().pem), False),
    "only the intermediate trusted": Case(by(leaf, trust=lambda: intermediate().pem), False),
    "only the leaf trusted": Case(by(leaf, trust=lambda: leaf().pem, extra=both), False),
    "two certificates trusted, the second is it": Case(
        by(self_signed, trust=lambda: root().pem + self_signed().pem), True
    ),
    "by nobody trusted": Case(by(self_signed, trust=lambda: root().pem), False),
    "same name, other key": Case(
        by(lambda: issue("Self rsa2048", key_name="impostor"), trust=lambda: self_signed().pem), False
    ),
    "empty": Case(lambda _: (b"", root().pem), False),
    "a single byte": Case(lambda _: (b"0", root().pem), False),
    "truncated": Case(by(self_signed, change=lambda signature: signature[:-1]), False),
    "over other content": Case(by(self_signed), False, content=CONTENT + b" "),
    "over nothing": Case(by(self_signed), False, content=b""),
    "last bit of the signature flipped": Case(
        by(self_signed, change=lambda signature: signature[:-1] + bytes([signature[-1] ^ 1])), False
    ),
    "bytes behind": Case(by(self_signed, change=lambda signature: signature + b"x"), False, "nothing may follow"),
    "PEM": Case(by(self_signed, options=("-outform", "PEM")), False),
    "content inside": Case(by(self_signed, options=("-nodetach",)), False, "content inside could differ"),
    "indefinite lengths": Case(by(self_signed, options=("-stream", "-nodetach")), False, "only DER"),
    "no signed attributes": Case(by(self_signed, options=("-noattr",)), True),
    "signer named by key identifier": Case(by(self_signed, options=("-keyid",)), True),
    "signer's certificate left out": Case(by(self_signed, options=("-nocerts",)), False),
    "SHA-384": Case(by(self_signed, options=("-md", "sha384")), True),
    "SHA-512": Case(by(self_signed, options=("-md", "sha512")), True),
    "SHA-1": Case(by(self_signed, options=("-md", "sha1")), False, "SHA-1 no longer counts"),
    "MD5": Case(by(self_signed, options=("-md", "md5")), False, "MD5 no longer counts"),
    "SHA-224": Case(by(self_signed, options=("-md", "sha224")), False, "less than 128 bits of security"),
    "PSS": Case(by(self_signed, options=("rsa_padding_mode:pss",)), True),
    "PSS with SHA-512 and the longest salt": Case(
        by(self_signed, options=("-md", "sha512", "rsa_padding_mode:pss", "rsa_pss_saltlen:-2")), True
    ),
    "PSS with two digests": Case(
        by(self_signed, options=("rsa_padding_mode:pss", "rsa_mgf1_md:sha512")), False, "one digest for both"
    ),
    "ECDSA P-256": Case(by(lambda: self_signed("p256")), True),
    "ECDSA P-384 with SHA-384": Case(by(lambda: self_signed("p384"), options=("-md", "sha384")), True),
    "ECDSA P-192": Case(by(lambda: self_signed("p192")), False, "a curve below 256 bits"),
    "RSA of 1024 bits": Case(by(lambda: self_signed("rsa1024")), False, "RSA below 2048 bits"),
    "two signers, both trusted": Case(by(self_signed, lambda: self_signed("p256")), True),
    "two signers, one by nobody trusted": Case(
        by(self_signed, lambda: self_signed("p256"), trust=lambda: self_signed().pem), False
    ),
    "expired": Case(below(days=(-9, -1)), False),
    "expired, judged when it was valid": Case(below(days=(-9, 9)), True, at=NOW + dt.timedelta(days=8)),
    "judged after it": Case(below(days=(-9, 9)), False, at=NOW + dt.timedelta(days=10)),
    "not yet valid": Case(below(days=(1, 9)), False),
    "authority expired": Case(under(days=(-9, -1)), False),
    "for e-mail among others": Case(below(purposes=(SERVER, EMAIL)), True),
    "for servers only": Case(below(purposes=(SERVER,)), False),
    "for code signing only": Case(below(purposes=(CODE,)), False),
    "for any purpose": Case(below(purposes=(x509.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)), False),
    "no purpose named": Case(below(purposes=None), True),
    "no usage named": Case(below(usages=None), True),
    "usage: non-repudiation": Case(below(usages=("content_commitment",)), True),
    "usage: key encipherment only": Case(below(usages=("key_encipherment",)), False),
    "signer without basicConstraints": Case(below(authority=None), True),
    "signer is an authority": Case(below(authority=True, usages=("digital_signature", "key_cert_sign")), True),
    "unknown critical extension": Case(below(critical="1.2.3.4.5"), False),
    "no key identifiers": Case(below(key_ids=False), True),
    "certificate signed with SHA-384": Case(below(digest=hashes.SHA384), True),
    "authority says it is none": Case(under(authority=False), False),
    "authority without basicConstraints": Case(under(authority=None), False),
    "authority without basicConstraints and usage": Case(under(authority=None, usages=None), False),
    "authority must not sign certificates": Case(under(usages=("digital_signature",)), False),
    "authority for servers only": Case(under(purposes=(SERVER,)), False),
    "authority for e-mail": Case(under(purposes=(EMAIL,)), True),
    "authority with path length 0": Case(under(path_length=0), True),
    "authority with name constraints": Case(
        under(extra=((x509.NameConstraints([x509.DNSName("example.org")], None), True),)), False, "not interpreted"
    ),
}


def path_too_long(folder: Path) -> tuple[bytes, bytes]:
    top = authority("Top", path_length=0)
    middle = authority("Middle", top)
    return openssl_sign(folder, CONTENT, issue("Low", middle), extra=middle.pem), top.pem


def issued_by_a_signer(folder: Path) -> tuple[bytes, bytes]:
    """A signer who is no authority issues a certificate for somebody else."""
    crook = issue("Crook", leaf())
    return openssl_sign(folder, CONTENT, crook, extra=leaf().pem + intermediate().pem), root().pem


def sha1_certificate(folder: Path) -> tuple[bytes, bytes]:
    weak = issue("Weak", root())
    for name, data in (("weak.key", weak.key_pem), ("root.pem", root().pem), ("root.key", root().key_pem)):
        (folder / name).write_bytes(data)
    command = "req -new -x509 -sha1 -days 2 -subj /CN=Weak -key weak.key -CA root.pem -CAkey root.key -out weak.pem"
    subprocess.run([tool("openssl"), *command.split()], cwd=folder, check=True, capture_output=True)
    pair = Pair(x509.load_pem_x509_certificate((folder / "weak.pem").read_bytes()), weak.private)
    return openssl_sign(folder, CONTENT, pair), root().pem


CASES["path longer than the authority allows"] = Case(path_too_long, False)
CASES["issued by somebody who is no authority"] = Case(issued_by_a_signer, False)
CASES["certificate signed with SHA-1"] = Case(
    sha1_certificate, False, "SHA-1 no longer counts", at=NOW + dt.timedelta(hours=1)
)


def accepted(signature: bytes, content: bytes, trust: bytes, at: dt.datetime) -> bool:
    try:
        verify_detached(signature, content, Trust.load(trust), at=at)
    except RegraftError:
        return False
    return True


@pytest.mark.parametrize("name", CASES)
def test_same_verdict_as_openssl(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    signature, trust = case.make(tmp_path)
    theirs = openssl_accepts(tmp_path, signature, case.content, trust, case.at)
    ours = accepted(signature, case.content, trust, case.at)
    assert (ours, theirs) == (case.good, case.good or bool(case.stricter))


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384"])
@pytest.mark.parametrize("attributes", [True, False])
def test_openssl_accepts_what_we_sign(kind: str, attributes: bool, tmp_path: Path) -> None:
    pair = self_signed(kind)
    signature = sign_detached(CONTENT, pair.parsed, pair.private, attributes=attributes, at=NOW)
    assert openssl_accepts(tmp_path, signature, CONTENT, pair.pem)
    assert not openssl_accepts(tmp_path, signature, CONTENT + b"\n", pair.pem)


def test_openssl_finds_the_intermediates_we_put_in(tmp_path: Path) -> None:
    signature = sign_detached(
        CONTENT, leaf().parsed, leaf().private, extra_certificates=[intermediate().parsed], at=NOW
    )
    assert openssl_accepts(tmp_path, signature, CONTENT, root().pem)
