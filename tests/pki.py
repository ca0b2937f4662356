# SPDX-License-Identifier: Apache-2.0
"""Keys, certificates and authorities for tests. Keys are made once per process; certificates are cheap."""

from __future__ import annotations

import datetime as dt
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tools import tool

from regraft.crypto.certificates import Certificate

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
EMAIL, CODE, SERVER = (
    ExtendedKeyUsageOID.EMAIL_PROTECTION,
    ExtendedKeyUsageOID.CODE_SIGNING,
    ExtendedKeyUsageOID.SERVER_AUTH,
)
_USAGES = [
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
]


def key(name: str, kind: str = "rsa2048") -> Any:
    """The private key called `name`; kinds are rsa<bits>, p256, p384, p192, ed25519."""
    return _key(name, kind)


@cache
def _key(name: str, kind: str) -> Any:
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key({"p256": ec.SECP256R1, "p384": ec.SECP384R1, "p192": ec.SECP192R1}[kind]())


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    private: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def parsed(self) -> Certificate:
        return Certificate.parse(self.der)

    @property
    def key_pem(self) -> bytes:
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def issue(
    name: str,
    issuer: Pair | None = None,
    *,
    kind: str = "rsa2048",
    key_name: str | None = None,
    authority: bool | None = False,
    path_length: int | None = None,
    usages: tuple[str, ...] | None = ("digital_signature",),
    purposes: tuple[Any, ...] | None = (EMAIL,),
    days: tuple[int, int] = (-1, 30),
    digest: Any = hashes.SHA256,
    critical: str | None = None,
    key_ids: bool = True,
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = (),
) -> Pair:
    """A certificate for `name`, self-signed without an issuer, valid over `days` relative to now."""
    private = key(key_name or name, kind)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.private if issuer else private
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + dt.timedelta(days=days[0]))
        .not_valid_after(NOW + dt.timedelta(days=days[1]))
    )
    if authority is not None:
        builder = builder.add_extension(x509.BasicConstraints(authority, path_length), critical=True)
    if usages is not None:
        flags = {usage: usage in usages for usage in _USAGES}
        builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
    if key_ids:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    if critical:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier(critical), b"\x05\x00")
        builder = builder.add_extension(unknown, critical=True)
    for extension, flag in extra:
        builder = builder.add_extension(extension, flag)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else digest()
    return Pair(builder.sign(signer, algorithm), private)


def authority(name: str, issuer: Pair | None = None, **settings: Any) -> Pair:
    """An authority's certificate."""
    settings.setdefault("usages", ("key_cert_sign", "crl_sign"))
    settings.setdefault("purposes", None)
    return issue(name, issuer, authority=True, **settings)


@cache
def self_signed(kind: str = "rsa2048") -> Pair:
    return issue(f"Self {kind}", kind=kind)


@cache
def root() -> Pair:
    return authority("Root")


@cache
def intermediate() -> Pair:
    return authority("Intermediate", root())


@cache
def leaf() -> Pair:
    return issue("Leaf", intermediate())


def openssl_sign(
    folder: Path, content: bytes, *pairs: Pair, options: tuple[str, ...] = (), extra: bytes = b""
) -> bytes:
    """What `openssl cms -sign` makes: detached DER unless the options say otherwise; `extra` are certificates."""
    (folder / "content").write_bytes(content)
    command = [tool("openssl"), "cms", "-sign", "-in", "content", "-out", "signature", "-outform", "DER", "-binary"]
    command += ["-nosmimecap", *(option for option in options if not option.startswith("rsa_") and option != "-keyopt")]
    for number, pair in enumerate(pairs):
        (folder / f"{number}.pem").write_bytes(pair.pem)
        (folder / f"{number}.key").write_bytes(pair.key_pem)
        command += ["-signer", f"{number}.pem", "-inkey", f"{number}.key"]
        for option in options:
            if option.startswith("rsa_"):
                command += ["-keyopt", option]
    if extra:
        (folder / "extra.pem").write_bytes(extra)
        command += ["-certfile", "extra.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return (folder / "signature").read_bytes()


def openssl_accepts(folder: Path, signature: bytes, content: bytes, trust: bytes, at: dt.datetime = NOW) -> bool:
    """Whether `openssl cms -verify` finds the detached signature good, with only `trust` trusted."""
    for name, data in (("sig", signature), ("content", content), ("trust.pem", trust)):
        (folder / name).write_bytes(data)
    command = [tool("openssl"), "cms", "-verify", "-binary", "-inform", "DER", "-in", "sig", "-content", "content"]
    command += ["-CAfile", "trust.pem", "-no-CApath", "-no-CAstore", "-purpose", "smimesign", "-out", "out"]
    command += ["-attime", str(int(at.timestamp()))]
    return subprocess.run(command, cwd=folder, capture_output=True).returncode == 0
