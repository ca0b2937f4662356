# SPDX-License-Identifier: Apache-2.0
"""Artifacts that are encrypted as they go into a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import regraft
from pki import self_signed

SECRET = bytes(range(256)) * 5000 + b"end"
TEMPLATE = """software = {{
  version = "1.0"; hardware-compatibility = [ "1.0" ];
  files: (
    {{ filename = "secret.bin"; path = "{folder}/out/secret"; {mark} sha256 = "$swupdate_get_sha256(secret.bin)"; }},
    {{ filename = "open.txt"; path = "{folder}/out/open"; sha256 = "$swupdate_get_sha256(open.txt)"; }}
  );
}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "secret.bin").write_bytes(SECRET)
    (tmp_path / "open.txt").write_bytes(b"for everybody\n")
    (tmp_path / "cert.pem").write_bytes(self_signed().pem)
    (tmp_path / "key.pem").write_bytes(self_signed().key_pem)
    (tmp_path / "aes.key").write_text(f"{'ab' * 32} {'cd' * 16}\n")
    return tmp_path


def build(folder: Path, *options: str, mark: str = "encrypted = true;") -> int:
    (folder / "description").write_text(TEMPLATE.format(folder=folder, mark=mark))
    signing = ("--key", "key.pem", "--cert", "cert.pem", "-o", "update.swu")
    return regraft("swu", "build", "--description", "description", "--file", "open.txt", *options, *signing)


def test_what_is_encrypted_is_installed_with_the_key(folder: Path) -> None:
    assert build(folder, "--encrypt", "secret.bin", "-K", "aes.key") == 0
    assert SECRET[:64] not in (folder / "update.swu").read_bytes()
    install = ("install", "-i", "update.swu", "-k", "cert.pem", "-H", "board:1.0")
    assert regraft(*install) == 2  # without the AES key
    assert regraft(*install, "-K", "aes.key") == 0
    assert (folder / "out/secret").read_bytes() == SECRET
    assert (folder / "out/open").read_bytes() == b"for everybody\n"


def test_the_description_must_say_what_is_encrypted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(folder, "--encrypt", "secret.bin", "-K", "aes.key", mark="") == 2
    assert "not marked so" in capsys.readouterr().err
    assert build(folder, "--file", "secret.bin") == 2
    assert "not given" in capsys.readouterr().err
    assert not (folder / "update.swu").exists()


@pytest.mark.parametrize("options", [("--encrypt", "secret.bin"), ("--file", "secret.bin", "-K", "aes.key")])
def test_key_and_artifact_go_together(folder: Path, options: tuple[str, ...]) -> None:
    assert build(folder, *options) == 2


def test_a_missing_file_is_an_error_with_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(folder, "--encrypt", "nowhere.bin", "-K", "aes.key") != 0
    assert "nowhere.bin" in capsys.readouterr().err
