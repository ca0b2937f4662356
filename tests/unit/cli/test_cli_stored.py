# SPDX-License-Identifier: Apache-2.0
"""STORE/NAME wherever an image or artifact is taken, and every kind of artifact brought into a store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import archives
import images
import pytest
from chunk_stores import content_of
from commands import regraft
from ihop_stores import described
from images import Pair

from regraft.build import cba as packer
from regraft.cli._export import open_export
from regraft.cli._network import Network
from regraft.cli._store_export import StoreExport
from regraft.cli._verity import with_tree
from regraft.server.static import StaticServer
from regraft.stores.store import open_store

Capture = pytest.CaptureFixture[str]

CBA = packer.Options(average=16384, minimum=4096, maximum=65536, metadata={"release": b"7"})


def reported(capsys: Capture, *arguments: object, status: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert regraft(*arguments, "--json") == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: Pair) -> Path:
    for name, content in (("old", pair.old), ("new", pair.new)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "new.cba").write_bytes(archives.pack(pair.new, CBA).content)
    (tmp_path / "old.cba").write_bytes(archives.pack(pair.old, CBA).content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[StaticServer]:
    with StaticServer(folder) as running:
        yield running


@pytest.fixture
def store(folder: Path) -> Path:
    """A store with `v1`, the old image."""
    assert regraft("clone", "old.cba", "s/v1") == 0
    return folder / "s"


def content(name: str) -> bytes:
    with open_store("s") as opened:
        return content_of(opened, name)


@pytest.mark.parametrize("remote", [False, True], ids=["file", "url"])
@pytest.mark.parametrize("kind", ["zck", "cba", "caibx", "ihop"])
def test_every_artifact_can_be_cloned(
    folder: Path, server: StaticServer, capsys: Capture, pair: Pair, kind: str, remote: bool
) -> None:
    name, wanted = f"image.{kind}", pair.new if kind != "ihop" else pair.new[:600_000]
    if kind == "zck":
        (folder / name).write_bytes(images.pack(pair.new).content)
    elif kind == "cba":
        (folder / name).write_bytes((folder / "new.cba").read_bytes())
    elif kind == "caibx":
        assert regraft("pack", "caibx", "new", "-o", name) == 0
    else:
        (folder / name).write_bytes(described(folder, wanted))
    where = f"{server.url}/{name}" if remote else name
    assert reported(capsys, "clone", where, "s/v")["fetched"] > 0
    assert content("v") == wanted
    assert reported(capsys, "clone", where, "s/v")["unchanged"]


def test_chunk_files_are_looked_for_where_one_says(folder: Path, server: StaticServer, pair: Pair) -> None:
    (folder / "elsewhere").mkdir()
    assert regraft("pack", "caibx", "new", "-o", "image.caibx", "--store", "elsewhere/chunks.castr") == 0
    assert regraft("clone", f"{server.url}/image.caibx", "s/v", "--store", f"{server.url}/elsewhere/chunks.castr") == 0
    assert content("v") == pair.new


def test_an_image_of_a_store_is_unpacked(store: Path, folder: Path, pair: Pair, capsys: Capture) -> None:
    assert regraft("unpack", "s/v1", "-o", "out") == 0
    assert (folder / "out").read_bytes() == pair.old
    facts = reported(capsys, "plan", "s/v1", "--seed", "old")
    assert (facts["image"], facts["fetch"]) == (len(pair.old), 0)


def test_an_image_of_a_store_is_a_seed(store: Path, folder: Path, pair: Pair, capsys: Capture) -> None:
    plain = reported(capsys, "plan", "new.cba")
    seeded = reported(capsys, "plan", "new.cba", "--seed", "s/v1")
    assert seeded["fetch"] < plain["fetch"] / 2
    done = reported(capsys, "unpack", "new.cba", "-o", "out", "--seed", "s/v1")
    assert done["fetched"] == seeded["fetch"]
    assert (folder / "out").read_bytes() == pair.new


def test_an_image_moves_from_store_to_store_with_what_is_known_of_it(store: Path, pair: Pair, capsys: Capture) -> None:
    assert regraft("clone", "s/v1", "t/w") == 0
    with open_store("t") as other, open_store("s") as own:
        moved, before = other.description("w"), own.description("v1")
        assert content_of(other, "w") == pair.old
        assert moved.metadata == {"release": b"7"}
        assert (moved.digest, moved.digests) == (before.digest, before.digests)
    assert reported(capsys, "clone", "s/v1", "t/w")["unchanged"]


def test_an_image_of_a_store_is_inspected(store: Path, pair: Pair, capsys: Capture) -> None:
    facts = reported(capsys, "inspect", "s/v1", "--chunks")
    assert (facts["format"], facts["image_size"]) == ("image of a chunk store", len(pair.old))
    assert facts["metadata"] == {"release": "7"}
    assert sum(chunk["length"] for chunk in facts["chunks"]) == len(pair.old)
    assert facts["source"].endswith("/old.cba")


@pytest.mark.parametrize(("place", "status"), [("s/v9", 70), ("s/-x", 2), ("s/half", 60)])
def test_what_is_not_there_or_not_whole_is_said_so(store: Path, capsys: Capture, place: str, status: int) -> None:
    (store / "half.partial").write_bytes((store / "v1.image").read_bytes())
    for verb in (["nbd", "--port", "0"], ["unpack", "-o", "out"], ["inspect"]):
        assert regraft(*verb, "--", place) == status
    if place == "s/half":
        assert "not complete" in capsys.readouterr().err


def test_what_is_served_is_in_use(store: Path, pair: Pair, capsys: Capture) -> None:
    with open_export("s/v1") as export:
        assert isinstance(export, StoreExport)
        data = bytearray(export.size)
        export.read_into(0, memoryview(data))
        assert data == pair.old
        assert regraft("store", "rm", "s", "v1") == 61
    assert regraft("store", "rm", "s", "v1") == 0


def test_keep_in_a_store_is_for_artifacts(store: Path, folder: Path) -> None:
    assert regraft("nbd", "s/v1", "--keep", "s/v2", "--port", "0") == 2
    assert regraft("nbd", "new.cba", "--keep", "s/-x", "--port", "0") == 2
    assert regraft("nbd", "new.cba", "--keep", "s/v1", "--port", "0") == 60
    assert sorted(path.name for path in store.glob("*.partial")) == []


def test_what_was_kept_is_served_from_the_store(store: Path, pair: Pair) -> None:
    for name in ("s/v1", "s/v2"):  # cloned, and not
        with open_export("old.cba", keep=name) as export:
            assert isinstance(export, StoreExport) == (name == "s/v1")
            assert export.name == "old.cba"
            data = bytearray(export.size)
            export.read_into(0, memoryview(data))
            assert data == pair.old
    assert regraft("clone", "old.cba", "s/v2") == 0


def test_a_store_that_is_not_there_is_made(folder: Path, pair: Pair) -> None:
    with open_export("new.cba", keep="fresh/v1", read_ahead=False):
        pass
    with open_store("fresh") as made:
        assert made.partials() == ["v1"]
    with open_export("new.cba", keep="plain-file", read_ahead=False):
        pass
    assert (folder / "plain-file").is_file()


def test_the_hash_tree_comes_with_the_image(folder: Path, server: StaticServer, pair: Pair, capsys: Capture) -> None:
    packed = reported(capsys, "pack", "cba", "new", "-o", "tree.cba", "--verity", "--compression", "none")
    assert regraft("clone", f"{server.url}/tree.cba", "s/v1") == 0
    with open_export(f"{server.url}/tree.cba", keep="s/v2") as lazy:
        lazy.read_into(0, memoryview(bytearray(lazy.size)))
    assert regraft("clone", "tree.cba", "s/v2") == 0
    for name in ("s/v1", "s/v2"):
        with (
            open_export(name) as export,
            with_tree(name, export, root="", offset=0, tree="", network=Network()) as (whole, found),
        ):
            assert found.root.hex() == packed["verity"]["root_hash"]
            assert found.hash_offset == -(-len(pair.new) // 4096) * 4096
            assert whole.size == found.hash_offset + found.tree_size
