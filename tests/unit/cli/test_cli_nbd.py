# SPDX-License-Identifier: Apache-2.0
"""`regraft nbd`: what it refuses, and how. What it serves is shown to real clients, in the conformance tests."""

from __future__ import annotations

from pathlib import Path

import pytest

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


@pytest.mark.parametrize("magic", [b"\0ZCK1", b"\0ZHR1"])
def test_a_zchunk_file_is_to_be_unpacked_first(
    tmp_path: Path, magic: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rootfs.zck").write_bytes(magic + bytes(100))
    assert status(str(tmp_path / "rootfs.zck"), "--socket", str(tmp_path / "s")) == 11
    assert "regraft unpack" in capsys.readouterr().err


def test_options_that_contradict_each_other(image: str, tmp_path: Path) -> None:
    for options in (
        ["--socket", str(tmp_path / "s"), "--port", "0"],
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
