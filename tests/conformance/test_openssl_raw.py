# SPDX-License-Identifier: Apache-2.0
"""Bare RSA signatures and AES, both directions, against `openssl dgst` and `openssl enc`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pki import root, self_signed
from tools import tool

from regraft.crypto import rsa
from regraft.crypto.aes import AesKey, decrypt, encrypt, load_key_file
from regraft.crypto.trust import Trust, load_private_key
from regraft.errors import RegraftError, SignatureError

CONTENT = b'software = { version = "1.0"; };\n'
PSS = ["-sigopt", "rsa_padding_mode:pss", "-sigopt"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "key.pem").write_bytes(root().key_pem)
    (tmp_path / "public.pem").write_bytes(root().public_pem)
    (tmp_path / "content").write_bytes(CONTENT)
    return tmp_path


def openssl(folder: Path, *arguments: str) -> bool:
    return subprocess.run([tool("openssl"), *arguments], cwd=folder, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("padding", "options"),
    [("rsa", []), ("rsa-pss", [*PSS, "rsa_pss_saltlen:-2"]), ("rsa-pss", [*PSS, "rsa_pss_saltlen:-1"])],
)
def test_we_accept_what_openssl_signs(padding: rsa.Padding, options: list[str], folder: Path) -> None:
    assert openssl(folder, "dgst", "-sha256", "-sign", "key.pem", *options, "-out", "sig", "content")
    trust = Trust.load((folder / "public.pem").read_bytes())
    assert rsa.verify((folder / "sig").read_bytes(), CONTENT, trust, padding).method == padding


@pytest.mark.parametrize(("padding", "options"), [("rsa", []), ("rsa-pss", [*PSS, "rsa_pss_saltlen:-2"])])
def test_openssl_accepts_what_we_sign(padding: rsa.Padding, options: list[str], folder: Path) -> None:
    (folder / "sig").write_bytes(rsa.sign(CONTENT, load_private_key(root().key_pem), padding))
    command = ["dgst", "-sha256", "-verify", "public.pem", *options, "-signature", "sig", "content"]
    assert openssl(folder, *command)
    (folder / "content").write_bytes(CONTENT + b"\n")
    assert not openssl(folder, *command)


@pytest.mark.parametrize(("digest", "size"), [("-sha1", 0), ("-md5", 0), ("-sha512", 0)])
def test_other_digests_do_not_count(digest: str, size: int, folder: Path) -> None:
    assert openssl(folder, "dgst", digest, "-sign", "key.pem", "-out", "sig", "content")
    with pytest.raises(SignatureError):
        rsa.verify((folder / "sig").read_bytes(), CONTENT, Trust.load(root().public_pem))


def test_a_public_key_as_openssl_writes_it_is_loaded(folder: Path) -> None:
    assert openssl(folder, "rsa", "-in", "key.pem", "-pubout", "-out", "spki.pem")
    assert openssl(folder, "rsa", "-in", "key.pem", "-RSAPublicKey_out", "-out", "pkcs1.pem")
    keys = {Trust.load((folder / name).read_bytes()).public_key.public_numbers() for name in ("spki.pem", "pkcs1.pem")}  # type: ignore[union-attr]
    assert keys == {root().private.public_key().public_numbers()}


def test_a_certificate_with_its_text_is_loaded(folder: Path) -> None:
    (folder / "cert.pem").write_bytes(self_signed().pem)
    assert openssl(folder, "x509", "-in", "cert.pem", "-text", "-out", "text.pem")
    assert Trust.load((folder / "text.pem").read_bytes()).certificates == (self_signed().parsed,)


@pytest.mark.parametrize("cipher", ["aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "aes-128-ctr", "aes-256-ctr"])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100_000])
def test_aes_both_ways(cipher: str, size: int, folder: Path) -> None:
    _, bits, mode = cipher.split("-")
    text = f"{bytes(range(int(bits) // 8)).hex()} {bytes(range(16)).hex()}\n"
    key = load_key_file(text.encode()).for_cipher(f"aes-{mode}-{bits}")
    plain = bytes(range(251)) * (size // 251) + bytes(size % 251)
    (folder / "plain").write_bytes(plain)
    options = [f"-{cipher}", "-K", key.key.hex(), "-iv", key.iv.hex()]
    assert openssl(folder, "enc", *options, "-in", "plain", "-out", "sealed")
    assert b"".join(decrypt([(folder / "sealed").read_bytes()], key)) == plain
    (folder / "ours").write_bytes(b"".join(encrypt([plain], key)))
    assert openssl(folder, "enc", "-d", *options, "-in", "ours", "-out", "back")
    assert (folder / "back").read_bytes() == plain


def test_wrong_keys_are_refused_by_both(folder: Path) -> None:
    """A wrong key gives right padding once in 256 cases; then both see other bytes, which the digest is for."""
    sealed = b"".join(encrypt([b"x" * 40], AesKey(bytes(32), bytes(16))))
    (folder / "sealed").write_bytes(sealed)
    for number in range(1, 9):
        key = AesKey(bytes([number]) * 32, bytes(16))
        options = ["-aes-256-cbc", "-K", key.key.hex(), "-iv", key.iv.hex()]
        theirs = openssl(folder, "enc", "-d", *options, "-in", "sealed", "-out", "plain")
        try:
            list(decrypt([sealed], key))
            ours = True
        except RegraftError:
            ours = False
        assert ours == theirs
