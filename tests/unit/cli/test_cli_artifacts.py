# SPDX-License-Identifier: Apache-2.0
"""The verbs about chunked artifacts: pack, unpack, header, inspect, plan."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import regraft
from images import Pair, pack
from made_bundles import bundle, cms_signer

from regraft.build.zchunk import Options
from regraft.formats import zchunk
from regraft.model import Algorithm
from regraft.server.static import StaticServer


@pytest.fixture
def folder(tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "old").write_bytes(pair.old)
    (tmp_path / "new").write_bytes(pair.new)
    (tmp_path / "new.zck").write_bytes(pack(pair.new).content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with StaticServer(folder) as server:
        yield server.url


Captured = pytest.CaptureFixture[str]


def facts(capsys: Captured, kind: str) -> dict[str, Any]:
    """The one JSON object on stdout."""
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (found.pop("schema"), found.pop("kind")) == (1, kind)
    return found


# pack


def test_pack_makes_what_the_builder_makes(folder: Path, capsys: Captured) -> None:
    assert regraft("pack", "zck", "new", "-o", "made.zck") == 0
    assert (folder / "made.zck").read_bytes() == (folder / "new.zck").read_bytes()
    out, err = capsys.readouterr()
    assert out == ""
    assert "made.zck: " in err
    assert "chunks" in err


def test_pack_with_every_option(folder: Path, pair: Pair, capsys: Captured) -> None:
    (folder / "words").write_bytes(pair.new[:5000])
    options = ["-h", "sha512", "--digest", "sha1", "-U", "--level", "3", "-D", "words", "--threads", "1", "--json"]
    assert regraft("pack", "zck", "new", "-o", "made.zck", *options, "--progress", "none") == 0
    how = Options(
        digest=Algorithm.SHA1,
        chunk_digest=Algorithm.SHA512,
        uncompressed_source=False,
        level=3,
        dictionary=pair.new[:5000],
    )
    content = (folder / "made.zck").read_bytes()
    assert content == pack(pair.new, how).content
    found, header = facts(capsys, "pack"), zchunk.parse_header(content)
    assert found == {
        "file": "made.zck",
        "image_size": len(pair.new),
        "size": len(content),
        "header_size": header.size,
        "chunker": zchunk.CHUNKER,
        "chunks": len(header) - 1,
        "header_digest": f"sha1:{header.digest.hex()}",
    }


def test_pack_leaves_nothing_behind_when_it_fails(folder: Path, capsys: Captured) -> None:
    (folder / "words").write_bytes(b"\x37\xa4\x30\xec" + bytes(50))
    before = set(os.listdir(folder))
    assert regraft("pack", "zck", "new", "-o", "made.zck", "-D", "words") == 2
    assert "dictionary" in capsys.readouterr().err
    assert regraft("pack", "zck", "new", "-o", "made.zck", "-h", "sha1") == 2
    assert regraft("pack", "zck", "new", "-o", "made.zck", "--libzstd", "/no/such/lib.so") == 70
    assert "cure: " in capsys.readouterr().err
    assert set(os.listdir(folder)) == before


# unpack


def test_unpack_to_a_file(folder: Path, pair: Pair, capsys: Captured) -> None:
    (folder / "out").write_bytes(b"x" * 3_000_000)
    assert regraft("unpack", "new.zck", "-o", "out", "--json", "--progress", "none") == 0
    found = facts(capsys, "unpack")
    assert found.pop("fetched") > 0
    assert found == {"image": "out", "size": len(pair.new), "wire": 0}
    assert (folder / "out").read_bytes() == pair.new


def test_unpack_from_a_url_with_a_seed(folder: Path, pair: Pair, url: str, capsys: Captured) -> None:
    assert regraft("unpack", f"{url}/new.zck", "-o", "out", "--seed", "old", "--json") == 0
    found = facts(capsys, "unpack")
    assert 0 < found["fetched"] < found["wire"] < os.path.getsize(folder / "new.zck") / 2
    assert (folder / "out").read_bytes() == pair.new


@pytest.mark.parametrize("seeds", [(), ("--seed", "old")])
def test_unpack_to_stdout(seeds: tuple[str, ...], folder: Path, pair: Pair) -> None:
    command = [sys.executable, "-m", "regraft.cli", "unpack", "new.zck", "-o", "-", *seeds, "--json"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == pair.new
    assert b"taken from new.zck" in done.stderr


def test_unpack_does_not_overwrite_the_artifact(folder: Path, capsys: Captured) -> None:
    before = (folder / "new.zck").read_bytes()
    (folder / "link").hardlink_to(folder / "new.zck")
    for output in ("new.zck", "./new.zck", "link"):
        assert regraft("unpack", "new.zck", "-o", output) == 2
    assert (folder / "new.zck").read_bytes() == before
    assert "itself" in capsys.readouterr().err


def test_unpack_over_its_own_seed(folder: Path, pair: Pair) -> None:
    assert regraft("unpack", "new.zck", "-o", "old", "--seed", "old") == 0
    assert (folder / "old").read_bytes() == pair.new


def test_unpack_again_moves_nothing(folder: Path, url: str, capsys: Captured) -> None:
    assert regraft("unpack", f"{url}/new.zck", "-o", "out") == 0
    capsys.readouterr()
    assert regraft("unpack", f"{url}/new.zck", "-o", "out", "--json") == 0
    assert facts(capsys, "unpack")["fetched"] == 0


# header


def test_header(folder: Path, pair: Pair, capsys: Captured) -> None:
    content = (folder / "new.zck").read_bytes()
    header = zchunk.parse_header(content)
    assert regraft("header", "new.zck", "-o", "plain") == 0
    assert regraft("header", "new.zck", "-o", "detached", "--detached") == 0
    assert regraft("header", "detached", "-o", "plain-again") == 0
    assert (folder / "plain").read_bytes() == (folder / "plain-again").read_bytes() == content[: header.size]
    assert (folder / "detached").read_bytes() == b"\0ZHR1" + content[5 : header.size]
    assert f"{len(header) - 1} chunks" in capsys.readouterr().err


def test_a_header_is_not_unpacked(folder: Path, capsys: Captured) -> None:
    regraft("header", "new.zck", "-o", "plain")
    assert regraft("unpack", "plain", "-o", "out") == 10
    assert "only a header" in capsys.readouterr().err
    assert not (folder / "out").exists()


# inspect


def test_inspect_an_artifact(folder: Path, pair: Pair, url: str, capsys: Captured) -> None:
    content = (folder / "new.zck").read_bytes()
    header = zchunk.parse_header(content)
    capsys.readouterr()
    assert regraft("inspect", "new.zck", "--json", "--chunks") == 0
    found = facts(capsys, "inspect")
    chunks = found.pop("chunks")
    assert found.pop("complete") is True
    assert found["image_size"] == len(pair.new)
    assert found["header_size"] + found["body_size"] == len(content)
    assert found["chunk_count"] == len(chunks) == len(header) - 1
    assert chunks[0]["offset"] == 0
    assert chunks[-1]["stored_offset"] + chunks[-1]["stored"] == len(content)
    for chunk in chunks:
        image = pair.new[chunk["offset"] : chunk["offset"] + chunk["length"]]
        assert hashlib.sha256(image).hexdigest() == chunk["digest"]
    assert regraft("inspect", f"{url}/new.zck", "--json") == 0
    assert facts(capsys, "inspect") == {**found, "file": f"{url}/new.zck"}
    assert regraft("inspect", "new.zck", "--chunks") == 0
    out = capsys.readouterr().out
    assert all(chunk["digest"] in out for chunk in chunks)


def test_inspect_knows_files_by_their_first_bytes(folder: Path, capsys: Captured) -> None:
    regraft("unpack", "new.zck", "-o", "out")
    regraft("header", "new.zck", "-o", "detached", "--detached")
    (folder / "update.swu").write_bytes(bundle(signer=cms_signer()))
    capsys.readouterr()
    for name, words in (
        ("out.regraft.index", "kept index"),
        ("detached", "zchunk header (detached)"),
        ("update.swu", "sw-description"),
    ):
        assert regraft("inspect", name) == 0
        assert words in capsys.readouterr().out
    assert regraft("inspect", "out.regraft.index", "--json") == 0
    assert facts(capsys, "inspect")["format"] == "kept index"
    assert regraft("inspect", "new") == 10
    assert "not a zchunk file" in capsys.readouterr().err


# plan


def test_plan_says_what_unpack_then_does(folder: Path, pair: Pair, url: str, capsys: Captured) -> None:
    for what in ("new.zck", f"{url}/new.zck"):
        assert regraft("plan", what, "--seed", "old", "--json", "--bandwidth", "8M", "--rtt", "50") == 0
        found = facts(capsys, "plan")
        assert (found["what"], found["seeds"], found["image"]) == (what, ["old"], len(pair.new))
        assert found["seconds"] == pytest.approx(found["transfer"] / 1e6 + 0.05)
        assert regraft("unpack", what, "--seed", "old", "-o", "out", "--json") == 0
        assert facts(capsys, "unpack")["fetched"] == found["fetch"]
        for path in folder.glob("out*"):
            path.unlink()


def test_plan_for_a_person(folder: Path, capsys: Captured) -> None:
    before = set(os.listdir(folder))
    assert regraft("plan", "new.zck", "--seed", "old") == 0
    out = capsys.readouterr().out
    for words in ("to fetch", "requests", "without seeds", "from seeds", "memory", "20 Mbit/s and 100 ms"):
        assert words in out
    assert set(os.listdir(folder)) == before


@pytest.mark.parametrize("bandwidth", ["0", "-1M", "fast", "1T"])
def test_a_bandwidth_that_is_none(bandwidth: str, folder: Path, capsys: Captured) -> None:
    assert regraft("plan", "new.zck", "--bandwidth", bandwidth) == 2
    assert "bandwidth" in capsys.readouterr().err


# all verbs


VERBS = [
    ["pack", "zck"], ["unpack"], ["header"], ["inspect"], ["plan"], ["install"], ["serve"], ["doctor"],
    ["swu", "build"], ["swu", "inspect"], ["swu", "verify"], ["swu", "extract"], ["swu", "lint"],
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_has_examples(verb: list[str], capsys: Captured) -> None:
    assert regraft(*verb, "--help") == 0
    out = capsys.readouterr().out
    assert "Examples:" in out
    assert f"    regraft {' '.join(verb)}" in out


def test_every_verb_is_listed(capsys: Captured) -> None:
    for group in ([], ["pack"], ["swu"]):
        assert regraft(*group, "--help") == 0
        out = capsys.readouterr().out
        for verb in VERBS:
            if verb[:-1] == group:
                assert verb[-1] in out


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["unpack"], ["pack", "zck", "missing", "-o", "x"], ["plan", "x", "-z"]]
)
def test_a_wrong_command_line(arguments: list[str], folder: Path, capsys: Captured) -> None:
    assert regraft(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "regraft: " in err
    assert "cure: " in err
