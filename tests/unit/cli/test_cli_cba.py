# SPDX-License-Identifier: Apache-2.0
"""`regraft pack cba`, and the verbs that know a bita archive by its magic, here and behind a URL."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from images import Pair

from regraft.cli import main
from regraft.server.static import StaticServer

Capture = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([*arguments])
    return int(exit_.value.code or 0)


def reported(capsys: Capture, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run(*arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: Pair) -> Path:
    (tmp_path / "old").write_bytes(pair.old)
    (tmp_path / "new").write_bytes(pair.new)
    (tmp_path / "notes").write_bytes(b"\0\1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[StaticServer]:
    with StaticServer(folder) as running:
        yield running


def test_pack_has_the_options_of_bita(folder: Path, capsys: Capture) -> None:
    facts = reported(
        capsys, "pack", "cba", "new", "-o", "new.cba", "--hash-chunking", "BuzHash", "--avg-chunk-size", "8KiB",
        "--min-chunk-size", "2048B", "--max-chunk-size", "64KiB", "--rolling-window-size", "20B",
        "--compression", "brotli",
        "--compression-level", "2", "--hash-length", "32", "--metadata-value", "b", "two", "--metadata-value", "n", "x",
        "--metadata-file", "n", "notes",
    )  # fmt: skip
    assert facts["size"] == (folder / "new.cba").stat().st_size
    found = reported(capsys, "inspect", "new.cba", "--chunks")
    assert found["chunker"] == "bita-buzhash/20/12/2048/65536"
    assert (found["compression"], found["compression_level"]) == ("brotli", 2)
    assert found["metadata"] == {"b": "two", "n": "hex:0001"}
    assert found["chunk_digest"] == "blake2b512_256"
    assert found["complete"]
    assert len(found["chunks"]) == found["chunk_count"] == facts["chunks"]


def test_a_fixed_size_is_a_chunker(folder: Path, capsys: Capture) -> None:
    reported(capsys, "pack", "cba", "new", "-o", "new.cba", "--fixed-size", "10000", "--compression", "none")
    assert reported(capsys, "inspect", "new.cba")["chunker"] == "fixed/10000"


@pytest.mark.parametrize("compression", ["lzma", "zstd"])
def test_what_a_stock_bita_refuses_is_written_with_a_warning(folder: Path, capsys: Capture, compression: str) -> None:
    facts = reported(capsys, "pack", "cba", "notes", "-o", "x.cba", "--compression", compression)
    assert compression in facts["warnings"][0]
    assert run("pack", "cba", "notes", "-o", "x.cba", "--compression", compression) == 0
    assert "warning: bita reads" in capsys.readouterr().err


def test_an_archive_is_known_by_its_magic(folder: Path, capsys: Capture, pair: Pair) -> None:
    reported(capsys, "pack", "cba", "new", "-o", "artifact")
    planned = reported(capsys, "plan", "artifact", "--seed", "old")
    found = reported(capsys, "unpack", "artifact", "-o", "out", "--seed", "old")
    assert (folder / "out").read_bytes() == pair.new
    assert planned["fetch"] == found["fetched"] < planned["full"] / 2
    assert planned["image"] == len(pair.new)


def test_an_archive_streams(folder: Path, capfdbinary: pytest.CaptureFixture[bytes], pair: Pair) -> None:
    assert run("pack", "cba", "new", "-o", "new.cba") == 0
    capfdbinary.readouterr()
    assert run("unpack", "new.cba", "-o", "-", "--seed", "old") == 0
    assert capfdbinary.readouterr().out == pair.new


def test_a_remote_header_takes_two_requests(folder: Path, server: StaticServer, capsys: Capture, pair: Pair) -> None:
    reported(capsys, "pack", "cba", "new", "-o", "new.cba")
    url = f"{server.url}/new.cba"
    before = server.counts.requests
    local = reported(capsys, "inspect", "new.cba")
    remote = reported(capsys, "inspect", url)
    assert server.counts.requests - before == 2
    assert remote["digest"] == local["digest"]
    found = reported(capsys, "unpack", url, "-o", "out", "--seed", "old")
    assert (folder / "out").read_bytes() == pair.new
    assert found["wire"] < (folder / "new.cba").stat().st_size / 2


def test_a_remote_archive_that_is_cut_off_is_an_error(folder: Path, server: StaticServer, capsys: Capture) -> None:
    reported(capsys, "pack", "cba", "new", "-o", "new.cba")
    (folder / "cut.cba").write_bytes((folder / "new.cba").read_bytes()[:-100])
    assert run("unpack", f"{server.url}/cut.cba", "-o", "out") == 10
    assert "its chunks end at" in capsys.readouterr().err
    assert run("unpack", "cut.cba", "-o", "out") == 10
    assert not reported(capsys, "inspect", "cut.cba")["complete"]


def test_with_short_hashes_no_seed_is_used(folder: Path, capsys: Capture, pair: Pair) -> None:
    reported(capsys, "pack", "cba", "new", "-o", "new.cba", "--hash-length", "4")
    found = reported(capsys, "unpack", "new.cba", "-o", "out", "--seed", "old")
    assert (folder / "out").read_bytes() == pair.new
    assert found["fetched"] == reported(capsys, "inspect", "new.cba")["body_size"]


def test_inspect_for_a_person_shows_what_is_in_it(folder: Path, capsys: Capture) -> None:
    reported(capsys, "pack", "cba", "notes", "-o", "x.cba", "--metadata-value", "k\x1b", "v\x1b")
    assert run("inspect", "x.cba", "--chunks") == 0
    out = capsys.readouterr().out
    assert "bita archive" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("content", [b"", b"BITA1\0", b"BITA1\0" + b"\xff" * 40, b"nonsense" * 9])
def test_nonsense_has_an_exit_status(folder: Path, capsys: Capture, content: bytes) -> None:
    (folder / "x").write_bytes(content)
    for verb in (("inspect", "x"), ("unpack", "x", "-o", "out"), ("plan", "x")):
        assert run(*verb) in (10, 12)
        assert "cure:" in capsys.readouterr().err


def test_the_longest_chunks_fit_into_64_mebibytes(folder: Path, capsys: Capture) -> None:
    """By default bita cuts zeros after 16 MiB; one more byte makes the chunk one that must be decoded."""
    noise = random.Random(1).randbytes(300_000)
    (folder / "zeros").write_bytes(noise + bytes(16_500_000) + noise + bytes(20_000_000))
    (folder / "seed").write_bytes(noise + bytes(30_000_000))
    reported(capsys, "pack", "cba", "zeros", "-o", "zeros.cba")
    # ru_maxrss would be that of the test's own process, from which the new one came.
    code = (
        "from pathlib import Path\nfrom regraft.cli import main\ntry:\n    main()\nexcept SystemExit as end:\n"
        "    words = Path('/proc/self/status').read_text().split()\n"
        "    print(end.code or 0, words[words.index('VmHWM:') + 1])"
    )
    command = [sys.executable, "-c", code, "unpack", "zeros.cba", "-o", "out", "--seed", "seed"]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    status, peak = process.stdout.split()
    assert status == "0"
    assert (folder / "out").read_bytes() == (folder / "zeros").read_bytes()
    assert int(peak) <= 64 << 10
