# SPDX-License-Identifier: Apache-2.0
"""Stock swupdate takes the bundles we write and sign, and refuses what we refuse.

Debian's build knows CMS only, and looks for intermediate certificates in the trust file, not in the signature.
"""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from made_bundles import FILES, bundle, cms_signer, describe, policy
from pki import CODE, NOW, Pair, intermediate, issue, leaf, openssl_sign, root, self_signed
from stock_swupdate import TRIES, own_network
from tools import missing, tool

from regraft.build.bundle import CmsSigner
from regraft.crypto.trust import Trust
from regraft.errors import RegraftError
from regraft.swupdate.bundle import SignaturePolicy, read_bundle


class Signed:
    """A signature made elsewhere."""

    def __init__(self, signature: bytes) -> None:
        self._signature = signature

    def sign(self, _description: bytes, /) -> bytes:
        return self._signature


def swupdate(folder: Path, data: bytes, trust: bytes, *options: str) -> bool:
    """Whether stock swupdate ends well; run again when it says so but exits 1, for it polls its own state too early."""
    (folder / "update.swu").write_bytes(data)
    (folder / "trust.pem").write_bytes(trust)
    (folder / "empty.cfg").write_text("globals = {};\n")
    command = [
        *own_network(),
        tool("swupdate"),
        "-v",
        "-M",
        "-m",
        "-H",
        "board:1.0",
        "-f",
        "empty.cfg",
        "-k",
        "trust.pem",
    ]
    for _ in range(TRIES):
        # Its sockets have fixed names in TMPDIR, and the path of a socket must be short.
        with tempfile.TemporaryDirectory(prefix="swu", ignore_cleanup_errors=True) as scratch:
            done = subprocess.run(
                [*command, *options, "-i", "update.swu"],
                cwd=folder,
                env={"TMPDIR": scratch, "PATH": "/usr/bin:/bin:/usr/sbin"},
                capture_output=True,
                timeout=60,
            )
        if done.returncode == 0 or b"was successful !" not in done.stdout + done.stderr:
            return done.returncode == 0
    pytest.fail(f"swupdate said successful and exited 1, {TRIES} times")


def ours(data: bytes, trusted: SignaturePolicy) -> bool:
    try:
        reader = read_bundle(io.BytesIO(data), trusted)
        assert {artifact.name for artifact in reader.members()} <= FILES.keys()
    except RegraftError:
        return False
    return True


def test_swupdate_installs_what_we_write(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    data = bundle(FILES, describe(FILES, str(target)), cms_signer())
    assert swupdate(tmp_path, data, self_signed().pem)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == FILES


@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
@pytest.mark.parametrize("at", [None, NOW])
def test_swupdate_accepts_our_signatures(kind: str, at: None, tmp_path: Path) -> None:
    pair = self_signed(kind)
    data = bundle(signer=CmsSigner(pair.parsed, pair.private, at=at))
    assert swupdate(tmp_path, data, pair.pem, "-c")


def test_swupdate_accepts_a_chain_from_its_trust_file(tmp_path: Path) -> None:
    data = bundle(signer=cms_signer(leaf()))
    assert swupdate(tmp_path, data, intermediate().pem + root().pem, "-c")
    assert ours(data, SignaturePolicy(Trust.load(intermediate().pem + root().pem), NOW))


@pytest.mark.slow
def test_swupdate_with_another_purpose(tmp_path: Path) -> None:
    pair = issue("Code", key_name="Leaf", purposes=(CODE,))
    data = bundle(signer=cms_signer(pair))
    assert swupdate(tmp_path, data, pair.pem, "-c", "--cert-purpose", "codeSigning")
    assert ours(data, policy(pair, purpose="codeSigning"))
    assert not swupdate(tmp_path, data, pair.pem, "-c")
    assert not ours(data, policy(pair))


@pytest.mark.parametrize(("name", "good"), [("Self rsa2048", True), ("Other", False)])
def test_swupdate_with_a_signers_name(name: str, good: bool, tmp_path: Path) -> None:
    data = bundle(signer=cms_signer())
    assert swupdate(tmp_path, data, self_signed().pem, "-c", "--forced-signer-name", name) is good
    assert ours(data, policy(signer_name=name)) is good


@pytest.mark.slow
def test_neither_trusts_an_intermediate_or_a_leaf_alone(tmp_path: Path) -> None:
    data = bundle(signer=CmsSigner(leaf().parsed, leaf().private, (intermediate().parsed,), NOW))
    for trusted in (intermediate(), leaf()):
        assert not swupdate(tmp_path, data, trusted.pem, "-c")
        assert not ours(data, policy(trusted))


@pytest.mark.parametrize(
    "broken", ["empty", "cut", "other content", "nobody", "expired", "no certificate", "unsigned", "damaged artifact"]
)
def test_both_refuse(broken: str, tmp_path: Path) -> None:
    description, trusted = describe(FILES), self_signed()
    good = cms_signer().sign(description)
    signer: Signed | None = Signed(good)
    if broken == "empty":
        signer = Signed(b"\n")
    elif broken == "cut":
        signer = Signed(good[:-1])
    elif broken == "other content":
        signer = Signed(cms_signer().sign(description + b"\n"))
    elif broken == "nobody":
        signer = Signed(cms_signer(root()).sign(description))
    elif broken == "expired":
        trusted = issue("Expired", days=(-9, -1), key_name="Leaf")
        signer = Signed(cms_signer(trusted).sign(description))
    elif broken == "no certificate":
        signer = Signed(openssl_sign(tmp_path, description, self_signed(), options=("-nocerts",)))
    elif broken == "unsigned":
        signer = None
    data = bundle(FILES, description, signer)
    if broken == "damaged artifact":
        data = data.replace(b"hello\n", b"hellp\n")
    assert not swupdate(tmp_path, data, trusted.pem, "-c")
    assert not ours(data, policy(trusted))


def test_we_read_what_swugenerator_writes(tmp_path: Path) -> None:
    if importlib.util.find_spec("swugenerator") is None:
        missing("swugenerator")
    pair: Pair = self_signed()
    (tmp_path / "cert.pem").write_bytes(pair.pem)
    (tmp_path / "key.pem").write_bytes(pair.key_pem)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    template = b'software = {\n version = "1.0";\n hardware-compatibility = [ "1.0" ];\n files: ('
    template += b", ".join(b'{ filename = "%s"; path = "/nowhere"; }' % name.encode() for name in FILES) + b");\n};\n"
    (tmp_path / "template").write_bytes(template)
    command = [sys.executable, "-m", "swugenerator.main", "-s", "template", "-a", ".", "-o", "out.swu"]
    command += ["-k", "CMS,key.pem,cert.pem", "create"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    data = (tmp_path / "out.swu").read_bytes()
    reader = read_bundle(io.BytesIO(data), policy())
    found = {artifact.name: b"".join(artifact.pieces()) for artifact in reader.members()}
    assert found == FILES
