# SPDX-License-Identifier: Apache-2.0
"""Against Debian's casync, both ways: the same indexes byte for byte, and stores that each other reads."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from casync_stores import Packed, pack, source
from commands import regraft
from images import Pair
from tools import tool

from regraft.build.caibx import LEVELS, Options, sizes_of
from regraft.engine.apply import apply
from regraft.errors import FormatError, UnsupportedError
from regraft.formats import caibx
from regraft.model import Algorithm
from regraft.server.static import StaticServer
from regraft.testing.memory import MemoryMedium

DIGESTS = {"sha512-256": Algorithm.SHA512_256, "sha256": Algorithm.SHA256}


@pytest.fixture(scope="module")
def casync() -> str:
    return tool("casync")


def run(*command: str | Path) -> str:
    process = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


def made_by(casync: str, image: Path, name: str = "theirs", *options: str) -> tuple[bytes, str]:
    """casync's index of the image, and the digest that it prints; its chunks go to NAME.castr beside the image."""
    index = image.with_name(f"{name}.caibx")
    printed = run(casync, "make", f"--store={image.with_name(name)}.castr", *options, index, image)
    return index.read_bytes(), printed.strip()


@pytest.fixture(scope="module")
def file_system(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An ext4 image with files in it."""
    folder = tmp_path_factory.mktemp("tree")
    chance = random.Random(4)
    for number in range(40):
        (folder / f"file{number}").write_bytes(chance.randbytes(chance.randrange(60_000)) + b"text " * 5000)
    image = folder.with_name("image.ext4")
    run(tool("mke2fs"), "-q", "-t", "ext4", "-d", folder, image, "12M")
    return image.read_bytes()


def images(pair: Pair, file_system: bytes) -> dict[str, bytes]:
    noise = random.Random(6).randbytes(700_001)
    return {
        "pair": pair.new, "ext4": file_system, "zeros": bytes(3_000_000), "noise": noise, "short": noise[:48],
        "shorter": noise[:47], "one": b"1", "empty": b"", "mixed": noise[:1000] + bytes(500_000) + noise[:3000] * 9,
    }  # fmt: skip


@pytest.mark.parametrize("digest", list(DIGESTS))
@pytest.mark.parametrize(
    "size",
    [
        "65536",
        "1000:4000:9000",
        "20:30:5000",
        "3000:3000:3000",
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ("4096", "30000", "48:60:100", "1:100:48000", "47:48:49")
        ),
    ],
)
def test_the_same_image_gives_the_same_index(
    casync: str, tmp_path: Path, pair: Pair, file_system: bytes, size: str, digest: str
) -> None:
    options = Options(sizes=sizes_of(size), digest=DIGESTS[digest])
    small = options.sizes.average < 1000
    for name, image in images(pair, file_system).items():
        (tmp_path / "image").write_bytes(image[: 30_000 if small else None])
        theirs, printed = made_by(casync, tmp_path / "image", name, f"--chunk-size={size}", f"--digest={digest}")
        ours = pack(image[: 30_000 if small else None], None, options)
        assert ours.content == theirs, name
        assert caibx.parse_header(theirs) == ours.header
        assert ours.digest.hex() == printed


def test_sizes_beyond_the_fit_of_casync_are_cut_alike(casync: str, tmp_path: Path) -> None:
    """Above some 9 MiB casync's formula has no sense any more."""
    image = random.Random(9).randbytes(6_000_000)
    (tmp_path / "image").write_bytes(image)
    for size in ("1000:10000000:12000000", "1:8388608:16777216", "200000:1000000:4000000"):
        theirs, _ = made_by(casync, tmp_path / "image", "theirs", f"--chunk-size={size}")
        assert pack(image, None, Options(sizes=sizes_of(size))).content == theirs


@pytest.mark.parametrize("compression", list(LEVELS))
def test_casync_extracts_from_our_stores(casync: str, tmp_path: Path, file_system: bytes, compression: str) -> None:
    made = pack(file_system, tmp_path / "ours.castr", Options(compression=compression))
    (tmp_path / "ours.caibx").write_bytes(made.content)
    run(casync, "extract", f"--store={tmp_path}/ours.castr", tmp_path / "ours.caibx", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == file_system


def test_casync_extracts_with_a_seed_from_a_store_of_ours(casync: str, tmp_path: Path, pair: Pair) -> None:
    made = pack(pair.new, tmp_path / "ours.castr", Options(sizes=sizes_of("4096")))
    (tmp_path / "ours.caibx").write_bytes(made.content)
    (tmp_path / "old").write_bytes(pair.old)
    store, seed = f"--store={tmp_path}/ours.castr", f"--seed={tmp_path}/old"
    run(casync, "extract", store, seed, tmp_path / "ours.caibx", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == pair.new


def test_both_fill_one_store(casync: str, tmp_path: Path, pair: Pair) -> None:
    (tmp_path / "old").write_bytes(pair.old)
    made_by(casync, tmp_path / "old", "all")
    made = pack(pair.new, tmp_path / "all.castr")
    default = pack(pair.new, tmp_path / "all.castr", Options())
    assert default.store is not None
    assert default.store.written < len(default.header) // 3
    files = len(list((tmp_path / "all.castr").rglob("*.cacnk")))
    (tmp_path / "new").write_bytes(pair.new)
    made_by(casync, tmp_path / "new", "all")
    assert len(list((tmp_path / "all.castr").rglob("*.cacnk"))) == files
    assert rebuilt(made, tmp_path / "all.castr") == pair.new


def rebuilt(made: Packed, store: Path) -> bytes:
    target = MemoryMedium()
    apply(made.recipe, [], [source(made.header, store)], target)
    return bytes(target.content)


@pytest.mark.parametrize("digest", list(DIGESTS))
@pytest.mark.parametrize("compression", ["zstd", "xz", "gzip"])
def test_we_unpack_what_casync_made(
    casync: str, tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch, compression: str, digest: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new").write_bytes(pair.new)
    Path("old").write_bytes(pair.old)
    made_by(casync, tmp_path / "new", "theirs", f"--compression={compression}", f"--digest={digest}")
    assert regraft("unpack", "theirs.caibx", "-o", "out") == 0
    assert Path("out").read_bytes() == pair.new
    with StaticServer(tmp_path) as server:
        assert regraft("unpack", f"{server.url}/theirs.caibx", "-o", "remote", "--seed", "old") == 0
        asked = server.counts.requests
    assert Path("remote").read_bytes() == pair.new
    assert asked < len(caibx.parse_header(Path("theirs.caibx").read_bytes())) // 2


def test_casync_extracts_over_http_from_our_server(casync: str, tmp_path: Path, pair: Pair) -> None:
    made = pack(pair.new, tmp_path / "ours.castr", Options())
    (tmp_path / "ours.caibx").write_bytes(made.content)
    with StaticServer(tmp_path) as server:
        run(casync, "extract", f"--store={server.url}/ours.castr", tmp_path / "ours.caibx", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == pair.new


def test_what_is_cached_is_a_store_for_casync(
    casync: str, tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a store of casync's is a cache for us. (casync's own --cache is something else: it helps `make`.)"""
    monkeypatch.chdir(tmp_path)
    Path("new").write_bytes(pair.new)
    Path("none.castr").mkdir()
    run(casync, "make", "--store=all.castr", "new.caibx", "new")
    assert regraft("unpack", "new.caibx", "--store", "all.castr", "--cache", "ours.castr", "-o", "one") == 0
    cached = len(list(Path("ours.castr").rglob("*.cacnk")))
    shutil.copytree("ours.castr", "only.castr")
    for file in Path("all.castr").rglob("*.cacnk"):  # casync wants chunks of zeros too, which regraft does not fetch
        kept = Path("only.castr", file.relative_to("all.castr"))
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(file.read_bytes())
            cached += 1
    assert cached - len(list(Path("ours.castr").rglob("*.cacnk"))) <= 1
    run(casync, "extract", "--store=only.castr", "new.caibx", "two")
    assert Path("two").read_bytes() == pair.new
    assert regraft("unpack", "new.caibx", "--store", "none.castr", "--cache", "all.castr", "-o", "three") == 0
    assert Path("three").read_bytes() == pair.new


def test_casync_extracts_from_a_pruned_store(
    casync: str, tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old").write_bytes(pair.old)
    Path("new").write_bytes(pair.new)
    for name in ("old", "new"):
        run(casync, "make", "--store=all.castr", f"{name}.caibx", name)
    before = len(list(Path("all.castr").rglob("*.cacnk")))
    assert regraft("store", "prune", "all.castr", "new.caibx") == 0
    assert 0 < len(list(Path("all.castr").rglob("*.cacnk"))) < before
    run(casync, "extract", "--store=all.castr", "new.caibx", "out")
    assert Path("out").read_bytes() == pair.new


def test_the_index_of_a_directory_is_refused(casync: str, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"content")
    run(casync, "make", f"--store={tmp_path}/x.castr", tmp_path / "tree.caidx", tmp_path / "tree")
    with pytest.raises(UnsupportedError, match="directory archive"):
        caibx.parse_header((tmp_path / "tree.caidx").read_bytes())


def test_casync_refuses_what_we_refuse(casync: str, tmp_path: Path, pair: Pair) -> None:
    """Both look at each field of an index."""
    made = pack(pair.old[:100_000], tmp_path / "x.castr", Options(sizes=sizes_of("4096")))
    tail = len(made.content) - 40
    refused = 0
    for place in (0, 8, 24, 32, 40, 48, 56, 64, 104, tail, tail + 8, tail + 16, tail + 24, tail + 32):
        content = bytearray(made.content)
        content[place : place + 8] = b"\xff" * 7 + b"\x0f"
        (tmp_path / "x.caibx").write_bytes(content)
        with pytest.raises(FormatError):
            caibx.parse_header(content)
        command = [casync, "extract", f"--store={tmp_path}/x.castr", f"{tmp_path}/x.caibx", f"{tmp_path}/out{place}"]
        refused += subprocess.run(command, capture_output=True, check=False, timeout=30).returncode != 0
    assert refused > 10


@pytest.fixture(scope="module")
def desync() -> str:
    """desync is in no distribution (go install github.com/folbricht/desync/cmd/desync@latest)."""
    from shutil import which

    if os.environ.get("REGRAFT_REQUIRE_DESYNC", "") in ("", "0") and which("desync") is None:
        pytest.skip("desync is missing")
    return tool("desync")


def test_desync_extracts_what_we_pack(desync: str, tmp_path: Path, pair: Pair) -> None:
    made = pack(pair.new, tmp_path / "ours.castr", Options())
    (tmp_path / "ours.caibx").write_bytes(made.content)
    run(desync, "extract", "-s", tmp_path / "ours.castr", tmp_path / "ours.caibx", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == pair.new
    run(desync, "verify", "-s", tmp_path / "ours.castr")


def test_we_unpack_what_desync_makes(desync: str, tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new").write_bytes(pair.new)
    run(desync, "make", "-s", "theirs.castr", "theirs.caibx", "new")
    ours = replace(Options(), sizes=caibx.parse_header(Path("theirs.caibx").read_bytes()).sizes)
    theirs = caibx.parse_header(Path("theirs.caibx").read_bytes())
    # Older versions of desync do not end a chunk at its least length: few chunks differ.
    common = set(theirs.digests) & set(pack(pair.new, None, ours).header.digests)
    assert len(common) > len(theirs) * 0.9 * len(set(theirs.digests)) / len(theirs)
    assert regraft("unpack", "theirs.caibx", "-o", "out") == 0
    assert Path("out").read_bytes() == pair.new
