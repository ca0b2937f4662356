# SPDX-License-Identifier: Apache-2.0
"""`regraft merge`: forecasts, merges files in place, continues, and leaves nothing behind."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import regraft
from images import Pair

from regraft.engine.files import FileMedium
from regraft.engine.state import state_of
from regraft.errors import MediumError
from regraft.limits import Limits
from regraft.server.static import StaticServer

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: Pair) -> Path:
    (tmp_path / "old").write_bytes(pair.old)
    (tmp_path / "new").write_bytes(pair.new)
    (tmp_path / "slot").write_bytes(pair.old)
    monkeypatch.chdir(tmp_path)
    assert regraft("pack", "zck", "new", "-o", "new.zck") == 0
    assert regraft("pack", "cba", "new", "-o", "new.cba", "--compression", "none", "--avg-chunk-size", "8KiB",
                   "--min-chunk-size", "2KiB", "--max-chunk-size", "64KiB") == 0  # fmt: skip
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[StaticServer]:
    with StaticServer(folder) as running:
        yield running


def reported(capsys: Capture, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert regraft("merge", *arguments, "--json", "--progress", "none") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("artifact", ["new.zck", "new.cba"])
@pytest.mark.parametrize("window", ["64Ki", "8Mi"])
def test_the_base_becomes_the_image(folder: Path, pair: Pair, capsys: Capture, artifact: str, window: str) -> None:
    facts = reported(capsys, artifact, "--base", "slot", "--window", window)
    assert (folder / "slot").read_bytes() == pair.new
    assert facts["complete"] is True
    assert facts["resumed"] is False
    assert facts["in_place"] > 500_000
    assert facts["in_place"] + facts["direct"] + facts["journaled"] == facts["image"] == len(pair.new)
    left = {name for name in os.listdir() if name.startswith("slot")}
    assert left == {"slot", "slot.regraft.index"}


def test_a_merge_leaves_the_index_of_the_new_image(folder: Path, pair: Pair, capsys: Capture) -> None:
    reported(capsys, "new.zck", "--base", "slot")
    kept = state_of("slot")
    assert kept is not None
    index = kept.load_index()
    assert index is not None
    assert index.size == len(pair.new)
    assert reported(capsys, "new.zck", "--base", "slot")["in_place"] == len(pair.new)


def test_a_dry_run_says_what_it_takes_and_writes_nothing(folder: Path, pair: Pair, capsys: Capture) -> None:
    before = {name: Path(name).stat().st_mtime_ns for name in os.listdir()}
    facts = reported(capsys, "new.zck", "--base", "slot", "--dry-run")
    assert facts["dry_run"] is True
    assert facts["written"] >= facts["direct"] + 2 * facts["journaled"]
    assert facts["seconds"] > 0
    assert regraft("merge", "new.zck", "--base", "slot", "-n", "--progress", "none") == 0
    words = capsys.readouterr().out
    for word in ("batches", "conversions", "written", "flash wear", "time"):
        assert word in words
    assert {name: Path(name).stat().st_mtime_ns for name in os.listdir()} == before


def test_what_is_missing_is_fetched_before_the_first_write(
    folder: Path, pair: Pair, capsys: Capture, server: StaticServer
) -> None:
    (folder / "away").mkdir()
    (folder / "new.zck").rename(folder / "away" / "new.zck")
    facts = reported(capsys, f"{server.url}/away/new.zck", "--base", "slot")
    assert (folder / "slot").read_bytes() == pair.new
    assert 100_000 < facts["fetched"] < len(pair.new) // 2
    assert not Path("slot.regraft.merge-data").exists()


def test_chunks_that_are_files_of_their_own_are_fetched_too(
    folder: Path, pair: Pair, capsys: Capture, server: StaticServer
) -> None:
    (folder / "away").mkdir()
    assert regraft("pack", "caibx", "new", "-o", "away/new.caibx", "--store", "away/new.castr") == 0
    facts = reported(capsys, f"{server.url}/away/new.caibx", "--base", "slot")
    assert (folder / "slot").read_bytes() == pair.new
    assert 100_000 < facts["fetched"] < len(pair.new) // 2


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["new.zck", "--base", "nowhere"], 52, "No such file"),
        (["slot", "--base", "slot"], 2, "the artifact itself"),
        (["old", "--base", "slot"], 10, ""),
    ],
)
def test_bad_arguments_are_refused(
    folder: Path, pair: Pair, capsys: Capture, arguments: list[str], status: int, words: str
) -> None:
    assert regraft("merge", *arguments) == status
    assert words in capsys.readouterr().err
    assert (folder / "slot").read_bytes() == pair.old
    assert not Path("nowhere").exists()


def test_a_merge_that_began_and_whose_index_is_gone_is_an_error(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(medium: FileMedium, offset: int, data: object) -> None:
        if medium.name == "slot":
            raise MediumError("write slot: Input/output error")
        write(medium, offset, data)  # type: ignore[arg-type]

    write = FileMedium.write
    with monkeypatch.context() as patch:
        patch.setattr(FileMedium, "write", fail)
        assert regraft("merge", "new.zck", "--base", "slot") == 50
    index = Path("slot.regraft.merge-index")
    whole = index.read_bytes()
    for content in (None, b"", whole[:-1]):
        index.unlink()
        if content is not None:
            index.write_bytes(content)
        assert regraft("merge", "new.zck", "--base", "slot") == 60
        assert "slot.regraft.merge-index" in capsys.readouterr().err
        index.write_bytes(whole)
    assert regraft("merge", "new.zck", "--base", "slot") == 0


def test_an_archive_with_short_digests_is_refused(folder: Path, capsys: Capture) -> None:
    assert regraft("pack", "cba", "new", "-o", "short.cba", "--compression", "none", "--hash-length", "8") == 0
    assert regraft("merge", "short.cba", "--base", "slot") == 11
    assert "too short" in capsys.readouterr().err


DELTAS = {
    "dm-update": ["-f", "dm-update", "-a", "zstd", "--level", "1"],
    "raw": ["-f", "dm-update", "-a", "none"],
    "cow": ["-f", "cow", "--level", "1"],
    "cow2": ["-f", "cow", "--version", "2", "-a", "gz"],
}


@pytest.fixture(params=DELTAS)
def delta(request: pytest.FixtureRequest, folder: Path) -> str:
    assert regraft("delta", "old", "new", *DELTAS[request.param], "-o", "delta") == 0
    return "delta"


def test_a_delta_is_merged_into_its_base(folder: Path, pair: Pair, capsys: Capture, delta: str) -> None:
    assert reported(capsys, delta, "--base", "slot", "--dry-run")["image"] == len(pair.new)
    assert (folder / "slot").read_bytes() == pair.old
    facts = reported(capsys, delta, "--base", "slot")
    assert facts["complete"] is True
    assert (folder / "slot").read_bytes() == pair.new
    assert {name for name in os.listdir() if name.startswith("slot")} == {"slot"}


def test_a_merged_delta_is_complete_when_it_is_merged_again(
    folder: Path, pair: Pair, capsys: Capture, delta: str
) -> None:
    reported(capsys, delta, "--base", "slot")
    facts = reported(capsys, delta, "--base", "slot")
    assert (facts["complete"], facts["direct"], facts["journaled"]) == (True, 0, 0)
    assert {name for name in os.listdir() if name.startswith("slot")} == {"slot"}


def test_a_delta_is_not_merged_into_another_base(folder: Path, pair: Pair, capsys: Capture, delta: str) -> None:
    other = bytearray(pair.old)
    other[len(other) // 2] ^= 1
    for content, words in ((other, "not the base"), (pair.old[:-4096], "")):
        (folder / "slot").write_bytes(content)
        for more in ([], ["--dry-run"]):
            assert regraft("merge", delta, "--base", "slot", *more) == 22
            assert words in capsys.readouterr().err
        assert (folder / "slot").read_bytes() == content
        assert {name for name in os.listdir() if name.startswith("slot")} == {"slot"}


def test_a_delta_wants_its_sidecar(folder: Path, pair: Pair, capsys: Capture, delta: str) -> None:
    Path("delta.sidecar").rename("elsewhere")
    assert regraft("merge", delta, "--base", "slot") == 70
    assert "there is no sidecar" in capsys.readouterr().err
    assert regraft("merge", delta, "--base", "slot", "--sidecar", "elsewhere", "--no-sidecar") == 2
    assert (folder / "slot").read_bytes() == pair.old
    reported(capsys, delta, "--base", "slot", "--sidecar", "elsewhere")
    assert (folder / "slot").read_bytes() == pair.new


def test_only_on_demand_a_delta_is_merged_without_a_sidecar(folder: Path, capsys: Capture) -> None:
    old, new = bytes(1 << 18), b"new" * 1000 + bytes((1 << 18) - 3000)
    (folder / "old").write_bytes(old)
    (folder / "new").write_bytes(new)
    (folder / "slot").write_bytes(old)
    assert regraft("delta", "old", "new", "-f", "dm-update", "-o", "delta") == 0
    Path("delta.sidecar").unlink()
    reported(capsys, "delta", "--base", "slot", "--no-sidecar")
    assert (folder / "slot").read_bytes() == new


def test_the_merge_of_another_plan_must_be_finished_first(folder: Path, capsys: Capture) -> None:
    from regraft.engine.delta_merge import DeltaMerge
    from regraft.engine.deltas import find_sidecar
    from regraft.engine.files import open_source, open_target

    assert regraft("delta", "old", "new", *DELTAS["raw"], "-o", "delta") == 0
    assert regraft("delta", "old", "new", *DELTAS["cow"], "-o", "other") == 0
    target, source = open_target("slot"), open_source("delta")
    work = DeltaMerge(source, target, state_of("slot"), find_sidecar("delta"), limits=Limits(merge_batch=65536))
    merge = work.merge
    merge.base.sync = lambda: merge.stop()  # type: ignore[method-assign]  # after the first batch
    assert not work.run()
    work.close()
    target.close()
    source.close()
    for other, words in {"other": "finish that one first", "new.zck": "finish that one first"}.items():
        assert regraft("merge", other, "--base", "slot") == 60
        assert words in capsys.readouterr().err
