# SPDX-License-Identifier: Apache-2.0
"""`regraft pack caibx`, and the verbs over casync indexes and ihop descriptions, here and behind a URL."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import regraft
from ihop_stores import described
from images import Pair

from regraft.cli._stores import default_stores, folder_of
from regraft.formats import caibx, ihop
from regraft.model import Algorithm
from regraft.server.static import StaticServer

Capture = pytest.CaptureFixture[str]


def reported(capsys: Capture, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert regraft(*arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: Pair) -> Path:
    (tmp_path / "old").write_bytes(pair.old)
    (tmp_path / "new").write_bytes(pair.new)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[StaticServer]:
    with StaticServer(folder) as running:
        yield running


def test_pack_has_the_options_of_casync(folder: Path, capsys: Capture, pair: Pair) -> None:
    facts = reported(
        capsys, "pack", "caibx", "new", "-o", "new.caibx", "--store", "all.castr", "--chunk-size", "4K:16K:64K",
        "--digest", "sha256", "--compression", "xz", "--level", "0", "--threads", "2",
    )  # fmt: skip
    files = list((folder / "all.castr").rglob("*.cacnk"))
    assert (facts["chunks_written"], facts["store"]) == (len(files), "all.castr")
    assert facts["bytes_written"] == sum(file.stat().st_size for file in files)
    assert all(file.read_bytes().startswith(b"\xfd7zXZ") for file in files)
    assert facts["image_digest"] == f"sha256:{Algorithm.SHA256.of(pair.new).hex()}"
    found = reported(capsys, "inspect", "new.caibx", "--chunks")
    assert found["chunker"] == "casync/4096/16384/65536"
    assert found["chunk_digest"] == "sha256"
    assert found["complete"]
    assert len(found["chunks"]) == found["chunk_count"] == facts["chunks"]
    assert sum(chunk["length"] for chunk in found["chunks"]) == found["image_size"] == len(pair.new)


def test_chunks_go_to_the_default_store_beside_the_index(folder: Path, capsys: Capture, pair: Pair) -> None:
    (folder / "out").mkdir()
    facts = reported(capsys, "pack", "caibx", "new", "-o", "out/new.caibx")
    assert facts["store"] == "out/default.castr"
    assert facts["chunks_written"] == len(list((folder / "out" / "default.castr").rglob("*.cacnk"))) > 0
    assert reported(capsys, "pack", "caibx", "new", "-o", "out/again.caibx")["chunks_written"] == 0
    reported(capsys, "unpack", "out/new.caibx", "-o", "image")
    assert (folder / "image").read_bytes() == pair.new


def test_an_index_alone_can_be_made(folder: Path, capsys: Capture) -> None:
    facts = reported(capsys, "pack", "caibx", "new", "-o", "new.caibx", "--no-store")
    assert (facts["store"], facts["chunks_written"]) == (None, 0)
    assert not (folder / "default.castr").exists()
    assert regraft("pack", "caibx", "new", "-o", "new.caibx", "--no-store", "--store", "x") == 2
    assert regraft("pack", "caibx", "new", "-o", "new.caibx", "--chunk-size", "9:8:7") == 2


def test_a_seed_saves_requests(folder: Path, server: StaticServer, capsys: Capture, pair: Pair) -> None:
    reported(capsys, "pack", "caibx", "new", "-o", "new.caibx", "--store", "new.castr")
    planned = reported(capsys, "plan", "new.caibx", "--seed", "old")
    before = server.counts.requests
    found = reported(capsys, "unpack", f"{server.url}/new.caibx", "-o", "out", "--seed", "old")
    assert (folder / "out").read_bytes() == pair.new
    assert server.counts.requests - before == planned["requests"] + 2  # and two for the index
    assert found["wire"] == found["fetched"]
    assert planned["at_most"]
    assert found["fetched"] <= planned["fetch"] <= planned["full"] // 2


def test_a_plan_says_what_it_does_not_know(folder: Path, capsys: Capture) -> None:
    reported(capsys, "pack", "caibx", "new", "-o", "new.caibx", "--no-store")
    assert regraft("plan", "new.caibx") == 0
    out = capsys.readouterr().out
    assert "at most" in out
    assert "one for each chunk" in out


def test_an_image_streams(folder: Path, capfdbinary: pytest.CaptureFixture[bytes], pair: Pair) -> None:
    assert regraft("pack", "caibx", "new", "-o", "new.caibx") == 0
    capfdbinary.readouterr()
    assert regraft("unpack", "new.caibx", "-o", "-", "--seed", "old") == 0
    assert capfdbinary.readouterr().out == pair.new


def test_stores_can_be_named(folder: Path, server: StaticServer, capsys: Capture, pair: Pair) -> None:
    reported(capsys, "pack", "caibx", "new", "-o", "new.caibx", "--store", "elsewhere")
    files = sorted((folder / "elsewhere").rglob("*.cacnk"))
    for file in files[::2]:
        there = folder / "second" / file.relative_to(folder / "elsewhere")
        there.parent.mkdir(parents=True, exist_ok=True)
        file.rename(there)
    assert regraft("unpack", "new.caibx", "-o", "out") == 52
    assert regraft("unpack", "new.caibx", "-o", "out", "--store", "elsewhere") == 52
    assert "--store" in capsys.readouterr().err
    reported(capsys, "unpack", "new.caibx", "-o", "out", "--store", "elsewhere", "--store", f"{server.url}/second")
    assert (folder / "out").read_bytes() == pair.new


def test_a_remote_chunk_that_is_missing_is_named(folder: Path, server: StaticServer, capsys: Capture) -> None:
    reported(capsys, "pack", "caibx", "new", "-o", "new.caibx")
    next((folder / "default.castr").rglob("*.cacnk")).unlink()
    assert regraft("unpack", f"{server.url}/new.caibx", "-o", "out") == 41
    assert ".cacnk answered 404" in capsys.readouterr().err


def test_an_interrupted_unpack_goes_on(folder: Path, capsys: Capture, pair: Pair) -> None:
    reported(capsys, "pack", "caibx", "new", "-o", "new.caibx")
    header = caibx.parse_header((folder / "new.caibx").read_bytes())
    file = folder / "default.castr" / caibx.paths(header.digests[len(header) - 5])[0]
    file.rename(folder / "kept")
    assert regraft("unpack", "new.caibx", "-o", "out") == 52
    (folder / "kept").rename(file)
    whole = sum(each.stat().st_size for each in (folder / "default.castr").rglob("*.cacnk"))
    assert reported(capsys, "unpack", "new.caibx", "-o", "out")["fetched"] < whole // 2
    assert (folder / "out").read_bytes() == pair.new


def test_a_remote_index_and_its_header_take_two_requests(folder: Path, server: StaticServer, capsys: Capture) -> None:
    reported(capsys, "pack", "caibx", "new", "-o", "new.caibx")
    before = server.counts.requests
    assert reported(capsys, "inspect", f"{server.url}/new.caibx")["format"] == "casync index"
    assert server.counts.requests - before == 2
    assert regraft("header", f"{server.url}/new.caibx", "-o", "copy.caibx") == 0
    assert (folder / "copy.caibx").read_bytes() == (folder / "new.caibx").read_bytes()
    assert regraft("header", "new.caibx", "-o", "copy.caibx", "--detached") == 2


def test_headers_of_other_formats_may_lie_behind_a_url(folder: Path, server: StaticServer, capsys: Capture) -> None:
    for kind in ("zck", "cba"):
        assert regraft("pack", kind, "new", "-o", f"new.{kind}") == 0
        assert regraft("header", f"{server.url}/new.{kind}", "-o", "remote") == 0
        assert regraft("header", f"new.{kind}", "-o", "local") == 0
        content = (folder / "local").read_bytes()
        assert content == (folder / "remote").read_bytes()
        assert (folder / f"new.{kind}").read_bytes().startswith(content)


def test_where_an_index_has_its_chunks_by_default(tmp_path: Path) -> None:
    assert default_stores("http://host/a/x.caibx?key=1") == [
        "http://host/a/x.castr?key=1", "http://host/a/default.castr?key=1",
    ]  # fmt: skip
    index = str(tmp_path / "x.caibx")
    both = [str(tmp_path / "x.castr"), str(tmp_path / "default.castr")]
    assert default_stores(index) == both
    (tmp_path / "default.castr").mkdir()
    assert default_stores(index) == both[1:]
    (tmp_path / "x.castr").mkdir()
    assert default_stores(index) == both
    assert default_stores(str(tmp_path / "unnamed")) == both[1:]
    assert default_stores("x.caibx") == ["x.castr", "default.castr"]
    assert folder_of("http://host/a/b?key=1") == "http://host/a?key=1"
    assert folder_of("x") == "."


def test_an_image_of_ihop_is_read(folder: Path, server: StaticServer, capsys: Capture, pair: Pair) -> None:
    image = pair.new[:500_000] + bytes(50_000)
    (folder / "store").mkdir()
    (folder / "store" / "name").write_bytes(described(folder / "store", image))
    found = reported(capsys, "inspect", "store/name", "--chunks")
    assert (found["format"], found["chunker"]) == ("ihop description", "fixed/5000")
    assert (found["chunk_count"], found["unique_chunks"]) == (110, 101)
    assert len(found["chunks"]) == 110
    reported(capsys, "unpack", "store/name", "-o", "out", "--seed", "old")
    assert (folder / "out").read_bytes() == image
    reported(capsys, "unpack", f"{server.url}/store/name", "-o", "remote")
    assert (folder / "remote").read_bytes() == image
    for output in ("filled", "cached"):
        reported(capsys, "unpack", "store/name", "-o", output, "--cache", "cache")
        assert (folder / output).read_bytes() == image
        kept = {file.relative_to(folder / "cache") for file in (folder / "cache").rglob("*.chunk")}
        assert len(kept) in (100, 101)  # zeros are not read
        assert all((folder / "cache" / each).read_bytes() == (folder / "store" / each).read_bytes() for each in kept)
    shutil.rmtree(folder / "store" / "chunks")
    assert regraft("unpack", "store/name", "-o", "again") == 52


@pytest.mark.parametrize("content", [caibx.MAGIC + bytes(9), caibx.MAGIC + b"\xff" * 90, ihop.MAGIC + b"\xff" * 40])
def test_nonsense_has_an_exit_status(folder: Path, server: StaticServer, capsys: Capture, content: bytes) -> None:
    (folder / "x").write_bytes(content)
    for place in ("x", f"{server.url}/x"):
        for verb in (("inspect", place), ("unpack", place, "-o", "out"), ("plan", place), ("header", place, "-o", "h")):
            assert regraft(*verb) in (10, 11, 12)
            assert "cure:" in capsys.readouterr().err


def test_chunks_of_many_connections_fit_into_64_mebibytes(folder: Path, server: StaticServer, capsys: Capture) -> None:
    """Sixteen requests for chunks of up to 4 MiB are more than the memory allows at once."""
    noise = random.Random(1).randbytes(4_000_000)
    (folder / "big").write_bytes(b"".join(noise[start:] + noise[:start] for start in range(0, 2_000_000, 170_000)))
    reported(capsys, "pack", "caibx", "big", "-o", "big.caibx", "--chunk-size", "1M:2M:4M", "--compression", "none")
    # ru_maxrss would be that of the test's own process, from which the new one came.
    code = (
        "from pathlib import Path\nfrom regraft.cli import main\ntry:\n    main()\nexcept SystemExit as end:\n"
        "    words = Path('/proc/self/status').read_text().split()\n"
        "    print(end.code or 0, words[words.index('VmHWM:') + 1])"
    )
    command = [sys.executable, "-c", code, "unpack", f"{server.url}/big.caibx", "-o", "out", "--seed", "old"]
    process = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    status, peak = process.stdout.split()
    assert status == "0"
    assert (folder / "out").read_bytes() == (folder / "big").read_bytes()
    assert int(peak) <= 64 << 10
