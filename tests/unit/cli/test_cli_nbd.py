# SPDX-License-Identifier: Apache-2.0
"""`regraft nbd`: what it refuses, and how. What it serves is shown to real clients, in the conformance tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from images import pack

from regraft.cli import main


@pytest.fixture
def image(tmp_path: Path) -> str:
    (tmp_path / "disk.img").write_bytes(b"x" * 4096)
    return str(tmp_path / "disk.img")


def status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["nbd", *arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def test_what_only_begins_like_an_artifact(tmp_path: Path) -> None:
    (tmp_path / "rootfs.zck").write_bytes(b"\0ZCK1" + bytes(100))
    assert status(str(tmp_path / "rootfs.zck"), "--socket", str(tmp_path / "s")) == 10


def test_a_detached_header_has_no_image_to_serve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = pack(b"x" * 9999)
    (tmp_path / "rootfs.zck").write_bytes(artifact.content[: artifact.header.size])
    assert status(str(tmp_path / "rootfs.zck"), "--socket", str(tmp_path / "s")) == 10
    assert "only a header" in capsys.readouterr().err


def test_what_is_kept_is_of_one_artifact(image: str, tmp_path: Path) -> None:
    keep = str(tmp_path / "kept")
    assert status(image, "--keep", keep) == 2
    assert status(image, image, "--keep", keep) == 2
    assert not (tmp_path / "kept").exists()


def test_a_file_with_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.zck").write_bytes(pack(b"x" * 9999).content)
    (tmp_path / "precious").write_bytes(b"precious")
    assert status(str(tmp_path / "a.zck"), "--keep", str(tmp_path / "precious"), "--port", "0") == 60
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_options_that_contradict_each_other(image: str, tmp_path: Path) -> None:
    for options in (
        ["--socket", str(tmp_path / "s"), "--port", "0"],
        ["--socket", str(tmp_path / "s"), "--host", "127.0.0.1"],
        ["--socket", str(tmp_path / "s"), "--no-read-ahead"],
        ["--socket", str(tmp_path / "s"), "--no-read-ahead", "--base", image],
        ["--tls-cert", image],
        ["--tls-key", image],
        ["--tls-ca", image],
        ["--tls-cert", image, "--tls-key", image],
        ["--name", "a", "--name", "b"],
        ["--name", "x" * 4097],
        ["--port", "65536"],
    ):
        assert status(image, *options) == 2
    assert status(image, image) == 2  # two exports of one name
    assert status() == 2


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    assert status(str(tmp_path / "missing")) == 52
