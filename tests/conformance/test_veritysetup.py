# SPDX-License-Identifier: Apache-2.0
"""Hash trees are those of cryptsetup's veritysetup, byte by byte, and it verifies ours."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest
from commands import regraft
from tools import tool

from regraft.blockdev.nbd.exports import Exports
from regraft.blockdev.nbd.server import Server, listen_unix
from regraft.cli._export import open_export
from regraft.cli._network import Network
from regraft.cli._verity import with_tree
from regraft.errors import LimitError, MissingError
from regraft.formats import cba, verity, zchunk
from regraft.formats.codecs import brotli
from regraft.limits import Limits
from regraft.server.static import StaticServer

UUID = "12345678-1234-5678-1234-567812345678"


def veritysetup(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("veritysetup"), *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 1000, 128 * 128, 128 * 128 + 1])
def test_trees_are_the_same(tmp_path: Path, blocks: int) -> None:
    content = random.Random(blocks).randbytes(blocks * 4096 - 100)
    salt = random.Random(blocks).randbytes(blocks % 40)
    data, tree = tmp_path / "data", tmp_path / "tree"
    data.write_bytes(content + bytes(100))
    done = veritysetup("format", data, tree, "--salt", salt.hex() or "-", "--uuid", UUID)
    assert done.returncode == 0, done.stderr
    root = next(line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Root hash"))
    found, ours = verity.build(
        lambda at, view: view.__setitem__(slice(None), content[at : at + len(view)]), len(content), salt,
        uuid=bytes.fromhex(UUID.replace("-", "")),
    )  # fmt: skip
    assert found.root.hex() == root
    assert ours == tree.read_bytes()
    assert verity.check_tree(tree.read_bytes(), found.root) == found


def test_what_is_packed_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        brotli()
        compression = "brotli"
    except MissingError:
        compression = "none"
    content = random.Random(3).randbytes(700_001)
    image, archive = tmp_path / "image", tmp_path / "image.cba"
    image.write_bytes(content)
    options = ["--verity", "--json", "--compression", compression, "--progress", "none"]
    for _ in range(2):
        assert regraft("pack", "cba", image, "-o", archive, *options) == 0
        packed = json.loads(capsys.readouterr().out)
        metadata = dict(cba.parse_header(archive.read_bytes()).metadata)
        assert metadata["verity.root"].decode() == packed["verity"]["root_hash"]
        root, tree = metadata["verity.root"].decode(), tmp_path / "tree"
        tree.write_bytes(metadata["verity.tree"])
    image.write_bytes(content + bytes(-len(content) % 4096))
    assert veritysetup("verify", image, tree, root).returncode == 0
    wrong = bytearray(image.read_bytes())
    wrong[5000] ^= 1
    image.write_bytes(wrong)
    assert veritysetup("verify", image, tree, root).returncode != 0


def test_zchunk_files_carry_it_past_stock_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = random.Random(3).randbytes(700_001)
    image, archive, tree = tmp_path / "image", tmp_path / "x.zck", tmp_path / "tree"
    image.write_bytes(content)
    assert regraft("pack", "zck", image, "-o", archive, "--verity", "--json", "--progress", "none") == 0
    root = json.loads(capsys.readouterr().out)["verity"]["root_hash"]
    metadata = dict(zchunk.parse_header(archive.read_bytes()).metadata)
    assert metadata["verity.root"].decode() == root
    tree.write_bytes(metadata["verity.tree"])
    image.write_bytes(content + bytes(-len(content) % 4096))
    assert veritysetup("verify", image, tree, root).returncode == 0
    done = subprocess.run([tool("unzck"), str(archive)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x").read_bytes() == content


@pytest.mark.parametrize("kind", ["cba", "zck"])
def test_an_image_with_its_tree_comes_through_a_chunk_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """What a device would be given by `mount STORE/NAME --verity`, read over NBD and judged by veritysetup."""
    content = random.Random(5).randbytes(3_000_123)
    image, archive, place = tmp_path / "image", tmp_path / f"image.{kind}", str(tmp_path / "store" / "v1")
    image.write_bytes(content)
    compression = ["--compression", "none"] if kind == "cba" else []
    assert regraft("pack", kind, image, "-o", archive, "--verity", "--json", "--progress", "none", *compression) == 0
    root = json.loads(capsys.readouterr().out)["verity"]["root_hash"]
    with StaticServer(tmp_path) as server:
        assert regraft("clone", f"{server.url}/image.{kind}", place, "--progress", "none") == 0
    with (
        open_export(place) as export,
        with_tree(place, export, root="", offset=0, tree="", network=Network()) as (whole, found),
        Server(Exports([whole]), [listen_unix(str(tmp_path / "socket"))]) as serving,
    ):
        (uri,) = serving.uris(whole)
        served = tmp_path / "served"
        subprocess.run([tool("nbdcopy"), uri, str(served)], check=True)
    assert found.root.hex() == root
    options = ["--hash-offset", str(found.hash_offset)]
    assert veritysetup("verify", *options, served, served, root).returncode == 0
    wrong = bytearray(served.read_bytes())
    wrong[2_000_000] ^= 1
    served.write_bytes(wrong)
    assert veritysetup("verify", *options, served, served, root).returncode != 0


def test_a_tree_too_large_for_a_zchunk_header_is_refused() -> None:
    with pytest.raises(LimitError, match="bytes of metadata"):
        zchunk.metadata_elements({"verity.tree": bytes(5000)}, Limits(optional_elements=5, optional_element_size=1024))
    parts = zchunk.metadata_elements({"a": bytes(5000), "b": b""}, Limits(optional_element_size=1024))
    assert max(len(data) for _, data in parts) == 1024
