# SPDX-License-Identifier: Apache-2.0
"""`regraft delta`, `update-diff`, `apply`, and `inspect` of what they make."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from commands import regraft
from deltas import blocks_pair, read_dm_update

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    old, new = blocks_pair(random.Random(4), 100, 4096)
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reported(capsys: Capture, *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert regraft(*arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


MAKERS = [
    ("delta", "old", "new", "-f", "dm-update", "-o", "file"),
    ("delta", "old", "new", "-f", "dm-update", "-a", "deflate", "--block-size", "512", "-o", "file"),
    ("delta", "old", "new", "-f", "cow", "-o", "file"),
    ("delta", "old", "new", "-f", "cow", "--version", "2", "-a", "gz", "--no-xor", "-o", "file"),
    ("update-diff", "old", "new", "-o", "file", "-a", "lz4"),
    ("update-diff", "old", "new", "-o", "file"),
]  # fmt: skip


@pytest.mark.parametrize("maker", MAKERS, ids=lambda words: " ".join(words[3:]))
def test_what_is_made_is_applied_and_inspected(folder: Path, capsys: Capture, maker: tuple[str, ...]) -> None:
    made = reported(capsys, *maker)
    assert made["size"] == (folder / "file").stat().st_size
    assert made["image_digest"] == "sha256:" + hashlib.sha256((folder / "new").read_bytes()).hexdigest()
    found = reported(capsys, "apply", "file", "--base", "old", "-o", "out")
    assert (folder / "out").read_bytes() == (folder / "new").read_bytes()
    assert 0 < found["fetched"] < made["size"]
    seen = reported(capsys, "inspect", "file", "--chunks")
    assert seen["size"] == made["size"]
    assert seen["chunks"]
    beside = reported(capsys, "inspect", "file.sidecar")
    assert (beside["delta"], beside["image_digest"]) == (seen["identity"], made["image_digest"])
    assert regraft("inspect", "file") == regraft("inspect", "file.sidecar") == 0


def test_both_spellings_make_the_same_file(folder: Path) -> None:
    assert regraft("delta", "old", "new", "-f", "dm-update", "-a", "zstd", "-o", "one") == 0
    assert regraft("update-diff", "old", "new", "-o", "two", "-a", "zstd") == 0
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes()
    assert (folder / "one.sidecar").read_bytes() == (folder / "two.sidecar").read_bytes()
    old, new = (folder / "old").read_bytes(), (folder / "new").read_bytes()
    assert read_dm_update((folder / "one").read_bytes(), old, len(new)) == new


def test_without_its_sidecar_a_digest_must_be_given(folder: Path, capsys: Capture) -> None:
    assert regraft("update-diff", "old", "new", "-o", "file") == 0
    (folder / "file.sidecar").rename("elsewhere")
    assert regraft("apply", "file", "--base", "old", "-o", "out") == 70
    assert "file.sidecar" in capsys.readouterr().err
    assert not (folder / "out").exists()
    assert regraft("apply", "file", "--base", "old", "-o", "out", "--sidecar", "elsewhere") == 0
    (folder / "out").unlink()
    right = hashlib.sha256((folder / "new").read_bytes()).hexdigest()
    assert regraft("apply", "file", "--base", "old", "-o", "out", "--sha256", right) == 0
    assert (folder / "out").read_bytes() == (folder / "new").read_bytes()
    assert regraft("apply", "file", "--base", "old", "-o", "other", "--sha256", "00" * 32) == 22
    assert regraft("apply", "file", "--base", "old", "-o", "other", "--sha256", "00") == 2
    assert regraft("apply", "file", "--base", "old", "-o", "o", "--sha256", "00" * 32, "--sidecar", "elsewhere") == 22
    assert not (folder / "o").exists()


def test_another_base_is_refused_before_anything_is_written(folder: Path, capsys: Capture) -> None:
    assert regraft("update-diff", "old", "new", "-o", "file") == 0
    (folder / "out").write_bytes(b"precious")
    assert regraft("apply", "file", "--base", "new", "-o", "out") == 22
    assert "base" in capsys.readouterr().err
    assert (folder / "out").read_bytes() == b"precious"


@pytest.mark.parametrize("output", ["old", "new"])
def test_an_image_is_not_overwritten(folder: Path, output: str) -> None:
    before = (folder / output).read_bytes()
    for form in ("dm-update", "cow"):
        assert regraft("delta", "old", "new", "-f", form, "-o", output) == 2
    assert regraft("update-diff", "old", "new", "-o", "file") == 0
    assert regraft("apply", "file", "--base", "old", "-o", "old") == 2
    assert regraft("apply", "file", "--base", "old", "-o", "file") == 2
    assert (folder / output).read_bytes() == before


def test_an_interrupted_apply_continues(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from regraft.engine.write import Writer

    assert regraft("delta", "old", "new", "-f", "dm-update", "-o", "file", "--chunk-size", "4Ki") == 0
    real, done = Writer._unit, []

    def dies(self: Writer, unit: int, *rest: object) -> None:
        done.append(unit)
        if len(done) > 5:
            raise KeyboardInterrupt
        real(self, unit, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Writer, "_unit", dies)
    assert regraft("apply", "file", "--base", "old", "-o", "out", "--threads", "1") == 130
    monkeypatch.setattr(Writer, "_unit", real)
    found = reported(capsys, "apply", "file", "--base", "old", "-o", "out")
    assert found["resumed"]
    assert (folder / "out").read_bytes() == (folder / "new").read_bytes()


@pytest.mark.parametrize("content", [b"", b"update\0\0", b"!!WOcwoC", b"RGSIDE\0\x01", b"update\0\0" + b"\xff" * 90])
def test_nonsense_has_an_exit_status(folder: Path, capsys: Capture, content: bytes) -> None:
    (folder / "x").write_bytes(content)
    (folder / "x.sidecar").write_bytes(content)
    for verb in (("inspect", "x"), ("apply", "x", "--base", "old", "-o", "out"), ("inspect", "x.sidecar")):
        assert regraft(*verb) in (10, 11, 12)
        assert "cure:" in capsys.readouterr().err


def test_images_of_odd_sizes_come_with_a_warning(folder: Path, capsys: Capture) -> None:
    with (folder / "new").open("ab") as file:
        file.write(b"tail")
    made = reported(capsys, "update-diff", "old", "new", "-o", "file")
    assert len(made["warnings"]) == 2
    small = ("--block-size", "512", "--chunk-size", "1Ki")
    assert reported(capsys, "delta", "old", "new", "-f", "cow", "-o", "cow", *small)["warnings"]
    for name in ("file", "cow"):
        assert regraft("apply", name, "--base", "old", "-o", f"{name}.out") == 0
        assert (folder / f"{name}.out").read_bytes() == (folder / "new").read_bytes()


def test_wrong_options_are_named(folder: Path, capsys: Capture) -> None:
    for words in (("-a", "gz"), ("--block-size", "1000"), ("--chunk-size", "5000"), ("-a", "deflate", "--level", "12")):
        assert regraft("delta", "old", "new", "-f", "dm-update", "-o", "file", *words) == 2
        assert regraft("delta", "old", "new", "-f", "cow", "-o", "file", "-a", "lzo") == 2
    assert not (folder / "file").exists()
