# SPDX-License-Identifier: Apache-2.0
"""A chunked artifact becomes another one with the same cuts and the same image, and nothing unverified passes."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from archives import SMALL, Archive, changed, read
from archives import pack as pack_cba
from images import Artifact, CountingSource, Pair, pack, small_recipe

from regraft.build import cba as cba_builder
from regraft.build import zchunk as zck_builder
from regraft.build.convert import Chunks, unpacked
from regraft.engine.apply import apply
from regraft.errors import DigestError, LimitError, RegraftError, UnsupportedError, VerificationError
from regraft.formats import cba, chunk_rules, zchunk
from regraft.formats.cba import Parameters
from regraft.formats.chunk_rules import Placement
from regraft.limits import DEFAULT
from regraft.model import Algorithm, Codec, Recipe
from regraft.testing.memory import MemoryMedium


def to_zck(source: Artifact | Archive, codec: str = "zstd", **options: object) -> tuple[Artifact, int]:
    chunks = Chunks(source.recipe, [CountingSource(source.content)], codec=codec)
    out = MemoryMedium()
    header = zck_builder.build(chunks, out, zck_builder.Options(**options))  # type: ignore[arg-type]
    content = bytes(out.content)
    return Artifact(content, header, zchunk.recipe(header, "memory.zck", size=len(content))), chunks.reused


def to_cba(source: Artifact | Archive, codec: str = "zstd", **options: object) -> tuple[Archive, int]:
    chunks = Chunks(source.recipe, [CountingSource(source.content)], codec=codec)
    out = MemoryMedium()
    rule = chunk_rules.split(chunks.label)
    parameters = Parameters.of(rule[0] if rule else "")
    wanted = cba_builder.Options(compression="zstd", level=9)
    header = cba_builder.build(chunks, out, replace(wanted, **options), parameters=parameters)  # type: ignore[arg-type]
    content = bytes(out.content)
    return Archive(content, header, cba.recipe(header, "memory.cba", size=len(content))), chunks.reused


def image_of(artifact: Artifact | Archive) -> bytes:
    target = MemoryMedium()
    apply(artifact.recipe, [], [CountingSource(artifact.content)], target)
    return bytes(target.content)


def test_from_zck_to_cba_and_back_nothing_changes(pair: Pair) -> None:
    first = pack(pair.new)
    middle, reused = to_cba(first)
    assert middle.recipe.table.bounds == first.recipe.table.bounds
    assert reused == len(first.recipe.table)
    assert image_of(middle) == pair.new
    assert middle.header.digest is not None
    assert middle.header.digest.matches(pair.new)
    last, _ = to_zck(middle)
    assert last.content == first.content


@pytest.mark.parametrize("placement", [Placement(), Placement(4096), Placement(1, True)])
@pytest.mark.parametrize("chunker", ["rollsum", "buzhash", "fixed"])
def test_from_cba_to_zck_and_back_the_cuts_and_their_rule_stay(pair: Pair, chunker: str, placement: Placement) -> None:
    options = cba_builder.Options(
        chunker=chunker, average=16384, minimum=4096, maximum=1 << 17, compression="zstd", level=9, placement=placement
    )
    first = pack_cba(pair.new, options)
    middle, _ = to_zck(first)
    assert image_of(middle) == pair.new
    assert middle.recipe.table.bounds == first.recipe.table.bounds
    assert middle.recipe.chunker == first.recipe.chunker
    last, reused = to_cba(middle)
    # What bita stores raw is a frame in zchunk, and may then be shorter than raw.
    assert replace(last.header, stored=first.header.stored, offsets=first.header.offsets) == first.header
    assert image_of(last) == pair.new
    assert reused == len(first.recipe.table)


def test_a_dictionary_does_not_reach_the_target(pair: Pair) -> None:
    image = pair.new[:300_000]
    first = pack(image, zck_builder.Options(dictionary=pair.old[:5000]))
    for made, reused in (to_zck(first), to_cba(first)):
        assert reused == 0
        assert image_of(made) == image


@pytest.mark.parametrize("compression", ["none", "zstd", "brotli", "lzma"])
def test_other_codecs_are_made_anew(pair: Pair, compression: str) -> None:
    image = pair.new[:200_000] + bytes(100_000)
    first = pack_cba(image, replace(SMALL, compression=compression, level=2))
    made, reused = to_zck(first)
    assert image_of(made) == image
    assert (reused > 0) == (compression == "zstd")
    same, reused = to_cba(first, {"lzma": "xz"}.get(compression, compression), compression=compression, level=2)
    assert image_of(same) == image
    assert reused > 0
    assert same.content[same.header.size :] == first.content[first.header.size :]


def test_chunks_that_occur_again_are_kept_or_fetched_again(pair: Pair) -> None:
    """With a buffer for few of them, the image is still right."""
    chance = random.Random(1)
    blocks = [chance.randbytes(512) for _ in range(50)]
    image = b"".join(chance.choice(blocks) for _ in range(600))
    first = pack_cba(image, replace(SMALL, chunker="fixed", compression="none"))
    source = CountingSource(first.content)
    chunks = Chunks(first.recipe, [source], limits=replace(DEFAULT, buffer=8192), workers=1)
    assert b"".join(bytes(chunk.data) for chunk in chunks.chunks(Algorithm.SHA256)) == image
    assert source.total > 50 * 512
    fed: list[bytes] = []
    source = CountingSource(first.content)
    chunks = Chunks(first.recipe, [source], workers=1)
    found = [
        (chunk.digest, bytes(chunk.data))
        for chunk in chunks.chunks(Algorithm.SHA256, lambda data: fed.append(bytes(data)))
    ]
    assert b"".join(fed) == image
    assert all(Algorithm.SHA256.of(data) == digest for digest, data in found)
    assert source.total == 50 * 512


def test_the_same_input_gives_the_same_bytes_with_any_number_of_threads(pair: Pair) -> None:
    first = pack_cba(pair.new[:500_000], replace(SMALL, compression="zstd"))
    outs = []
    for workers in (1, 4):
        out = MemoryMedium()
        zck_builder.build(
            Chunks(first.recipe, [CountingSource(first.content)], workers=workers), out,
            zck_builder.Options(workers=workers),
        )  # fmt: skip
        outs.append(bytes(out.content))
    assert outs[0] == outs[1]


def test_an_empty_image_stays_empty() -> None:
    made, _ = to_cba(pack(b""))
    assert image_of(made) == b""
    assert image_of(to_zck(made)[0]) == b""


def test_a_unit_damaged_once_is_fetched_again_and_for_good_it_is_an_error(pair: Pair) -> None:
    first = pack(pair.new[:400_000])
    offset = first.recipe.units.offset[2]
    source = CountingSource(first.content, spoil={offset: 1})
    out = MemoryMedium()
    zck_builder.build(Chunks(first.recipe, [source]), out)
    with pytest.raises(DigestError):
        list(Chunks(first.recipe, [CountingSource(first.content, spoil={offset: 9})]).chunks(Algorithm.SHA256))


def test_no_flipped_byte_of_an_archive_gives_another_image(pair: Pair) -> None:
    image = pair.new[:20_000]
    first = pack_cba(image, replace(SMALL, compression="zstd", hash_length=8))
    for at in range(first.header.size, len(first.content), 37):
        content = bytearray(first.content)
        content[at] ^= 0x40
        chunks = Chunks(first.recipe, [CountingSource(bytes(content))], workers=1)
        with pytest.raises(RegraftError):
            list(chunks.chunks(Algorithm.SHA256))


def test_the_whole_image_is_compared_with_its_digest(pair: Pair) -> None:
    first = pack_cba(pair.new[:20_000])
    assert first.recipe.digest is not None
    wrong = replace(first.recipe, digest=replace(first.recipe.digest, value=bytes(64)))
    with pytest.raises(DigestError, match="differs from its digest"):
        list(Chunks(wrong, [CountingSource(first.content)]).chunks(Algorithm.SHA256))


def test_cuts_that_no_target_has_are_refused_with_the_cure(pair: Pair) -> None:
    recipe = small_recipe(pair.new[:20_000], 5000)
    with pytest.raises(LimitError, match=r"limits\.chunk_size = 4096") as caught:
        Chunks(recipe, [], limits=replace(DEFAULT, chunk_size=4096))
    assert "--rechunk" in caught.value.cure
    recipe.table.within[1] = 1
    with pytest.raises(UnsupportedError, match="row 1 is not a chunk") as refused:
        Chunks(recipe, [])
    assert "--rechunk" in refused.value.cure


def test_what_nothing_covers_is_refused() -> None:
    recipe = small_recipe(bytes(1000))
    bare = Recipe(type(recipe.table)(None), type(recipe.units)(None), recipe.blobs, (Codec("none"),))
    bare.units.add(blob=0, codec=0, offset=0, stored=9, length=9, digest=None)
    bare.table.add(9, None, recipe.table.op(0))
    with pytest.raises(VerificationError):
        Chunks(bare, [])


def test_cut_anew_it_is_as_if_packed_from_the_image(pair: Pair) -> None:
    first = pack_cba(pair.new)
    out = MemoryMedium()
    with unpacked(first.recipe, [CountingSource(first.content)]) as image:
        zck_builder.pack(image, out)
    assert bytes(out.content) == pack(pair.new).content


def test_a_rule_that_nobody_understands_is_taken_for_none(pair: Pair) -> None:
    image = pair.new[:20_000]
    first = pack_cba(image)
    for value in (b"", b"\xff", b"bita-rollsum/1+layout/9", b"teleport/1", b"fixed/9" + b"9" * 300):
        spoilt = changed(first, metadata=((chunk_rules.KEY, value),))
        assert read(spoilt).recipe.chunker == first.recipe.chunker
    artifact = pack(image)
    for number, data in ((7, b"regraft.chunker=fixed/9"), (zchunk.RULE_ELEMENT, b"regraft.chunker=odd"), (0x7267, b"")):
        header = replace(artifact.header, flags=artifact.header.flags | 2, elements=((number, data),))
        assert zchunk.parse_header(zchunk.build_header(header)).rule == zchunk.CHUNKER


@pytest.mark.parametrize("label", ["fixed/77", "bita-rollsum/64/15/1/2", "bita-buzhash/16/3/0/9"])
def test_parameters_are_those_of_the_label(label: str) -> None:
    assert Parameters.of(label, 20).label == label
    assert Parameters.of(label, 20).hash_length == 20


@pytest.mark.parametrize("label", ["", zchunk.CHUNKER, "fixed/99999999999", "bita-rollsum/1/2/3/4294967296"])
def test_for_other_rules_they_are_what_bita_takes_by_default(label: str) -> None:
    assert Parameters.of(label).label == "bita-rollsum/64/15/16384/16777216"
