# SPDX-License-Identifier: Apache-2.0
"""`regraft overlay`: what it refuses, and what it says without a daemon. What it does is shown to real kernels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import regraft

from regraft.blockdev import records
from regraft.blockdev.records import Record

Capture = pytest.CaptureFixture[str]
RECORD = Record(
    "overlay", "/dev/mapper/system", "/data/diff", 8192, 77, identifier="x", base="/dev/mmcblk0p3", merging=True
)


@pytest.mark.parametrize(
    ("name", "words"), [("../x", "no name"), ("control", "no name"), ("system", "no block device")]
)
def test_what_cannot_be_an_overlay(name: str, words: str, tmp_path: Path, state_folder: Path, capsys: Capture) -> None:
    (tmp_path / "base").write_bytes(bytes(4096))
    assert regraft("overlay", "create", name, "--base", tmp_path / "base", "--diff", "diff") == 2
    assert words in capsys.readouterr().err
    assert regraft("overlay", "create", "system", "--base", "/dev/nowhere", "--diff", "diff") == 2


@pytest.mark.parametrize("verb", ["merge", "swap", "remove", "status"])
def test_an_overlay_that_does_not_exist(verb: str, state_folder: Path, capsys: Capture) -> None:
    for name in ("system", "/dev/mapper/system", "../../etc"):
        assert regraft("overlay", verb, name) == 70
        assert "there is no overlay" in capsys.readouterr().err


def test_without_overlays_there_is_nothing_to_say(state_folder: Path, capsys: Capture) -> None:
    assert regraft("overlay", "status") == 0
    assert capsys.readouterr().out == ""


def test_after_a_start_of_the_system_the_record_is_there(state_folder: Path, capsys: Capture) -> None:
    records.write(RECORD)
    assert regraft("overlay", "status") == 0
    assert capsys.readouterr().out == "? ? system: gone, /data/diff over /dev/mmcblk0p3\n"
    assert regraft("overlay", "merge", "system") == 60
    assert "create the overlay again" in capsys.readouterr().err
    assert regraft("overlay", "swap", "system") == 60
    capsys.readouterr()
    assert regraft("status", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["mounts"]
    assert (found["kind"], found["state"], found["base"]) == ("overlay", "gone", "/dev/mmcblk0p3")


def test_what_is_merged_has_two_equal_numbers(state_folder: Path, capsys: Capture) -> None:
    records.write(Record("overlay", "/dev/mapper/system", "/d", 8192, 7, base="/dev/b", merged=True, blocks=512))
    assert regraft("overlay", "status", "system") == 0
    assert capsys.readouterr().out == "512 512 system: swapped, /d over /dev/b\n"
    assert regraft("overlay", "merge", "system") == 0
    assert "all is merged" in capsys.readouterr().err


def test_umount_is_not_for_overlays(state_folder: Path, capsys: Capture) -> None:
    records.write(RECORD)
    assert regraft("umount", "/dev/mapper/system") == 2
    assert "overlay remove" in capsys.readouterr().err
