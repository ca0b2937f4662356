# SPDX-License-Identifier: Apache-2.0
"""`regraft swu build --delta`, then `regraft install` with its options."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import regraft
from images import Pair, pack
from made_bundles import bundle, cms_signer, describe
from pki import self_signed

from regraft.server.static import StaticServer

Captured = pytest.CaptureFixture[str]


@dataclass
class Site:
    folder: Path
    url: str
    pair: Pair
    server: StaticServer

    def build(self, *options: str) -> int:
        return regraft(
            *("swu", "build", "--delta", "www/new.zck", "--url", f"{self.url}/new.zck", "--source", "old"),
            *("--version", "2.0", "--hardware", "1.0", "--path", f"{self.folder}/slot"),
            *("--key", "key.pem", "--cert", "cert.pem", "-o", "update.swu", *options),
        )

    def install(self, *options: str) -> int:
        return regraft("install", "-i", "update.swu", "-k", "cert.pem", "-H", "board:1.0", *options)


@pytest.fixture
def site(tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "www").mkdir()
    (tmp_path / "www/new.zck").write_bytes(pack(pair.new).content)
    (tmp_path / "old").write_bytes(pair.old)
    (tmp_path / "cert.pem").write_bytes(self_signed().pem)
    (tmp_path / "key.pem").write_bytes(self_signed().key_pem)
    with StaticServer(tmp_path / "www") as server:
        yield Site(tmp_path, server.url, pair, server)


def facts(capsys: Captured, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (found.pop("schema"), found.pop("kind")) == (1, kind)
    return found


def test_build_and_install(site: Site, capsys: Captured) -> None:
    assert site.build("--json") == 0
    built = facts(capsys, "swu-build")
    assert built == {"file": "update.swu", "size": os.path.getsize("update.swu"), "members": ["new.zck.header"]}
    assert site.install("--json") == 0
    found = facts(capsys, "install")
    (entry,) = found.pop("entries")
    assert found == {"mode": "install", "version": "2.0", "signer": "CN=Self rsa2048 (cms, rsa-sha256)", "reboot": True}
    assert (site.folder / "slot").read_bytes() == site.pair.new
    size = len(site.pair.new)
    assert entry["size"] == size
    assert entry["in_place"] + entry["zeros"] + entry["from_seeds"] + entry["from_network"] == size
    assert entry["from_seeds"] > size / 2
    assert 0 < entry["wire"] < entry["without_seeds"] / 2
    # The client may end a connection before the last boundary of an answer has passed.
    assert entry["wire"] <= site.server.counts.body < entry["wire"] + 200
    assert entry["origins"][0][0] == 0
    assert entry["origins"][-1][1] == size
    assert all(a[1] == b[0] for a, b in zip(entry["origins"], entry["origins"][1:], strict=False))
    assert (entry["resumed"], entry["replaced_chunks"], entry["skipped"]) == (False, 0, None)


def test_the_same_again_moves_nothing(site: Site, capsys: Captured) -> None:
    site.build()
    assert site.install() == 0
    capsys.readouterr()
    assert site.install("--json") == 0
    (entry,) = facts(capsys, "install")["entries"]
    assert (entry["wire"], entry["in_place"]) == (0, len(site.pair.new))


def test_the_same_bundle_is_built_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    site.build()
    first = (site.folder / "update.swu").read_bytes()
    site.build()
    assert (site.folder / "update.swu").read_bytes() == first


def test_a_dry_run_tells_and_writes_nothing(site: Site, capsys: Captured) -> None:
    site.build()
    before = set(os.listdir(site.folder))
    capsys.readouterr()
    assert site.install("-n", "--json", "--bandwidth", "8M", "--rtt", "50") == 0
    found = facts(capsys, "install")
    assert found["mode"] == "dry-run"
    (entry,) = found["entries"]
    cost = entry["cost"]
    assert cost["image"] == len(site.pair.new)
    assert cost["seconds"] == pytest.approx(cost["transfer"] / 1e6 + 0.05)
    assert site.server.counts.requests == 0
    assert set(os.listdir(site.folder)) == before
    assert site.install("-n") == 0
    err = capsys.readouterr().err
    assert "to fetch" in err
    assert f"to {site.folder}/slot" in err


def test_a_check_reads_everything_and_writes_nothing(site: Site, capsys: Captured) -> None:
    site.build()
    before = set(os.listdir(site.folder))
    capsys.readouterr()
    assert site.install("-c") == 0
    assert "complete, as signed, and for this device" in capsys.readouterr().err
    content = bytearray((site.folder / "update.swu").read_bytes())
    content[content.index(b"\0ZCK1") + 50] ^= 1
    (site.folder / "update.swu").write_bytes(content)
    assert site.install("-c") in (10, 22)
    assert set(os.listdir(site.folder)) == before
    assert site.server.counts.requests == 0


def test_from_standard_input(site: Site) -> None:
    site.build()
    command = [sys.executable, "-m", "regraft.cli", "install", "-i", "-", "-k", "cert.pem", "-H", "board:1.0"]
    done = subprocess.run(command, input=(site.folder / "update.swu").read_bytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"read back and right" in done.stderr
    assert (site.folder / "slot").read_bytes() == site.pair.new


def test_what_a_person_reads(site: Site, capsys: Captured) -> None:
    site.build()
    capsys.readouterr()
    assert site.install("-v") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "release 2.0, CN=Self rsa2048" in err
    assert "chunk 0: image 0, size " in err
    assert "SEED" in err
    assert "FETCHED" in err
    assert "saved" in err


def test_progress_as_events(site: Site, capsys: Captured) -> None:
    site.build()
    capsys.readouterr()
    assert site.install("--progress", "json") == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert [event["phase"] for event in events if event["done"] == 0] == ["index", "write", "verify"]
    last = {event["phase"]: event for event in events}
    assert last["write"]["done"] == last["write"]["total"] == last["verify"]["done"] == len(site.pair.new)
    assert 0 < last["write"]["fetched"] < len(site.pair.new) / 2


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["-H", "board:9.9"], 31, "9.9"),
        (["-N", "3.0"], 32, "2.0"),
        (["-R", "2.0"], 32, "2.0"),
        (["--max-version", "1.0"], 32, "2.0"),
        (["-H", "nonsense"], 2, "nonsense"),
        (["-e", "nonsense"], 2, "SET,MODE"),
        (["--unsigned"], 2, "-k"),
        (["-B", "uboot"], 2, "uboot"),
        (["-f", "missing.cfg"], 2, "missing.cfg"),
    ],
)
def test_what_the_device_demands(options: list[str], status: int, words: str, site: Site, capsys: Captured) -> None:
    site.build()
    capsys.readouterr()
    assert site.install(*options) == status
    err = capsys.readouterr().err
    assert words in err
    assert "cure: " in err
    assert not (site.folder / "slot").exists()
    assert site.server.counts.requests == 0


def test_a_selection(site: Site) -> None:
    assert site.build("--set", "stable,copy2") == 0
    assert site.install() == 10
    assert site.install("-e", "stable,copy1") == 10
    assert site.install("-e", "stable,copy2") == 0
    assert (site.folder / "slot").read_bytes() == site.pair.new


def test_a_board(site: Site) -> None:
    assert site.build("--board", "board") == 0
    assert regraft("install", "-i", "update.swu", "-k", "cert.pem", "-H", "other:1.0") == 10
    assert site.install() == 0


def test_a_dynamic_url(site: Site) -> None:
    artifact = pack(site.pair.new)
    header = artifact.content[: artifact.header.size]
    digest = hashlib.sha256(header).hexdigest()
    properties = 'url = "dynamic"; zckfile = "new.zck"; source = "old"; chain = "rawfile";'
    text = (
        'software = { version = "2.0"; hardware-compatibility = ["1.0"]; files: ( { filename = "h"; type = "delta";'
        f' path = "{site.folder}/slot"; sha256 = "{digest}"; properties: {{ {properties} }}; }} ); }};'
    )
    (site.folder / "update.swu").write_bytes(bundle({"h": header}, text.encode(), cms_signer()))
    assert site.install() == 10
    assert site.install("--delta-url", f"new.zck={site.url}/new.zck") == 0
    assert (site.folder / "slot").read_bytes() == site.pair.new


def test_what_is_installed_already_is_skipped(site: Site, capsys: Captured) -> None:
    files = {"a": b"content of a"}
    text = describe(files, str(site.folder), name='"app"', version='"1.5"', **{"install-if-different": "true"})
    (site.folder / "update.swu").write_bytes(bundle(files, text, cms_signer()))
    (site.folder / "swupdate.cfg").write_text('versions : ( { name = "app"; version = "1.5"; } );\n')
    assert site.install("-f", "swupdate.cfg", "--json") == 0
    (entry,) = facts(capsys, "install")["entries"]
    assert "1.5" in entry["skipped"]
    assert not (site.folder / "a").exists()
    (site.folder / "swupdate.cfg").write_text('versions : ( { name = "app"; version = "1.4"; } );\n')
    assert site.install("-f", "swupdate.cfg") == 0
    assert (site.folder / "a").read_bytes() == b"content of a"


def test_unsigned_on_purpose(site: Site, capsys: Captured) -> None:
    files = {"a": b"content of a"}
    (site.folder / "update.swu").write_bytes(bundle(files, describe(files, str(site.folder))))
    assert regraft("install", "-i", "update.swu", "-H", "board:1.0") == 2
    assert regraft("install", "-i", "update.swu", "-H", "board:1.0", "--unsigned") == 0
    assert "NOT VERIFIED" in capsys.readouterr().err


def test_a_source_that_is_the_target_is_refused(site: Site) -> None:
    site.build()
    (site.folder / "slot").write_bytes(site.pair.old)
    (site.folder / "old").unlink()
    (site.folder / "old").symlink_to("slot")
    assert site.install() == 30
    assert (site.folder / "slot").read_bytes() == site.pair.old


@pytest.mark.parametrize("without", ["--url", "--source", "--version", "--hardware", "--key", "--path"])
def test_build_says_what_is_missing(without: str, site: Site, capsys: Captured) -> None:
    given = {
        "--delta": "www/new.zck", "--url": "http://x/y", "--source": "old", "--version": "1", "--hardware": "1.0",
        "--path": "/x", "--key": "key.pem", "--cert": "cert.pem", "-o": "update.swu",
    }  # fmt: skip
    words = [word for name, value in given.items() if name != without for word in (name, value)]
    assert regraft("swu", "build", *words) == 2
    assert "cure: " in capsys.readouterr().err
    assert not (site.folder / "update.swu").exists()
    assert not (site.folder / "update.swu.new").exists()


def test_build_proves_that_the_artifact_is_whole(site: Site) -> None:
    content = bytearray((site.folder / "www/new.zck").read_bytes())
    content[-1] ^= 1
    (site.folder / "www/new.zck").write_bytes(content)
    assert site.build() == 22
    assert not (site.folder / "update.swu").exists()
