# SPDX-License-Identifier: Apache-2.0
"""`--store`, `--cache` and `--rate-limit` on the verbs, and `regraft store prune`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import regraft
from images import Pair

from regraft.cli._export import open_export
from regraft.cli._options import Places
from regraft.engine.chunkstores import LocalStore
from regraft.formats import caibx
from regraft.server.static import StaticServer

Capture = pytest.CaptureFixture[str]


def reported(capsys: Capture, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert regraft(*arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: Pair) -> Path:
    """The indexes of two images, and a store in another place."""
    (tmp_path / "old").write_bytes(pair.old)
    (tmp_path / "new").write_bytes(pair.new)
    monkeypatch.chdir(tmp_path)
    for name in ("old", "new"):
        assert regraft("pack", "caibx", name, "-o", f"{name}.caibx", "--store", "far/all.castr") == 0
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[StaticServer]:
    with StaticServer(folder) as running:
        yield running


def files(place: Path) -> set[str]:
    return {str(file.relative_to(place)) for file in place.rglob("*") if file.is_file()}


def chunks(*indexes: str) -> set[str]:
    return {caibx.paths(d)[0] for name in indexes for d in caibx.parse_header(Path(name).read_bytes()).digests}


def test_the_second_unpack_asks_for_nothing(folder: Path, server: StaticServer, capsys: Capture, pair: Pair) -> None:
    words = ("unpack", "new.caibx", "--store", f"{server.url}/far/all.castr", "--cache", "cache.castr")
    first = reported(capsys, *words, "-o", "one")
    asked = server.counts.requests
    second = reported(capsys, *words, "-o", "two")
    assert first["wire"] > 0
    assert second["wire"] == 0
    assert server.counts.requests == asked
    assert Path("one").read_bytes() == Path("two").read_bytes() == pair.new
    assert files(folder / "cache.castr") <= chunks("new.caibx")
    third = reported(capsys, "unpack", "new.caibx", "--store", "cache.castr", "-o", "three")  # a store like any other
    assert third["fetched"] == first["fetched"]


def test_a_damaged_cache_costs_its_chunks_only(folder: Path, server: StaticServer, capsys: Capture, pair: Pair) -> None:
    words = ("unpack", "new.caibx", "--store", f"{server.url}/far/all.castr", "--cache", "cache.castr")
    reported(capsys, *words, "-o", "one")
    for file in sorted((folder / "cache.castr").rglob("*.cacnk"))[:3]:
        file.write_bytes(b"\x28\xb5\x2f\xfd damaged")
    asked = server.counts.requests
    reported(capsys, *words, "-o", "two")
    assert server.counts.requests == asked + 3
    assert Path("two").read_bytes() == pair.new
    reported(capsys, *words, "-o", "three")
    assert server.counts.requests == asked + 3


def test_a_cache_that_cannot_be_written_is_said_once(folder: Path, capsys: Capture, pair: Pair) -> None:
    Path("file").write_bytes(b"")
    assert regraft("unpack", "new.caibx", "--store", "far/all.castr", "--cache", "file/x", "-o", "out") == 0
    assert 1 <= capsys.readouterr().err.count("nothing more is cached") <= 4
    assert Path("out").read_bytes() == pair.new


def test_clone_takes_chunks_from_other_places(folder: Path, server: StaticServer, capsys: Capture, pair: Pair) -> None:
    assert regraft("clone", "new.caibx", "images/v1") == 52
    url = f"{server.url}/far/all.castr"
    facts = reported(capsys, "clone", "new.caibx", "images/v1", "--store", url, "--cache", "cache.castr")
    assert facts["size"] == len(pair.new)
    assert files(folder / "cache.castr") <= chunks("new.caibx")
    assert reported(capsys, "clone", "new.caibx", "others/v1", "--store", url, "--cache", "cache.castr")["wire"] == 0


def test_an_export_takes_chunks_from_other_places(folder: Path, server: StaticServer, pair: Pair) -> None:
    places = Places((f"{server.url}/far/all.castr",), "cache.castr")
    for _ in range(2):
        with open_export("new.caibx", stores=places, read_ahead=False) as export:
            data = bytearray(100_000)
            export.read_into(50_000, memoryview(data))
            assert data == pair.new[50_000:150_000]
        asked = server.counts.requests
    assert server.counts.requests == asked
    assert files(folder / "cache.castr") < chunks("new.caibx")


def test_the_rate_is_limited_over_all_connections(folder: Path, server: StaticServer, capsys: Capture) -> None:
    words = ("unpack", "new.caibx", "--store", f"{server.url}/far/all.castr", "-o")
    wire = reported(capsys, *words, "fast")["wire"]
    rate = int(wire / 0.8)
    began = time.monotonic()
    assert reported(capsys, *words, "slow", "--rate-limit", str(rate))["wire"] == wire
    assert 0.6 < time.monotonic() - began < 10


def test_a_store_is_pruned_to_what_the_indexes_name(folder: Path, capsys: Capture, pair: Pair) -> None:
    place = folder / "far" / "all.castr"
    assert files(place) == chunks("old.caibx", "new.caibx")
    planned = reported(capsys, "store", "prune", "far/all.castr", "new.caibx", "--dry-run")
    assert files(place) == chunks("old.caibx", "new.caibx")
    facts = reported(capsys, "store", "prune", "far/all.castr", "new.caibx")
    assert facts == planned | {"dry_run": False}
    assert facts["kind"] == "store-prune"
    assert facts["removed"] == len(chunks("old.caibx", "new.caibx")) - len(chunks("new.caibx")) > 0
    assert files(place) == chunks("new.caibx")
    reported(capsys, "unpack", "new.caibx", "--store", "far/all.castr", "-o", "image")
    assert Path("image").read_bytes() == pair.new


def test_nothing_is_pruned_on_any_doubt(folder: Path, capsys: Capture) -> None:
    place = folder / "far" / "all.castr"
    before = files(place)
    Path("bad.caibx").write_bytes(Path("old.caibx").read_bytes()[:-1])
    assert regraft("store", "prune", "far/all.castr", "new.caibx", "bad.caibx") == 10
    assert regraft("store", "prune", "far/all.castr", "new.caibx", "none.caibx") == 2
    assert regraft("store", "prune", "far/all.castr") == 2
    assert regraft("pack", "cba", "new", "-o", "new.cba") == 0
    assert regraft("store", "prune", "far/all.castr", "new.cba") == 11
    assert regraft("pack", "caibx", "new", "-o", "other.caibx", "--no-store", "--chunk-size", "8K") == 0
    assert regraft("store", "prune", "far/all.castr", "new.caibx", "other.caibx") == 60
    assert "of other.caibx: nothing was removed" in capsys.readouterr().err
    with LocalStore("far/all.castr").adding():
        assert regraft("store", "prune", "far/all.castr", "new.caibx") == 61
    assert files(place) == before


def test_each_kind_of_store_is_known(folder: Path, capsys: Capture) -> None:
    assert regraft("clone", "new.caibx", "images/v1", "--store", "far/all.castr") == 0
    capsys.readouterr()
    assert regraft("store", "prune", "images", "new.caibx") == 60
    assert "`regraft store gc`" in capsys.readouterr().err
    assert regraft("store", "ls", "far/all.castr") == 60
    assert "`regraft store prune`" in capsys.readouterr().err
    assert regraft("store", "prune", ".", "new.caibx") == 60
    assert "not a casync store: it holds" in capsys.readouterr().err


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("digest", ["sha256", "sha512-256"])
def test_a_store_is_verified_and_repaired(
    folder: Path, server: StaticServer, capsys: Capture, digest: str, remote: bool
) -> None:
    options = ("--digest", digest, "--store")
    assert regraft("pack", "caibx", "new", "-o", "x.caibx", *options, "here.castr") == 0
    assert regraft("pack", "caibx", "new", "-o", "x.caibx", "--compression", "none", *options, "there.castr") == 0
    sound = reported(capsys, "store", "verify", "here.castr")
    assert sound["sound"]
    assert (sound["chunks"], sound["damaged"]) == (len(chunks("x.caibx")), [])
    bad = sorted((folder / "here.castr").rglob("*.cacnk"))[:4]
    for file, content in zip(bad, (b"", b"x", bad[0].read_bytes(), bytes(30_000_000)), strict=True):
        file.write_bytes(content)
    if remote:
        (folder / "there.castr" / bad[0].relative_to(folder / "here.castr").with_suffix("")).write_bytes(b"bad too")
    assert regraft("store", "verify", "here.castr") == 60
    assert capsys.readouterr().err.count(": damaged") == 4
    source = f"{server.url}/there.castr" if remote else "there.castr"
    assert regraft("store", "verify", "here.castr", "--repair-from", source, "--json") == (60 if remote else 0)
    facts = json.loads(capsys.readouterr().out)
    assert (len(facts["damaged"]), len(facts["repaired"])) == (4, 3 if remote else 4)
    assert regraft("store", "verify", "here.castr") == (60 if remote else 0)
    if not remote:
        assert regraft("unpack", "x.caibx", "--store", "here.castr", "-o", "image") == 0
    assert regraft("clone", "new.caibx", "images/v1", "--store", "far/all.castr") == 0
    assert regraft("store", "verify", "images", "--repair-from", source) == 2
