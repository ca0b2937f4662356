# SPDX-License-Identifier: Apache-2.0
"""Artifacts behind a URL, served by `regraft nbd` before they are fetched, to the NBD clients that are in use."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import regraft
from test_nbd_tools import run, serving
from tools import tool

from regraft.server.static import StaticServer

MIB = 1 << 20


@dataclass(frozen=True)
class Published:
    """Artifacts of one image behind a server, and an older image that holds part of it."""

    image: Path
    old: Path
    server: StaticServer


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("published")
    (folder / "www").mkdir()
    chance = random.Random(21)
    shared = chance.randbytes(6 * MIB)
    with (folder / "disk").open("wb") as file:
        file.write(shared)
        file.seek(12 * MIB)
        file.write(chance.randbytes(2 * MIB) + b"words and words " * 100_000 + chance.randbytes(5 * MIB + 999))
    (folder / "old").write_bytes(chance.randbytes(100_001) + shared)
    for kind, *options in (("zck",), ("cba", "--compression", "zstd")):
        assert regraft("pack", kind, folder / "disk", "-o", folder / "www" / f"disk.{kind}", *options) == 0
    with StaticServer(folder / "www") as server:
        yield Published(folder / "disk", folder / "old", server)


@dataclass(frozen=True)
class Served:
    kind: str
    uri: str
    pid: int


@pytest.fixture(params=["zck", "cba"])
def served(request: pytest.FixtureRequest, published: Published, tmp_path: Path) -> Iterator[Served]:
    url = f"{published.server.url}/disk.{request.param}"
    arguments = ["--seed", str(published.old), "--socket", str(tmp_path / "socket"), "--no-read-ahead"]
    with serving(url, *arguments, "--name", "disk.img") as (announced, process):
        yield Served(request.param, announced[0]["uri"], process.pid)


def test_qemu_img_finds_the_image(served: Served, published: Published) -> None:
    run(tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", str(published.image), served.uri)


def test_nbdcopy_over_several_connections(served: Served, published: Published, tmp_path: Path) -> None:
    run(tool("nbdcopy"), "--connections=4", "--requests=32", served.uri, str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == published.image.read_bytes()
    assert peak(served.pid) <= 64 * MIB


def peak(pid: int) -> int:
    """Bytes of memory that the process had at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_chunks_of_the_greatest_length_fit_into_memory_too(tmp_path: Path) -> None:
    content = random.Random(3).randbytes(40 * MIB)
    (tmp_path / "www").mkdir()
    (tmp_path / "disk").write_bytes(content)
    options = ("--fixed-size", "16MiB", "--compression", "zstd")
    assert regraft("pack", "cba", tmp_path / "disk", "-o", tmp_path / "www/disk.cba", *options) == 0
    with (
        StaticServer(tmp_path / "www") as server,
        serving(f"{server.url}/disk.cba", "--socket", str(tmp_path / "s"), "--name", "x.img") as (announced, process),
    ):
        uri = announced[0]["uri"]
        run(tool("nbdcopy"), "--connections=4", uri, str(tmp_path / "copy"))
        reads = [f"aio_read {offset * MIB} 4k" for offset in (1, 17, 33, 5, 20, 39, 2)]
        run(
            tool("qemu-io"), "-r", "-f", "raw", *(word for one in reads for word in ("-c", one)), "-c", "aio_flush", uri
        )
        assert peak(process.pid) <= 64 * MIB
    assert (tmp_path / "copy").read_bytes() == content


def test_nbdinfo_maps_where_ranges_come_from(served: Served, published: Published) -> None:
    (export,) = json.loads(run(tool("nbdinfo"), "--json", served.uri))["exports"]
    assert export["contexts"] == ["base:allocation", "x-regraft:origin"]
    found = json.loads(run(tool("nbdinfo"), "--map=x-regraft:origin", "--json", served.uri))
    content = published.image.read_bytes()
    by_origin: dict[int, int] = {}
    for extent in found:
        by_origin[extent["type"]] = by_origin.get(extent["type"], 0) + extent["length"]
        if extent["type"] == 1:
            assert not any(content[extent["offset"] : extent["offset"] + extent["length"]])
    assert sum(by_origin.values()) == len(content)
    assert by_origin[2] > 5 * MIB, "what the seed has comes from there"
    assert by_origin[4] > 5 * MIB, "the rest is still remote"
    holes = json.loads(run(tool("nbdinfo"), "--map", "--json", served.uri))
    if served.kind == "zck":  # bita's longest chunk is longer than this run of zeros
        assert by_origin[1] > 5 * MIB
        assert {extent["type"] for extent in holes} == {0, 3}


def test_only_what_is_read_is_fetched(published: Published, tmp_path: Path) -> None:
    before = published.server.counts.body
    url = f"{published.server.url}/disk.zck"
    with serving(url, "--socket", str(tmp_path / "s"), "--no-read-ahead", "--name", "x.img") as (announced, _):
        run(tool("qemu-io"), "-r", "-f", "raw", "-c", f"read {13 * MIB} 64k", announced[0]["uri"])
    assert published.server.counts.body - before < MIB


@pytest.mark.slow
def test_fio_verifies_what_it_wrote(tmp_path: Path) -> None:
    image, www = tmp_path / "fio", tmp_path / "www"
    www.mkdir()
    job = ["--name=job", "--size=16m", "--bs=4k", "--verify=crc32c", "--randrepeat=1", "--verify_state_save=0"]
    run(tool("fio"), *job, "--rw=write", "--do_verify=0", f"--filename={image}", "--allow_file_create=1")
    assert regraft("pack", "zck", image, "-o", www / "fio.zck") == 0
    with (
        StaticServer(www) as server,
        serving(f"{server.url}/fio.zck", "--socket", str(tmp_path / "s"), "--name", "x.img") as (announced, _),
    ):
        uri = announced[0]["uri"]
        run(tool("fio"), *job, "--rw=randread", "--ioengine=nbd", f"--uri={uri}", "--iodepth=16", "--verify_fatal=1")


def test_a_local_artifact_is_served_too(published: Published, tmp_path: Path) -> None:
    artifact = published.image.parent / "www" / "disk.zck"
    with serving(str(artifact), "--socket", str(tmp_path / "s"), "--name", "x.img") as (announced, _):
        run(tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", str(published.image), announced[0]["uri"])


def test_what_is_kept_becomes_the_image_while_it_is_served(published: Published, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    arguments = ["--seed", str(published.old), "--keep", str(kept), "--socket", str(tmp_path / "s"), "--name", "x.img"]
    url = f"{published.server.url}/disk.zck"
    with serving(url, *arguments) as (announced, _):
        run(tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", str(published.image), announced[0]["uri"])
        end = time.monotonic() + 30
        while not (tmp_path / "kept.regraft.index").exists() or (tmp_path / "kept.regraft.journal").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert kept.read_bytes() == published.image.read_bytes()
        run(tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", str(published.image), announced[0]["uri"])
        before = published.server.counts.body
    with serving(url, *arguments) as (announced, _):  # all is there: only the header is asked for
        run(tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", str(published.image), announced[0]["uri"])
    assert published.server.counts.body - before < 100_000
    assert kept.stat().st_blocks * 512 < kept.stat().st_size - 5 * MIB, "holes stay holes"
