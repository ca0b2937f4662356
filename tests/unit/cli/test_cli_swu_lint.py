# SPDX-License-Identifier: Apache-2.0
"""`regraft swu lint`: words on stdout, exit statuses, JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from swu_facts import archive

from regraft.cli import main

BODY = b"payload"
HEAD = 'version = "1.0"; hardware-compatibility = ["1.0"];'


def bundle(folder: Path, attributes: str = "") -> str:
    sha = hashlib.sha256(BODY).hexdigest()
    text = f'software = {{ {HEAD} images: ( {{ filename = "a"; device = "d"; sha256 = "{sha}"; {attributes} }} ); }};'
    path = folder / "bundle.swu"
    path.write_bytes(archive([("sw-description", text.encode()), ("sw-description.sig", b"s"), ("a", BODY)]))
    return str(path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["swu", "lint", *arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_a_good_bundle_ends_in_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bundle(tmp_path)) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "0 errors" in err


def test_an_error_ends_in_20_and_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bundle(tmp_path, 'type = "shellscript";')) == 20
    out = capsys.readouterr().out
    assert "error: software.images[0]: the handler shellscript is not allowed in 'images' [entry.section]" in out
    assert "    move the entry to 'scripts'" in out


def test_a_generation_has_its_own_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bundle(tmp_path, 'compressed = "xz";')
    assert [run(path, "--generation", generation) for generation in ("2022.12", "current", "all")] == [20, 0, 20]
    assert "(2022.12 only)" in capsys.readouterr().out


def test_strict_fails_on_warnings(tmp_path: Path) -> None:
    path = bundle(tmp_path, "install-directly = true;")
    assert [run(path), run(path, "--strict")] == [0, 20]


def test_json_tells_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bundle(tmp_path, 'compressed = "xz";'), "--json") == 20
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["ok"]) == ("lint", False)
    assert [(finding["rule"], finding["generations"]) for finding in told["findings"]] == [
        ("entry.compressed", ["2022.12"])
    ]


def test_text_from_the_bundle_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(bundle(tmp_path, 'type = "x\\x1b[2Jy";'))
    assert "\x1b" not in capsys.readouterr().out


def test_a_file_that_is_no_bundle_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 300)
    assert run(str(path)) == 20
    assert "container.broken" in capsys.readouterr().out


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    assert run(str(tmp_path / "none")) == 2
