# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_bundles import FILES, bundle, cms_signer, describe
from pki import root, self_signed

from regraft.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "signed.swu").write_bytes(bundle(signer=cms_signer()))
    (tmp_path / "unsigned.swu").write_bytes(bundle())
    (tmp_path / "cert.pem").write_bytes(self_signed().pem)
    (tmp_path / "other.pem").write_bytes(root().pem)
    unlisted = bundle({**FILES, "extra": b"?"}, describe(FILES), cms_signer())
    (tmp_path / "unlisted.swu").write_bytes(unlisted)
    swapped = dict(zip(FILES, reversed(FILES.values()), strict=True))
    (tmp_path / "swapped.swu").write_bytes(bundle(swapped, describe(FILES), cms_signer()))
    (tmp_path / "short.swu").write_bytes(bundle({"notes.txt": FILES["notes.txt"]}, describe(FILES), cms_signer()))
    (tmp_path / "nonsense.swu").write_bytes(bundle(description=b"software = {", signer=cms_signer()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["swu", *arguments])
    return int(exit_.value.code or 0)


def test_verify_names_the_signer_and_every_artifact(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "signed.swu", "-k", "cert.pem") == 0
    out, err = capsys.readouterr()
    assert "signed by CN=Self rsa2048" in out
    assert all(name in out for name in FILES)
    assert "verified" in err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["signed.swu"], 2, "without a trusted key"),
        (["signed.swu", "-k", "missing.pem"], 2, "missing.pem"),
        (["missing.swu", "-k", "cert.pem"], 2, "missing.swu"),
        (["signed.swu", "-k", "signed.swu"], 10, "needs certificates"),
        (["signed.swu", "-k", "other.pem"], 21, "not trusted"),
        (["signed.swu", "-k", "cert.pem", "--purpose", "codeSigning"], 21, "codeSigning"),
        (["signed.swu", "-k", "cert.pem", "--signer-name", "Nobody"], 21, "Nobody"),
        (["unsigned.swu", "-k", "cert.pem"], 21, "no signature"),
        (["unlisted.swu", "-k", "cert.pem"], 23, "extra"),
        (["cert.pem", "-k", "cert.pem"], 10, "no cpio header"),
        (["swapped.swu", "-k", "cert.pem"], 22, "lists"),
        (["short.swu", "-k", "cert.pem"], 10, "not in the bundle"),
        (["nonsense.swu", "-k", "cert.pem"], 10, "the text ends"),
    ],
)
def test_verify_fails_with_the_status_of_the_cause(
    arguments: list[str], status: int, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", *arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "cure:" in err


def test_inspect_needs_no_key_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", "signed.swu", "--json") == 0
    out, err = capsys.readouterr()
    assert "NOT VERIFIED" in err
    fields = json.loads(out)
    assert (fields["verified"], fields["signed"], fields["signers"]) == (False, True, ["CN=Self rsa2048"])
    assert [member["name"] for member in fields["members"]] == ["sw-description", "sw-description.sig", *FILES]
    assert fields["description"] == describe(FILES).decode()


@pytest.mark.parametrize("name", ["signed.swu", "unsigned.swu"])
def test_inspect_says_in_its_text_too_that_nothing_is_verified(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("inspect", name) == 0
    assert capsys.readouterr().out.startswith("NOT VERIFIED")


def test_inspect_with_a_key_verifies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", "signed.swu", "-k", "cert.pem") == 0
    out, err = capsys.readouterr()
    assert "NOT VERIFIED" not in out + err
    assert run("inspect", "signed.swu", "-k", "other.pem") == 21


def test_inspect_does_not_steer_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "evil.swu").write_bytes(bundle(description=b"\x1b]0;gotcha\x07 software = {}"))
    assert run("inspect", "evil.swu") == 0
    assert "\x1b" not in capsys.readouterr().out


def test_inspect_gives_the_description_as_it_is(folder: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run("inspect", "unsigned.swu", "--description") == 0
    assert capfdbinary.readouterr().out == describe(FILES)


def test_extract_writes_the_members(folder: Path) -> None:
    assert run("extract", "signed.swu", "-C", "out", "-k", "cert.pem") == 0
    found = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    assert {name: found[name] for name in FILES} == FILES
    assert found["sw-description"] == describe(FILES)
    assert set(found) == {*FILES, "sw-description", "sw-description.sig"}


def test_extract_makes_folders_below_its_own(folder: Path) -> None:
    (folder / "deep.swu").write_bytes(bundle({"x/y/z": b"deep"}))
    assert run("extract", "deep.swu", "-C", "out", "--unsigned") == 0
    assert (folder / "out/x/y/z").read_bytes() == b"deep"


def test_extract_writes_nothing_that_is_not_verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("extract", "signed.swu", "-C", "out") == 2
    assert run("extract", "signed.swu", "-C", "out", "-k", "cert.pem", "--unsigned") == 2
    assert run("extract", "signed.swu", "-C", "out", "-k", "other.pem") == 21
    assert not (folder / "out").exists()
    assert run("extract", "unlisted.swu", "-C", "out", "-k", "cert.pem") == 23
    assert "extra" not in {path.name for path in (folder / "out").iterdir()}
    assert run("extract", "swapped.swu", "-C", "swapped", "-k", "cert.pem") == 22
    assert not set(FILES) & {path.name for path in (folder / "swapped").iterdir()}
    assert run("extract", "unsigned.swu", "-C", "free", "--unsigned") == 0
    assert "NOT VERIFIED" in capsys.readouterr().err


def test_extract_overwrites_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").mkdir()
    (folder / "out/notes.txt").write_bytes(b"mine")
    assert run("extract", "signed.swu", "-C", "out", "-k", "cert.pem") == 2
    assert (folder / "out/notes.txt").read_bytes() == b"mine"
    assert "already" in capsys.readouterr().err


def test_extract_follows_no_links(folder: Path) -> None:
    outside = folder / "outside"
    outside.mkdir()
    (folder / "out").mkdir()
    (folder / "out/x").symlink_to(outside)
    (folder / "out/notes.txt").symlink_to(outside / "new")
    (folder / "deep.swu").write_bytes(bundle({"x/y": b"deep"}))
    assert run("extract", "deep.swu", "-C", "out", "--unsigned") == 50
    assert run("extract", "signed.swu", "-C", "out", "-k", "cert.pem") == 2
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("verb", ["verify", "inspect", "extract"])
def test_help_has_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, "--help") == 0
    assert f"regraft swu {verb} update.swu" in capsys.readouterr().out
