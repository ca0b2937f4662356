# SPDX-License-Identifier: Apache-2.0
"""dm-update diffs: as the kernel's target reads them, and back to the new image."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import pytest
from deltas import Update, applied, blocks_pair, dm_update, read_dm_update, streamed
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_vectors import generated, vectors

from regraft.build.dm_update import COMPRESSIONS, Options, make
from regraft.engine.deltas import open_delta, parse
from regraft.errors import DigestError, LimitError, UsageError, VerificationError
from regraft.limits import DEFAULT
from regraft.model import Kind
from regraft.testing.memory import MemoryMedium


def test_the_published_vector_is_made_and_read_bit_for_bit() -> None:
    for case in vectors("dm-update.json")["cases"]:
        block = case["block_size"]
        old = bytes(16 * block)
        new = bytearray(old)
        for number, content in case["replaced_blocks"].items():
            new[int(number) * block : (int(number) + 1) * block] = generated([content])
        options = Options(case["compression"], None, block, block * case["chunk_blocks"], sector=512)
        update = dm_update(old, bytes(new), options)
        assert update.content[:64].hex() == case["superblock_hex"]
        assert update.content[case["dir_offset"] :][: 16 * case["dir_n"]].hex() == case["directory_hex"]
        assert len(update.content) == case["file_length"]
        assert hashlib.sha256(update.content).hexdigest() == case["file_sha256"]
        assert applied(update) == new
        diff = parse(MemoryMedium(update.content))
        real = [entry for entry in case["directory"] if not entry.get("sentinel")]
        assert list(diff.blocks) == [entry["dest"] for entry in real]
        assert list(diff.chunks) == [entry["src"] for entry in real]
        assert list(diff.numbers) == [entry["offset"] for entry in real]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(("block", "chunk"), [(512, 512), (512, 2048), (4096, 65536), (4096, 12288), (65536, 65536)])
def test_every_compression_and_size_gives_the_new_image(compression: str, block: int, chunk: int) -> None:
    old, new = blocks_pair(random.Random(block), 60, block)
    update = dm_update(old, new, Options(compression, None if compression != "zstd" else 3, block, chunk))
    assert applied(update) == streamed(update) == read_dm_update(update.content, old, len(new)) == new
    assert len(update.content) % 4096 == 0


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1 << 30),
    blocks=st.integers(1, 40),
    sizes=st.sampled_from([(512, 512), (512, 1536), (1024, 4096), (4096, 65536)]),
    compression=st.sampled_from(COMPRESSIONS),
    tail=st.integers(0, 1300),
    lost=st.integers(0, 900),
)
def test_an_independent_reader_agrees(
    seed: int, blocks: int, sizes: tuple[int, int], compression: str, tail: int, lost: int
) -> None:
    old, new = blocks_pair(random.Random(seed), blocks, sizes[0], tail)
    old = old[: len(old) - min(lost, len(old))]
    update = dm_update(old, new, Options(compression, 1 if compression != "none" else None, *sizes, sector=512))
    assert read_dm_update(update.content, old, len(new)) == new
    assert applied(update) == new
    assert streamed(update) == new


def test_equal_images_make_an_empty_diff() -> None:
    update = dm_update(bytes(9000), bytes(9000))
    assert len(parse(MemoryMedium(update.content))) == 0
    assert applied(update) == bytes(9000)
    assert applied(dm_update(b"", b"")) == b""


def test_equal_blocks_of_a_chunk_are_stored_once() -> None:
    noise = random.Random(1).randbytes(4096)
    update = dm_update(bytes(range(256)) * 1600, noise * 50 + bytes(50 * 4096), Options("none"))
    diff = parse(MemoryMedium(update.content))
    assert len(diff) == 100
    assert set(diff.chunks) == {512}
    assert diff.end == 512 + 2 * 4096
    assert applied(update) == update.new


def test_the_same_images_make_the_same_bytes() -> None:
    old, new = blocks_pair(random.Random(5), 300, 4096)
    made = {dm_update(old, new, Options(level=3, workers=workers)).content for workers in (1, 2, 7)}
    assert len(made) == 1


def test_long_unchanged_runs_are_rows_of_bounded_length() -> None:
    old = bytes(5_000_000)
    update = dm_update(old, old[:4_000_000] + b"x" + old[4_000_001:])
    recipe = open_delta(MemoryMedium(update.content), len(old), update.sidecar).recipe
    assert max(recipe.table.length(row) for row in range(len(recipe.table))) <= 1 << 20
    assert Kind.DATA in recipe.table.kind


def test_frames_fit_the_windows_of_the_kernel() -> None:
    chance = random.Random(3)
    words = [chance.randbytes(200) for _ in range(50)]
    new = b"".join(chance.choices(words, k=12_000))
    update = dm_update(bytes(len(new)), new, Options(level=19, chunk_size=1 << 20))
    assert read_dm_update(update.content, update.old, len(new)) == new
    deflated = dm_update(bytes(len(new)), new, Options("deflate", chunk_size=1 << 20))
    assert read_dm_update(deflated.content, update.old, len(new)) == new


@pytest.fixture(scope="module")
def update() -> Update:
    return dm_update(*blocks_pair(random.Random(8), 50, 4096))


def test_another_base_is_found_before_the_first_write(update: Update) -> None:
    for base in (update.old[:-1], update.old[:-1] + b"?", bytes(len(update.old))):
        with pytest.raises(DigestError):
            applied(update, base=base)
    assert applied(update, base=update.old + b"what is behind it on the device") == update.new


def test_without_a_sidecar_only_a_digest_lets_it_pass(update: Update) -> None:
    assert applied(update, sidecar=False) == update.new
    wrong = replace(update, sidecar=replace(update.sidecar, target=update.sidecar.base))
    with pytest.raises(DigestError):
        applied(wrong, sidecar=False)
    delta = open_delta(MemoryMedium(update.content), len(update.old), None)
    assert not delta.recipe.verifiable()
    from regraft.engine.apply import apply

    with pytest.raises(VerificationError):
        apply(delta.recipe, [], [], MemoryMedium())


@pytest.mark.parametrize(
    "options",
    [
        Options("lzo"),
        Options(level=23),
        Options("deflate", level=10),
        Options(block_size=256),
        Options(block_size=131072, chunk_size=131072),
        Options(block_size=5000),
        Options(chunk_size=6000),
        Options(chunk_size=2048),
        Options(sector=100),
    ],
)
def test_options_that_no_reader_takes(options: Options) -> None:
    with pytest.raises(UsageError):
        make(MemoryMedium(b"a"), MemoryMedium(b"b"), MemoryMedium(), options)


def test_makers_have_limits() -> None:
    old, new = MemoryMedium(bytes(100_000)), MemoryMedium(b"\1" * 100_000)
    for limits in (
        replace(DEFAULT, image_size=99_999),
        replace(DEFAULT, chunks=24),
        replace(DEFAULT, chunk_size=65_535),
    ):
        with pytest.raises(LimitError):
            make(old, new, MemoryMedium(), Options(level=1), limits=limits)
