# SPDX-License-Identifier: Apache-2.0
"""Delta updates by stock swupdate from bundles that we build, and by us from bundles that others build."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import regraft
from images import Pair
from loops import loop_device
from pki import openssl_sign, self_signed
from servers import nginx
from stock_swupdate import TRIES, one_at_a_time
from tools import missing, tool

from regraft.server.static import StaticServer

KEY, IV = bytes(range(32)).hex(), bytes(range(16, 32)).hex()


@dataclass
class Site:
    """A device's folder: `old` and `new` images, the .zck in `www`, certificate and key, and where to write."""

    folder: Path
    pair: Pair

    @property
    def target(self) -> Path:
        return self.folder / "target"

    def installed(self, where: str | Path | None = None) -> bool:
        with open(where or self.target, "rb") as file:
            return file.read(len(self.pair.new)) == self.pair.new

    def install(self, bundle: str = "update.swu", *options: str) -> int:
        return regraft(
            "install", "-i", self.folder / bundle, "-k", self.folder / "cert.pem", "-H", "board:1.0", *options
        )


@pytest.fixture
def site(tmp_path: Path, pair: Pair) -> Site:
    (tmp_path / "www").mkdir()
    (tmp_path / "old").write_bytes(pair.old)
    (tmp_path / "new").write_bytes(pair.new)
    (tmp_path / "cert.pem").write_bytes(self_signed().pem)
    (tmp_path / "key.pem").write_bytes(self_signed().key_pem)
    assert regraft("pack", "zck", tmp_path / "new", "-o", tmp_path / "www/new.zck") == 0
    assert regraft("header", tmp_path / "www/new.zck", "-o", tmp_path / "new.zck.header") == 0
    return Site(tmp_path, pair)


@contextmanager
def serving(site: Site, server: str) -> Iterator[str]:
    if server == "nginx":
        with nginx(site.folder, "") as url:
            yield url
        return
    with StaticServer(site.folder / "www") as ours:
        yield ours.url
        assert 0 < ours.counts.body < (site.folder / "www/new.zck").stat().st_size / 2


def swupdate(folder: Path, *options: str) -> str:
    """Install `update.swu` with stock swupdate; its log. It polls its own state too early at times: then once more."""
    (folder / "empty.cfg").write_text("globals : {};\n")
    command = [tool("swupdate"), "-v", "-M", "-m", "-H", "board:1.0", "-f", "empty.cfg", "-k", "cert.pem"]
    for _ in range(TRIES):
        # Its sockets have fixed names in TMPDIR, and the path of a socket must be short.
        with one_at_a_time(), tempfile.TemporaryDirectory(prefix="swu", ignore_cleanup_errors=True) as scratch:
            done = subprocess.run(
                [*command, *options, "-i", "update.swu"],
                cwd=folder,
                env={"TMPDIR": scratch, "PATH": "/usr/bin:/bin:/usr/sbin"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=60,
            )
        log = done.stdout.decode(errors="replace")
        if done.returncode == 0:
            return log
        if "was successful !" not in log:
            pytest.fail(log[-4000:])
    pytest.fail(f"swupdate said successful and exited 1, {TRIES} times")


def build(site: Site, url: str, *options: str) -> None:
    signing = ("--key", site.folder / "key.pem", "--cert", site.folder / "cert.pem", "-o", site.folder / "update.swu")
    status = regraft(
        *("swu", "build", "--delta", site.folder / "www/new.zck", "--url", f"{url}/new.zck"),
        *("--version", "2.0", "--hardware", "1.0", *options, *signing),
    )
    assert status == 0


# our bundles, stock swupdate


@pytest.mark.parametrize("ranges", ["1", "150"])
@pytest.mark.parametrize("chain", ["raw", "rawfile"])
@pytest.mark.parametrize("server", ["ours", "nginx"])
def test_stock_swupdate_installs_by_delta_what_we_build(server: str, chain: str, ranges: str, site: Site) -> None:
    tool("swupdate")
    with serving(site, server) as url:
        place = ("--device", str(site.target)) if chain == "raw" else ("--path", str(site.target))
        site.target.write_bytes(b"\xaa" * 1000)
        build(site, url, "--source", str(site.folder / "old"), *place, "--chain", chain, "--max-ranges", ranges)
        log = swupdate(site.folder)
    assert site.installed()
    reused = re.search(r"Total bytes to be reused\s*:\s*([0-9]+)", log)
    assert reused is not None
    assert int(reused[1]) > len(site.pair.new) / 2
    requests = log.count("Range request")
    assert requests == 1 if ranges == "150" else requests > 2


def test_stock_swupdate_takes_chunks_that_were_cut_by_another_rule(site: Site) -> None:
    """It finds none of them in its source, but passes over the element that names the rule. We find them."""
    tool("swupdate")
    packed = site.folder / "www/new.zck"
    assert regraft("pack", "zck", site.folder / "new", "-o", packed, "--align", "4096") == 0
    with serving(site, "nginx") as url:
        build(site, url, "--source", str(site.folder / "old"), "--device", str(site.target))
        site.target.write_bytes(bytes(1000))
        swupdate(site.folder)
        assert site.installed()
    with StaticServer(site.folder / "www") as server:
        build(site, server.url, "--source", str(site.folder / "old"), "--device", str(site.target))
        site.target.write_bytes(bytes(1000))
        assert site.install() == 0
        assert server.counts.body < 0.7 * packed.stat().st_size
    assert site.installed()


def test_stock_swupdate_and_we_move_the_same_between_block_devices(site: Site) -> None:
    tool("swupdate")
    with ExitStack() as stack:
        for name in ("slot-a", "slot-b", "slot-c"):
            content = site.pair.old if name == "slot-a" else b"\xaa"
            (site.folder / name).write_bytes(content.ljust(4 << 20, b"\0"))
        source, theirs, ours = (
            stack.enter_context(loop_device(site.folder / name)) for name in ("slot-a", "slot-b", "slot-c")
        )
        url = stack.enter_context(serving(site, "nginx"))
        build(site, url, "--source", source, "--device", theirs)
        swupdate(site.folder)
        assert site.installed(theirs)
        build(site, url, "--source", source, "--device", ours)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("REGRAFT_STATE", str(site.folder / "state"))
            assert site.install() == 0
        assert site.installed(ours)
        stack.pop_all().close()
    after = len(site.pair.new)
    assert (site.folder / "slot-c").read_bytes()[after:] == bytes(4 << 20)[after:]


def test_stock_swupdate_takes_our_compressed_and_plain_files_beside_the_delta(site: Site) -> None:
    """A bundle from our template, with more than one entry."""
    tool("swupdate")
    (site.folder / "notes.txt").write_bytes(b"notes\n" * 100)
    with serving(site, "ours") as url:
        entry = delta_entry(site, url, f'path = "{site.target}";', chain="rawfile")
        notes = f'{{ filename = "notes.txt"; path = "{site.folder}/notes.out"; }}'
        template = f'software = {{ version = "2"; hardware-compatibility = ["1.0"]; files: ( {entry}, {notes} ); }};'
        (site.folder / "template").write_text(template)
        status = regraft(
            *("swu", "build", "--description", site.folder / "template", "--file", site.folder / "new.zck.header"),
            *("--file", site.folder / "notes.txt", "--key", site.folder / "key.pem"),
            *("--cert", site.folder / "cert.pem", "-o", site.folder / "update.swu"),
        )
        assert status == 0
        swupdate(site.folder)
    assert site.installed()
    assert (site.folder / "notes.out").read_bytes() == b"notes\n" * 100


def test_stock_swupdate_decrypts_what_we_encrypt(site: Site) -> None:
    tool("swupdate")
    (site.folder / "notes.txt").write_bytes(b"notes\n" * 100)
    (site.folder / "aes.key").write_text(f"{'5a' * 32} {'a5' * 16}\n")
    notes = f'{{ filename = "notes.txt"; path = "{site.folder}/notes.out"; encrypted = true; }}'
    template = f'software = {{ version = "2"; hardware-compatibility = ["1.0"]; files: ( {notes} ); }};'
    (site.folder / "template").write_text(template)
    status = regraft(
        *("swu", "build", "--description", site.folder / "template", "--encrypt", site.folder / "notes.txt"),
        *("-K", site.folder / "aes.key", "--key", site.folder / "key.pem", "--cert", site.folder / "cert.pem"),
        *("-o", site.folder / "update.swu"),
    )
    assert status == 0
    swupdate(site.folder, "-K", "aes.key")
    assert (site.folder / "notes.out").read_bytes() == b"notes\n" * 100


# bundles of others, our install


def delta_entry(
    site: Site, url: str, place: str, *, chain: str, filename: str = "new.zck.header", more: str = ""
) -> str:
    return (
        f'{{ filename = "{filename}"; type = "delta"; {place} {more}'
        f'properties: {{ url = "{url}/new.zck"; source = "{site.folder}/old"; chain = "{chain}"; }}; }}'
    )


def describe(entries: str, kind: str = "images") -> str:
    return f'software = {{ version = "2.0"; hardware-compatibility = [ "1.0" ]; {kind}: ( {entries} ); }}\n'


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def by_hand(site: Site, description: str, *names: str, form: str = "crc") -> None:
    """A bundle made with openssl and cpio of files in the folder."""
    (site.folder / "sw-description").write_text(description)
    content = (site.folder / "sw-description").read_bytes()
    (site.folder / "sw-description.sig").write_bytes(openssl_sign(site.folder, content, self_signed()))
    members = "\n".join(["sw-description", "sw-description.sig", *names]) + "\n"
    command = [tool("cpio"), "-o", "-H", form]
    done = subprocess.run(command, cwd=site.folder, input=members.encode(), capture_output=True, check=True)
    (site.folder / "update.swu").write_bytes(done.stdout)


@pytest.mark.parametrize("form", ["crc", "newc"])
@pytest.mark.parametrize("language", ["libconfig", "json"])
def test_we_install_what_cpio_and_openssl_make(form: str, language: str, site: Site) -> None:
    with serving(site, "nginx") as url:
        if language == "json":
            entry = {"filename": "new.zck.header", "type": "delta", "path": str(site.target)}
            properties = {"url": f"{url}/new.zck", "source": str(site.folder / "old"), "chain": "rawfile"}
            entry_all = {**entry, "sha256": sha256(site.folder / "new.zck.header"), "properties": properties}
            software = {"version": "2.0", "hardware-compatibility": ["1.0"], "files": [entry_all]}
            description = json.dumps({"software": software}, indent=1)
        else:
            more = f'sha256 = "{sha256(site.folder / "new.zck.header")}";'
            place = f'path = "{site.target}";'
            description = describe(delta_entry(site, url, place, chain="rawfile", more=more), "files")
        by_hand(site, description, "new.zck.header", form=form)
        assert site.install() == 0
    assert site.installed()


COMPRESS = {
    "zlib": ["gzip", "-c"],
    "zstd": ["zstd", "-q", "-c"],
    "xz": ["xz", "-c"],
    "": [],
}


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("compressed", COMPRESS, ids=lambda name: name or "as-it-is")
def test_the_header_may_be_compressed_and_encrypted(compressed: str, encrypted: bool, site: Site) -> None:
    content, attributes = (site.folder / "new.zck.header").read_bytes(), ""
    if compressed:
        program, *options = COMPRESS[compressed]
        content = subprocess.run([tool(program), *options], input=content, capture_output=True, check=True).stdout
        attributes += f'compressed = "{compressed}"; '
    if encrypted:
        command = [tool("openssl"), "enc", "-aes-256-cbc", "-K", KEY, "-iv", IV]
        content = subprocess.run(command, input=content, capture_output=True, check=True).stdout
        attributes += "encrypted = true; "
        (site.folder / "aes.key").write_text(f"{KEY} {IV}\n")
    (site.folder / "header").write_bytes(content)
    attributes += f'sha256 = "{hashlib.sha256(content).hexdigest()}"; '
    with serving(site, "ours") as url:
        place = f'path = "{site.target}";'
        entry = delta_entry(site, url, place, chain="rawfile", filename="header", more=attributes)
        by_hand(site, describe(entry, "files"), "header")
        if encrypted:
            assert site.install() == 2
            assert not site.target.exists()
        assert site.install("update.swu", *(("-K", str(site.folder / "aes.key")) if encrypted else ())) == 0
    assert site.installed()


@pytest.mark.parametrize("directly", ["true", "false"])
@pytest.mark.parametrize("compressed", ["", "zlib", "zstd", "xz"], ids=lambda name: name or "as-it-is")
def test_raw_and_rawfile_streamed_and_not(directly: str, compressed: str, site: Site) -> None:
    new, more = site.pair.new, f"installed-directly = {directly}; "
    content = new
    if compressed:
        program, *options = COMPRESS[compressed]
        content = subprocess.run([tool(program), *options], input=new, capture_output=True, check=True).stdout
        more += f'compressed = "{compressed}"; '
    (site.folder / "image").write_bytes(content)
    (site.folder / "image.copy").write_bytes(content)
    more += f'sha256 = "{hashlib.sha256(content).hexdigest()}"; '
    site.target.write_bytes(b"\xaa" * (len(new) + 9000))
    description = (
        'software = { version = "2.0"; hardware-compatibility = [ "1.0" ];\n'
        f'images: ( {{ filename = "image"; device = "{site.target}"; offset = "4K"; {more} }} );\n'
        f'files: ( {{ filename = "image.copy"; path = "{site.folder}/a/b/file"; {more} properties: '
        '{ create-destination = "true"; atomic-install = "true"; }; } ); }'
    )
    by_hand(site, description, "image", "image.copy")
    assert site.install() == 0
    assert site.target.read_bytes() == b"\xaa" * 4096 + new + b"\xaa" * (9000 - 4096)
    assert (site.folder / "a/b/file").read_bytes() == new
    assert os.listdir(site.folder / "a/b") == ["file"]


def test_a_chained_rawfile_is_atomic_and_makes_its_folder(site: Site) -> None:
    (site.folder / "a").mkdir()
    (site.folder / "a/file").write_bytes(b"the file of before")
    with serving(site, "ours") as url:
        more = f'sha256 = "{sha256(site.folder / "new.zck.header")}"; '
        entry = delta_entry(site, url, f'path = "{site.folder}/a/b/file";', chain="rawfile", more=more)
        entry = entry.replace("properties: {", 'properties: { create-destination = "true"; atomic-install = "true";')
        by_hand(site, describe(entry, "files"), "new.zck.header")
        assert site.install() == 0
    assert site.installed(site.folder / "a/b/file")
    left = set(os.listdir(site.folder / "a/b"))
    assert "file.tmp" not in left
    assert left <= {"file", "file.regraft.index"}


@pytest.mark.parametrize("right", [True, False], ids=["right", "wrong"])
def test_the_signed_digest_of_the_image_counts(right: bool, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    image = site.folder / ("new" if right else "old")
    with serving(site, "ours") as url:
        more = f'sha256 = "{sha256(site.folder / "new.zck.header")}"; '
        entry = delta_entry(site, url, f'device = "{site.target}";', chain="raw", more=more)
        entry = entry.replace("properties: {", f'properties: {{ image-sha256 = "{sha256(image)}";')
        site.target.write_bytes(b"")
        by_hand(site, describe(entry), "new.zck.header")
        assert site.install() == (0 if right else 22)
    if not right:
        assert "image" in capsys.readouterr().err


@pytest.mark.parametrize("handler", ["delta", "raw", "encrypted", "all encrypted"])
def test_we_install_what_swugenerator_makes(handler: str, site: Site) -> None:
    if importlib.util.find_spec("swugenerator") is None:
        missing("swugenerator")
    tool("openssl"), tool("zck")
    options: list[str] = []
    install: tuple[str, ...] = ()
    with serving(site, "nginx") as url:
        if handler == "delta":  # swugenerator runs zck itself
            entry = delta_entry(site, url, f'device = "{site.target}";', chain="raw", filename="new")
        else:
            secret = "encrypted = true;" if "encrypted" in handler else ""
            entry = f'{{ filename = "new"; device = "{site.target}"; compressed = "zlib"; {secret} }}'
        if "encrypted" in handler:
            (site.folder / "aes").write_text(f"key={KEY}\niv={IV}\n")
            (site.folder / "aes.key").write_text(f"{KEY} {IV}\n")
            options, install = ["-K", "aes"], ("-K", str(site.folder / "aes.key"))
            if handler == "all encrypted":
                options, install = [*options, "-t"], (*install, "--encrypted-description")
        (site.folder / "template").write_text(describe(entry).replace("; ", ";\n"))
        site.target.write_bytes(b"")
        command = [sys.executable, "-m", "swugenerator.main", "-s", "template", "-a", ".", "-o", "update.swu"]
        command += [*options, "-k", "CMS,key.pem,cert.pem", "create"]
        done = subprocess.run(command, cwd=site.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if handler == "delta":
            (site.folder / "new.zck").replace(site.folder / "www/new.zck")
        assert site.install("update.swu", *install) == 0
    assert site.installed()
