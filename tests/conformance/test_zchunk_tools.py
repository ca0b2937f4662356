# SPDX-License-Identifier: Apache-2.0
"""zchunk's own tools and ours, both ways: what one writes the other reads, and with one libzstd the files are equal."""

from __future__ import annotations

import ctypes.util
import os
import random
import re
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from images import Artifact, pack, seed_of
from servers import nginx
from tools import missing, tool

from regraft.build.zchunk import Options
from regraft.engine.apply import apply
from regraft.engine.blobs import LocalBlob
from regraft.engine.cost import forecast
from regraft.engine.match import match
from regraft.engine.ranges import Link
from regraft.formats import zchunk
from regraft.model import Algorithm
from regraft.server.static import StaticServer
from regraft.testing.memory import MemoryMedium

SHA256, SHA512, SHA512_128 = Algorithm.SHA256, Algorithm.SHA512, Algorithm.SHA512_128


@cache
def text(size: int = 300_000) -> bytes:
    chance = random.Random(5)
    words = [bytes(chance.choices(b"abcdefghijklmnop", k=chance.randint(2, 9))) for _ in range(900)]
    return b" ".join(chance.choices(words, k=size // 4))[:size]


SMALL = {
    "empty": b"",
    "one-byte": b"x",
    "47-bytes": bytes(range(47)),
    "131072-zeros": bytes(131072),
    "131073-zeros": bytes(131073),
    "random": random.Random(1).randbytes(400_000),
    "text": text(),
}
DICTIONARY = text(4000)


@cache
def elf() -> bytes:
    """Any program of this machine of a size that a test can afford."""
    return Path(tool("openssl")).read_bytes()[:2_000_000]


def ext4(folder: Path) -> bytes:
    """A file system with some files, made by mke2fs."""
    program = tool("mke2fs")
    root = folder / "root"
    root.mkdir()
    for number in range(12):
        (root / f"file{number}").write_bytes(text()[number * 999 : number * 20_000])
    image = folder / "ext4"
    settings = ("-q", "-t", "ext4", "-d", str(root), "-O", "^has_journal")
    subprocess.run([program, *settings, str(image), "4M"], check=True)
    return image.read_bytes()


def zck(folder: Path, image: bytes, *options: str) -> bytes:
    """What `zck` makes of `image`."""
    (folder / "image").write_bytes(image)
    (folder / "dict").write_bytes(DICTIONARY)
    command = [tool("zck"), *options, "-o", "theirs.zck", "image"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return (folder / "theirs.zck").read_bytes()


def unpacked(content: bytes) -> bytes:
    header = zchunk.parse_header(content)
    target = MemoryMedium(b"left over from before")
    apply(zchunk.recipe(header, "x", size=len(content)), [], [LocalBlob(MemoryMedium(content))], target)
    return bytes(target.content)


def check_reading(content: bytes, image: bytes) -> zchunk.Header:
    header = zchunk.parse_header(content)
    assert zchunk.build_header(header) == content[: header.size]
    assert header.size + header.body_size == len(content)
    assert header.image_size == len(image)
    assert unpacked(content) == image
    return header


FORMATS = ["", "--compression-format=none", "--compression-format=zstd"]
OPTIONS = [
    " ".join(word for word in (flag, digest, form, dictionary, cuts) if word)
    for flag in ("", "-u")
    for digest, form, dictionary, cuts in [
        ("", "", "", ""),
        ("-h sha256", "", "", ""),
        ("-h sha512", "", "", ""),
        ("-h sha512_128", "", "", ""),
        ("", FORMATS[1], "", ""),
        ("-h sha512", FORMATS[1], "", ""),
        ("", FORMATS[2], "", ""),
        ("", "", "-D dict", ""),
        ("-h sha512", "", "-D dict", ""),
        ("", FORMATS[1], "-D dict", ""),
        ("", "", "", "-m"),
        ("", "", "", "-s ab"),
        ("", FORMATS[1], "", "-s ab"),
        ("", "", "", "-m -s ab"),
        ("-h sha256", "", "-D dict", "-m -s ab"),
        ("", "", "", "-v"),
    ]
]


@pytest.mark.parametrize("options", OPTIONS)
def test_we_read_what_zck_writes_with_each_of_its_options(options: str, tmp_path: Path) -> None:
    for name, image in SMALL.items():
        header = check_reading(zck(tmp_path, image, *options.split()), image)
        assert header.uncompressed_source == ("-u" in options), name
        assert bool(header.dictionary_stored) == ("-D" in options), name


@pytest.mark.parametrize("options", ["", "-u -h sha256", "-u --compression-format=none", "-u -D dict -h sha512"])
def test_we_read_what_zck_makes_of_programs_and_file_systems(options: str, tmp_path: Path) -> None:
    for image in (elf(), ext4(tmp_path)):
        check_reading(zck(tmp_path, image, *options.split()), image)


# the same bytes

OURS_AND_THEIRS = {
    "-u --chunk-hash-type sha256": Options(),
    "-u": Options(),
    "-u -h sha512": Options(chunk_digest=SHA512),
    "-u -h sha512_128": Options(chunk_digest=SHA512_128),
    "": Options(uncompressed_source=False, chunk_digest=SHA512_128),
    "-h sha256": Options(uncompressed_source=False),
    "-u --compression-format=none": Options(compression="none"),
    "--compression-format=none -h sha512": Options(
        compression="none", uncompressed_source=False, chunk_digest=SHA512
    ),
    "-u -D dict": Options(dictionary=DICTIONARY),
    "-D dict": Options(dictionary=DICTIONARY, uncompressed_source=False, chunk_digest=SHA512_128),
}  # fmt: skip


@pytest.fixture(scope="module")
def libzstd() -> str:
    if ctypes.util.find_library("zstd") is None:
        missing("libzstd")
    return "system"


@pytest.mark.parametrize("options", OURS_AND_THEIRS)
def test_with_its_libzstd_our_file_is_that_of_zck(options: str, libzstd: str, tmp_path: Path) -> None:
    ours = replace(OURS_AND_THEIRS[options], libzstd=libzstd)
    for name, image in SMALL.items():
        assert pack(image, ours).content == zck(tmp_path, image, *options.split()), name


def test_with_its_libzstd_programs_and_file_systems_are_those_of_zck(libzstd: str, tmp_path: Path) -> None:
    for image in (elf(), ext4(tmp_path)):
        theirs = zck(tmp_path, image, "-u", "--chunk-hash-type", "sha256")
        assert pack(image, Options(libzstd=libzstd)).content == theirs


def test_a_trained_dictionary_is_used_as_zck_uses_it(libzstd: str, tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    for number in range(200):
        (samples / str(number)).write_bytes(text()[number * 1000 : (number + 1) * 1000])
    command = [tool("zstd"), "-q", "--train", "-r", "samples", "-o", "dict", "--maxdict=3000"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    trained = (tmp_path / "dict").read_bytes()
    assert trained.startswith(b"\x37\xa4\x30\xec")
    (tmp_path / "image").write_bytes(text())
    subprocess.run([tool("zck"), "-u", "-D", "dict", "-o", "theirs", "image"], cwd=tmp_path, check=True)
    theirs = (tmp_path / "theirs").read_bytes()
    assert pack(text(), Options(dictionary=trained, libzstd=libzstd)).content == theirs
    assert unpacked(theirs) == text()
    assert unpacked(pack(text(), Options(dictionary=trained)).content) == text()


# their tools on our files

KINDS = {
    "default": Options(),
    "level-1": Options(level=1),
    "level-19": Options(level=19),
    "none": Options(compression="none"),
    "none-without-u": Options(compression="none", uncompressed_source=False),
    "without-u": Options(uncompressed_source=False),
    "sha512": Options(chunk_digest=SHA512),
    "sha512_128": Options(chunk_digest=SHA512_128, uncompressed_source=False),
    "sha1": Options(digest=Algorithm.SHA1, chunk_digest=Algorithm.SHA1, uncompressed_source=False),
    "sha1-header": Options(digest=Algorithm.SHA1),
    "sha512-header": Options(digest=SHA512),
    "dict": Options(dictionary=DICTIONARY),
    "dict-without-u": Options(dictionary=DICTIONARY, uncompressed_source=False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_unzck_and_zck_read_header_accept_what_we_write(kind: str, tmp_path: Path) -> None:
    for name, image in {**SMALL, "mixed": elf()[:600_000] + bytes(300_000) + text()}.items():
        artifact = pack(image, KINDS[kind])
        (tmp_path / "ours.zck").write_bytes(artifact.content)
        command = [tool("zck_read_header"), "-c", "-f", "ours.zck"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        check_listing(done.stdout, artifact)
        subprocess.run([tool("unzck"), "ours.zck"], cwd=tmp_path, check=True, capture_output=True)
        assert (tmp_path / "ours").read_bytes() == image, name


def check_listing(listing: str, artifact: Artifact) -> None:
    """`zck_read_header -c` names the same chunks at the same places."""
    header = artifact.header
    assert f"Header size: {header.size}\n" in listing
    assert f"Header checksum: {header.digest.hex()}\n" in listing
    rows = [line.split() for line in listing.splitlines() if re.match(r" +[0-9]+ [0-9a-f]{32}", line)]
    assert len(rows) == len(header)
    offset = header.size
    for chunk, row in enumerate(rows):
        expected = [header.stored_digests[chunk].hex()]
        if header.uncompressed_source:
            expected.append(header.digests[chunk].hex())
        assert row[1 : 1 + len(expected)] == expected
        numbers = row[1 + len(expected) : 4 + len(expected)]
        assert row[4 + len(expected) :] in ([], ["+"])  # with -f: found right
        assert [int(word) for word in numbers] == [offset, header.stored[chunk], header.lengths[chunk]]
        offset += header.stored[chunk]


@pytest.mark.parametrize("kind", ["default", "none", "dict", "sha512-header"])
def test_zck_read_header_accepts_our_detached_header(kind: str, tmp_path: Path) -> None:
    artifact = pack(text(), KINDS[kind])
    detached = zchunk.build_header(artifact.header, detached=True)
    (tmp_path / "ours.zhr").write_bytes(detached)
    done = subprocess.run([tool("zck_read_header"), "-c", "ours.zhr"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_listing(done.stdout, artifact)


def test_our_detached_header_is_that_of_unzck(tmp_path: Path) -> None:
    artifact = pack(text())
    (tmp_path / "ours.zck").write_bytes(artifact.content)
    subprocess.run([tool("unzck"), "--header", "ours.zck"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "ours.zhr").read_bytes() == zchunk.build_header(artifact.header, detached=True)
    header = zchunk.parse_header((tmp_path / "ours.zhr").read_bytes())
    assert header.detached
    assert replace(header, detached=False) == artifact.header


@pytest.mark.parametrize("server", ["ours", "nginx"])
@pytest.mark.parametrize("kind", ["default", "level-19", "none", "dict", "without-u"])
def test_zckdl_fetches_from_our_server_and_nginx(server: str, kind: str, tmp_path: Path) -> None:
    old, new = text() + elf()[:900_000], text()[:150_000] + b"something new" + text()[150_000:] + elf()[:900_000]
    www = tmp_path / "www"
    www.mkdir()
    artifact = pack(new, KINDS[kind])
    (www / "new.zck").write_bytes(artifact.content)
    (tmp_path / "old.zck").write_bytes(pack(old, KINDS[kind]).content)
    command = [tool("zckdl"), "-s", "old.zck"]
    if server == "ours":
        with StaticServer(www) as ours:
            done = subprocess.run([*command, f"{ours.url}/new.zck"], cwd=tmp_path, capture_output=True, text=True)
            assert ours.counts.body < len(artifact.content) / 2
    else:
        with nginx(tmp_path, "") as url:
            done = subprocess.run([*command, f"{url}/new.zck"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "new.zck").read_bytes() == artifact.content
    assert int(re.findall(r"Downloaded ([0-9]+) bytes", done.stdout + done.stderr)[-1]) < len(artifact.content) / 2


@pytest.mark.parametrize("options", [Options(), Options(compression="none"), Options(chunk_digest=SHA512)])
def test_our_forecast_is_that_of_zck_delta_size(options: Options, tmp_path: Path) -> None:
    old, new = text() + elf()[:900_000], text()[:150_000] + b"something new" + text()[150_000:] + elf()[:900_000]
    (tmp_path / "old.zck").write_bytes(pack(old, options).content)
    artifact = pack(new, options)
    (tmp_path / "new.zck").write_bytes(artifact.content)
    command = [tool("zck_delta_size"), "old.zck", "new.zck"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = re.search(r"Would download ([0-9]+) of ([0-9]+) bytes", done.stdout)
    assert found is not None
    assert int(found[2]) == len(artifact.content)
    plan = match(artifact.recipe, [("old", seed_of(old, options.chunk_digest).index)])
    cost = forecast(plan, Link(bandwidth=2.5e6, round_trip=0.1))
    assert cost.fetch + artifact.header.size == int(found[1])
    assert cost.reused + cost.fetched_image == len(new)


def test_their_tools_refuse_what_we_refuse(tmp_path: Path) -> None:
    content = bytearray(pack(text()).content)
    content[60] ^= 1
    (tmp_path / "bad.zck").write_bytes(content)
    with pytest.raises(Exception, match="own digest"):
        zchunk.parse_header(content)
    assert subprocess.run([tool("zck_read_header"), "bad.zck"], cwd=tmp_path, capture_output=True).returncode
    assert os.listdir(tmp_path) == ["bad.zck"]
