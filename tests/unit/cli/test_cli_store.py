# SPDX-License-Identifier: Apache-2.0
"""`regraft clone` and `regraft store`: every option's effect."""

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
from images import Pair

from regraft.build import cba as packer
from regraft.build.zchunk import Options
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
        (tmp_path / f"{name}.cba").write_bytes(archives.pack(content, CBA).content)
        (tmp_path / f"{name}.zck").write_bytes(images.pack(content, Options()).content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[StaticServer]:
    with StaticServer(folder) as running:
        yield running


def content(name: str, store: str = "s") -> bytes:
    with open_store(store) as opened:
        return content_of(opened, name)


@pytest.mark.parametrize("kind", ["cba", "zck"])
@pytest.mark.parametrize("remote", [False, True], ids=["file", "url"])
def test_clone_fetches_what_is_missing(
    folder: Path, server: StaticServer, capsys: Capture, pair: Pair, kind: str, remote: bool
) -> None:
    base = f"{server.url}/" if remote else ""
    first = reported(capsys, "clone", f"{base}old.{kind}", "s/v1")
    second = reported(capsys, "clone", f"{base}new.{kind}", "s/v2")
    third = reported(capsys, "clone", f"{base}new.{kind}", "s/v2")
    assert content("v1") == pair.old
    assert content("v2") == pair.new
    assert first["size"] == len(pair.old)
    assert 0 < second["fetched"] < first["fetched"] / 2
    assert (third["unchanged"], third["fetched"], third["written"]) == (True, 0, 0)
    assert (second["wire"] > second["fetched"]) == remote
    assert second["present"] > 0


def test_clone_says_what_it_takes_before_it_does(folder: Path, capsys: Capture) -> None:
    assert regraft("clone", "old.cba", "s/v1", "-n") == 60
    assert not (folder / "s").exists()
    assert regraft("clone", "old.cba", "s/v1") == 0
    before = sorted(folder.glob("s/*"))
    said = reported(capsys, "clone", "new.cba", "s/v2", "--dry-run")
    assert sorted(folder.glob("s/*")) == before
    done = reported(capsys, "clone", "new.cba", "s/v2")
    assert said["fetch"] == done["fetched"]
    assert said["missing"] == done["written"] <= said["disk"] < said["free"]
    assert said["fits"]
    capsys.readouterr()
    assert regraft("clone", "old.cba", "s/v3", "-n") == 0
    assert "0 B are missing" in capsys.readouterr().out


def test_seeds_are_files_and_images_of_stores(folder: Path, capsys: Capture, pair: Pair) -> None:
    plain = reported(capsys, "clone", "new.cba", "a/v")
    from_file = reported(capsys, "clone", "new.cba", "b/v", "--seed", "old")
    reported(capsys, "clone", "old.cba", "other/v1")
    from_image = reported(capsys, "clone", "new.cba", "c/v", "--seed", "other/v1")
    across = reported(capsys, "clone", "new.zck", "d/v", "--seed", "other/v1")
    assert from_image["fetched"] == from_file["fetched"] < plain["fetched"] / 2 > across["fetched"]
    for store in "abcd":
        assert content("v", store) == pair.new
    planned = reported(capsys, "clone", "new.cba", "d/w", "-n", "--seed", "old")
    assert planned["from_seeds"] > 0
    assert regraft("clone", "new.cba", "d/w", "--seed", "nothing/here") == 52


def test_another_image_takes_a_name_only_when_asked(folder: Path, pair: Pair) -> None:
    assert regraft("clone", "old.cba", "s/v") == 0
    assert regraft("clone", "new.cba", "s/v") == 60
    assert regraft("clone", "new.cba", "s/v", "--replace") == 0
    assert content("v") == pair.new
    assert regraft("store", "pin", "s", "v") == 0
    assert regraft("clone", "old.cba", "s/v", "-f") == 60
    assert content("v") == pair.new


def test_names_of_images_are_checked(folder: Path) -> None:
    for place in ("s/", "s/..", "s/a b", "s/-x"):
        assert regraft("clone", "--", "old.cba", place) == 2
    assert not (folder / "s").exists()


def test_a_folder_that_is_no_store_is_left_alone(folder: Path) -> None:
    before = sorted(folder.iterdir())
    assert regraft("clone", "old.cba", "./v") == 60
    assert regraft("store", "ls", ".") == 60
    assert regraft("store", "gc", "nowhere") == 60
    assert sorted(folder.iterdir()) == before


def test_secrets_of_a_url_are_not_kept(folder: Path, server: StaticServer, capsys: Capture) -> None:
    with_secrets = server.url.replace("http://", "http://user:word@") + "/old.cba?token=word"
    assert regraft("clone", with_secrets, "s/v") == 0
    (listed,) = reported(capsys, "store", "ls", "s")["images"]
    assert listed["source"] == f"{server.url}/old.cba"
    for file in (folder / "s").iterdir():
        assert b"word" not in file.read_bytes() or file.suffix == ".pack"


def test_ls_tells_sizes_and_marks(folder: Path, capsys: Capture, pair: Pair) -> None:
    for name in ("old", "new"):
        assert regraft("clone", f"{name}.cba", f"s/{name}") == 0
    assert regraft("store", "pin", "s", "old") == 0
    found = reported(capsys, "store", "ls", "s")
    new, old = found["images"]
    assert (old["name"], old["size"], old["pinned"], old["in_use"]) == ("old", len(pair.old), True, False)
    assert old["metadata"] == ["release"]
    assert old["digest"].startswith("blake2b512:")
    assert old["unique"] + old["shared"] + old["zeros"] <= old["size"]
    assert new["shared"] == old["shared"] > 0
    assert found["disk"] == sum(path.stat().st_size for path in folder.glob("s/*.pack"))
    with open_store("s") as store, store.image("new"):
        assert reported(capsys, "store", "ls", "s")["images"][0]["in_use"]
        assert regraft("store", "ls", "s") == 0
        text = capsys.readouterr().out
    assert "pinned" in text
    assert "in use" in text
    assert "free" in text


def test_rm_and_gc_give_space_back(folder: Path, capsys: Capture, pair: Pair) -> None:
    for name in ("old", "new"):
        assert regraft("clone", f"{name}.cba", f"s/{name}") == 0
    assert regraft("store", "pin", "s", "old") == 0
    assert regraft("store", "rm", "s", "old") == 60
    assert "pinned" in capsys.readouterr().err
    assert regraft("store", "unpin", "s", "old") == 0
    with open_store("s") as store, store.image("old"):
        assert regraft("store", "rm", "s", "old", "--force") == 61
    assert regraft("store", "rm", "s", "old", "new", "none") == 70
    before = sum(path.stat().st_size for path in folder.glob("s/*.pack"))
    said = reported(capsys, "store", "gc", "s", "-n")
    assert sum(path.stat().st_size for path in folder.glob("s/*.pack")) == before == said["freed"]
    assert reported(capsys, "store", "gc", "s")["freed"] == before
    assert list(folder.glob("s/*.pack")) == []
    assert regraft("clone", "new.cba", "s/new") == 0
    assert regraft("store", "pin", "s", "new") == 0
    assert regraft("store", "rm", "s", "new", "-f") == 0
    assert regraft("store", "gc", "s") == 0
    assert "freed" in capsys.readouterr().err


def test_verify_and_repair(folder: Path, server: StaticServer, capsys: Capture, pair: Pair) -> None:
    for name in ("old", "new"):
        assert regraft("clone", f"{name}.cba", f"s/{name}") == 0
    assert regraft("clone", "old.cba", "other/x") == 0
    assert reported(capsys, "store", "verify", "s")["sound"]
    pack = folder / "s/00000001.pack"
    content_before = bytearray(pack.read_bytes())
    for place in (0, len(content_before) // 2, len(content_before) - 1):
        content_before[place] ^= 1
    pack.write_bytes(content_before)
    assert regraft("store", "verify", "s") == 0
    found = reported(capsys, "store", "verify", "s", "--full", "--no-record", "--threads", "1", status=60)
    assert found["bad"] == 3
    assert regraft("store", "verify", "s") == 0
    found = reported(capsys, "store", "verify", "s", "--full", status=60)
    assert "old" in found["damage"]
    assert regraft("store", "verify", "s") == 60
    assert "regraft store repair s" in capsys.readouterr().err
    (folder / "empty.cba").write_bytes(archives.pack(b"else", CBA).content)
    assert regraft("store", "repair", "s", "old", "empty.cba") == 60
    assert "in none of the sources" in capsys.readouterr().err
    done = reported(capsys, "store", "repair", "s", "old", "missing.cba", "empty.cba", "other", f"{server.url}/old.cba")
    assert (done["missing"], done["left"]) == (3, 0)
    assert regraft("store", "repair", "s", "new", f"{server.url}/new.cba") == 0
    assert regraft("store", "verify", "s", "--full") == 0
    assert (content("old"), content("new")) == (pair.old, pair.new)


def test_repair_over_the_network_fetches_little(folder: Path, server: StaticServer, capsys: Capture) -> None:
    assert regraft("clone", "old.cba", "s/v") == 0
    with (folder / "s/00000001.pack").open("r+b") as pack:
        pack.write(b"damage")
    assert regraft("store", "verify", "s", "--full") == 60
    done = reported(capsys, "store", "repair", "s", "v", f"{server.url}/old.cba")
    assert done["missing"] == 1
    assert 0 < done["fetched"] < 70_000


def test_progress_is_told(folder: Path, capsys: Capture) -> None:
    assert regraft("clone", "old.cba", "s/v", "--progress", "json", "--threads", "2") == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert {event["phase"] for event in events} >= {"write", "verify"}
    assert events[-1]["done"] == events[-1]["total"]
