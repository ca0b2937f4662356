# SPDX-License-Identifier: Apache-2.0
"""Android's COW files: made of two images, read by a model that shares no code, merged in place as Android would."""

from __future__ import annotations

import random

import pytest
from deltas import applied, blocks_pair, cow, merged, read_cow, streamed
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.build.android_cow import Options, make
from regraft.build.ordering import simple_order
from regraft.errors import UsageError
from regraft.formats.android_cow import COMPRESSIONS
from regraft.testing.memory import MemoryMedium

BLOCK = 512


def small(version: int, compression: str = "none", **more: object) -> Options:
    level = None if compression == "none" else 1
    return Options(version, compression, level, BLOCK, **{"unit_size": 8 * BLOCK, "scratch": 0, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_version_and_compression_gives_the_new_image(version: int, compression: str) -> None:
    old, new = blocks_pair(random.Random(version), 120, 4096)
    update = cow(old, new, Options(version, compression))
    assert applied(update) == streamed(update) == merged(update.content, old, len(new)) == new


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1 << 30),
    blocks=st.integers(1, 60),
    version=st.sampled_from([2, 3]),
    compression=st.sampled_from(COMPRESSIONS),
    clusters=st.sampled_from([0, 2, 3, 7, 1024]),
    xor=st.booleans(),
    tail=st.integers(0, 1300),
)
def test_a_model_of_the_merge_agrees(
    seed: int, blocks: int, version: int, compression: str, clusters: int, xor: bool, tail: int
) -> None:
    old, new = blocks_pair(random.Random(seed), blocks, BLOCK, tail)
    update = cow(old, new, small(version, compression, cluster_ops=clusters, xor=xor))
    assert merged(update.content, old, len(new)) == new
    assert applied(update) == new
    assert streamed(update) == new


def moved(blocks: list[int]) -> tuple[bytes, bytes]:
    """Blocks that are all different, and the same in another order."""
    chance = random.Random(7)
    content = [chance.randbytes(BLOCK) for _ in blocks]
    return b"".join(content), b"".join(content[number] for number in blocks)


@settings(max_examples=40)
@given(order=st.permutations(range(24)), version=st.sampled_from([2, 3]))
def test_permutations_cost_one_stored_block_a_circle(order: list[int], version: int) -> None:
    old, new = moved(order)
    update = cow(old, new, small(version))
    assert merged(update.content, old, len(new)) == applied(update) == new
    seen: set[int] = set()
    circles = 0
    for start in range(24):
        if start not in seen and order[start] != start:
            circles += 1
        while start not in seen:
            seen.add(start)
            start = order[start]
    _, ops, _ = read_cow(update.content)
    assert sum(op.kind == 2 for op in ops) == circles


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    "order",
    [
        [*range(1, 40), 0],
        [39, *range(39)],
        [number ^ 1 for number in range(40)],
        [*range(5, 40), *range(5)],
        [0] * 40,
        [max(number - 1, 0) for number in range(40)],
        [min(number + 1, 39) for number in range(40)],
        list(reversed(range(40))),
    ],
    ids=["left", "right", "swaps", "rotation", "fan", "shift up", "shift down", "reversed"],
)
def test_moves_are_merged_in_an_order_that_loses_nothing(order: list[int], version: int) -> None:
    old, new = moved(order)
    for clusters in (0, 2, 16):
        update = cow(old, new, small(version, cluster_ops=clusters))
        assert merged(update.content, old, len(new)) == applied(update) == new


def test_small_changes_become_xor_and_zeros_cost_nothing() -> None:
    old = random.Random(1).randbytes(64 * 4096)
    new = bytearray(old)
    for block in range(10):
        new[block * 4096] ^= 1
    new[20 * 4096 : 40 * 4096] = bytes(20 * 4096)
    update = cow(old, bytes(new), Options(3, scratch=0))
    _, ops, _ = read_cow(update.content)
    assert sorted(op.kind for op in ops) == [3] * 20 + [6] * 10
    assert len(update.content) < 1500
    plain = cow(old, bytes(new), Options(3, scratch=0, xor=False))
    assert 6 not in {op.kind for op in read_cow(plain.content)[1]}
    assert merged(plain.content, old, len(new)) == new


def test_neighbours_are_compressed_together() -> None:
    words = random.Random(1).randbytes(3000)
    new = (words * 500)[: 256 * 4096]
    together = cow(bytes(len(new)), new, Options(3, unit_size=1 << 18, scratch=0))
    apart = cow(bytes(len(new)), new, Options(3, unit_size=4096, scratch=0))
    assert len(together.content) < len(apart.content) / 10
    assert merged(together.content, together.old, len(new)) == applied(together) == new


@pytest.mark.parametrize("version", [2, 3])
def test_the_same_images_make_the_same_bytes(version: int) -> None:
    old, new = blocks_pair(random.Random(5), 200, 4096)
    assert len({cow(old, new, Options(version, level=3, workers=workers)).content for workers in (1, 2, 7)}) == 1


def test_another_order_can_be_given() -> None:
    old, new = moved([1, 0, 3, 2, 5, 4])

    def nothing_is_copied(blocks, sources, size):  # type: ignore[no-untyped-def]
        from array import array

        return array("I"), array("I", range(len(blocks)))

    update = cow(old, new, small(3), order=nothing_is_copied)
    assert {op.kind for op in read_cow(update.content)[1]} == {2}
    assert applied(update) == new


def test_the_simple_order_knows_whole_blocks_only() -> None:
    with pytest.raises(ValueError, match="two blocks"):
        simple_order([1], [100], BLOCK)


def test_equal_and_empty_images_make_files_without_operations() -> None:
    for version in (2, 3):
        for image in (b"", bytes(5000)):
            update = cow(image, image, small(version))
            assert read_cow(update.content)[1] == []
            assert applied(update) == image


@pytest.mark.parametrize(
    "options",
    [
        Options(1),
        Options(4),
        Options(3, "lzo"),
        Options(3, "gz", 10),
        Options(3, block_size=1000),
        Options(3, unit_size=4096 * 3),
        Options(3, unit_size=4096 << 8),
        Options(2, cluster_ops=1),
        Options(2, scratch=-1),
    ],
)
def test_options_that_no_reader_takes(options: Options) -> None:
    with pytest.raises(UsageError):
        make(MemoryMedium(b"a"), MemoryMedium(b"b"), MemoryMedium(), options)
