# SPDX-License-Identifier: Apache-2.0
"""`regraft convert`, and `--layout`, `--align` of `regraft pack`, as a person calls them."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
from commands import regraft
from images import Pair

from regraft.server.static import StaticServer

IMAGES = Path(__file__).parents[3] / "fuzz" / "filesystems"


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    facts = json.loads(capsys.readouterr().out)
    assert isinstance(facts, dict)
    return facts


def test_a_url_becomes_an_archive_and_a_zchunk_file_again(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new").write_bytes(pair.new)
    first, middle, last = tmp_path / "a.zck", tmp_path / "b.cba", tmp_path / "c.zck"
    assert regraft("pack", "zck", tmp_path / "new", "-o", first) == 0
    with StaticServer(tmp_path) as server:
        assert regraft("convert", f"{server.url}/a.zck", "-o", middle, "--json") == 0
    facts = told(capsys)
    assert (facts["format"], facts["image_size"]) == ("cba", len(pair.new))
    assert facts["chunks"] == facts["chunks_as_stored"]
    assert regraft("convert", middle, "-o", last) == 0
    assert last.read_bytes() == first.read_bytes()
    assert regraft("inspect", middle, "--json") == 0
    assert told(capsys)["chunker"] == "zchunk/48/15/8192/131072"
    assert regraft("unpack", middle, "-o", tmp_path / "out") == 0
    assert (tmp_path / "out").read_bytes() == pair.new


def test_metadata_and_level_stay_and_stock_bita_can_be_served(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new").write_bytes(pair.new[:300_000])
    first, second = tmp_path / "a.cba", tmp_path / "b.cba"
    assert regraft("pack", "cba", tmp_path / "new", "-o", first, "--compression", "zstd", "--compression-level", "3",
                   "--metadata-value", "key", "value") == 0  # fmt: skip
    assert regraft("convert", first, "-o", second, "--compression", "brotli") == 0
    capsys.readouterr()
    assert regraft("inspect", second, "--json") == 0
    facts = told(capsys)
    assert (facts["compression"], facts["metadata"]) == ("brotli", {"key": "value"})
    assert regraft("convert", first, "-o", second) == 0
    assert "bita reads zstd only" in capsys.readouterr().err
    assert second.read_bytes() == first.read_bytes()


def test_rechunk_gives_what_pack_gives(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(pair.new)
    for name, suffix in (("pack", "zck"), ("pack", "cba")):
        assert regraft(name, suffix, tmp_path / "new", "-o", tmp_path / f"direct.{suffix}") == 0
    assert regraft("convert", tmp_path / "direct.cba", "-o", tmp_path / "made.zck", "--rechunk") == 0
    assert (tmp_path / "made.zck").read_bytes() == (tmp_path / "direct.zck").read_bytes()


def test_what_fails_leaves_nothing(pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new").write_bytes(pair.new)
    source = tmp_path / "a.cba"
    assert regraft("pack", "cba", tmp_path / "new", "-o", source) == 0
    content = bytearray(source.read_bytes())
    content[-100] ^= 1
    source.write_bytes(content)
    assert regraft("convert", source, "-o", tmp_path / "out.zck") in (10, 22)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.cba", "new"]
    assert regraft("convert", source, "-o", source) == 2
    assert regraft("convert", source, "-o", tmp_path / "out.img") == 2
    assert "give it with -f" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["zck", "cba"])
@pytest.mark.parametrize("name", ["ext4", "squashfs", "erofs"])
def test_pack_with_layout_says_what_it_found_and_the_image_comes_back(
    name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = lzma.decompress((IMAGES / f"{name}.img.xz").read_bytes())
    (tmp_path / "image").write_bytes(image)
    made = tmp_path / f"made.{kind}"
    assert regraft("pack", kind, tmp_path / "image", "-o", made, "--layout", "auto", "--json") == 0
    told_words = capsys.readouterr()
    assert json.loads(told_words.out)["chunker"].endswith("+layout/1")
    assert f"layout: {name}, " in told_words.err
    assert "warning: " in told_words.err
    out = tmp_path / "out"
    assert regraft("unpack", made, "-o", out, "--seed", tmp_path / "image", "--json") == 0
    assert out.read_bytes() == image
    assert told(capsys)["fetched"] == 0  # the seed was cut alike


def test_without_a_known_file_system_the_plain_rule_remains(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new").write_bytes(pair.new)
    assert regraft("pack", "zck", tmp_path / "new", "-o", tmp_path / "plain.zck") == 0
    capsys.readouterr()
    assert regraft("pack", "zck", tmp_path / "new", "-o", tmp_path / "a.zck", "--layout", "auto") == 0
    assert "not an ext4, squashfs or erofs file system; cut by content alone" in capsys.readouterr().err
    assert (tmp_path / "a.zck").read_bytes() == (tmp_path / "plain.zck").read_bytes()


@pytest.mark.parametrize("kind", ["zck", "cba"])
def test_aligned_chunks_begin_at_blocks(
    kind: str, pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new").write_bytes(pair.new)
    made = tmp_path / f"made.{kind}"
    assert regraft("pack", kind, tmp_path / "new", "-o", made, "--align", "4KiB") == 0
    capsys.readouterr()
    assert regraft("inspect", made, "--chunks", "--json") == 0
    facts = told(capsys)
    assert str(facts["chunker"]).endswith("+align/4096")
    chunks = facts["chunks"]
    assert isinstance(chunks, list)
    assert len(chunks) > 20
    assert all(chunk["offset"] % 4096 == 0 for chunk in chunks)


def test_our_key_is_not_for_others(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"x" * 1000)
    arguments = ("pack", "cba", tmp_path / "image", "-o", tmp_path / "a.cba")
    assert regraft(*arguments, "--metadata-value", "regraft.chunker", "fixed/1") == 2
