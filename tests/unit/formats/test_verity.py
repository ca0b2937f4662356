# SPDX-License-Identifier: Apache-2.0
"""dm-verity's hash tree: its shape, its limits, and what a changed byte in it does."""

from __future__ import annotations

import hashlib
import random
import tracemalloc

import pytest

from regraft.errors import DigestError, FormatError, LimitError, RegraftError, UnsupportedError
from regraft.formats import verity
from regraft.formats.verity import BLOCK, Verity
from regraft.limits import Limits


def built(content: bytes, salt: bytes = b"salt") -> tuple[Verity, bytes]:
    return verity.build(
        lambda at, view: view.__setitem__(slice(None), content[at : at + len(view)]), len(content), salt
    )


def test_one_block_is_its_own_root() -> None:
    found, tree = built(b"x")
    assert found.root == hashlib.sha256(b"salt" + b"x" + bytes(BLOCK - 1)).digest()
    assert len(tree) == BLOCK
    assert verity.parse_superblock(tree) == Verity(b"", b"salt", 1, uuid=found.uuid)


def test_two_blocks_have_one_above() -> None:
    content = random.Random(1).randbytes(2 * BLOCK)
    found, tree = built(content)
    leaves = [hashlib.sha256(b"salt" + content[at : at + BLOCK]).digest() for at in (0, BLOCK)]
    assert tree[BLOCK : 2 * BLOCK] == b"".join(leaves) + bytes(BLOCK - 64)
    assert found.root == hashlib.sha256(b"salt" + tree[BLOCK:]).digest()


@pytest.mark.parametrize(("blocks", "shape"), [(1, []), (2, [1]), (128, [1]), (129, [2, 1]), (16_385, [129, 2, 1])])
def test_the_shape_of_the_tree(blocks: int, shape: list[int]) -> None:
    assert verity.levels(blocks) == shape
    assert Verity(b"", b"", blocks).tree_size == BLOCK * (1 + sum(shape))


def test_the_same_image_makes_the_same_tree() -> None:
    assert built(b"a" * 10_000) == built(b"a" * 10_000)
    assert built(b"a" * 10_000)[0].uuid != built(b"b" * 10_000)[0].uuid


def test_a_tree_leads_up_to_its_root_or_is_refused() -> None:
    content = random.Random(2).randbytes(130 * BLOCK)
    found, tree = built(content)
    assert verity.check_tree(tree, found.root) == found
    for at in range(BLOCK, len(tree), 997):
        wrong = bytearray(tree)
        wrong[at] ^= 1
        with pytest.raises(DigestError, match=f"block {at // BLOCK} "):
            verity.check_tree(wrong, found.root)
    with pytest.raises(DigestError):
        verity.check_tree(tree, bytes(32))
    for wrong_size in (tree[:-1], tree + b"\0", tree[:BLOCK]):
        with pytest.raises(FormatError):
            verity.check_tree(wrong_size, found.root)
    with pytest.raises(FormatError, match="SHA-256 has 32"):
        verity.check_tree(tree, found.root[:31])


def test_no_truncation_and_no_flip_of_a_superblock_is_more_than_an_error() -> None:
    data = built(b"x" * 5000)[1][: verity.SUPERBLOCK.size]
    broken = [data[:end] for end in range(len(data))]
    broken += [data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for at in range(96) for bit in range(8)]
    for each in broken:
        try:
            verity.parse_superblock(each)
        except RegraftError:
            continue


def test_what_is_not_known_is_named() -> None:
    _, tree = built(b"x")
    for at, value in ((8, 2), (12, 0), (32, ord("x")), (65, 2), (69, 2)):
        wrong = bytearray(tree)
        wrong[at] = value
        with pytest.raises(UnsupportedError):
            verity.parse_superblock(wrong)


def test_limits() -> None:
    with pytest.raises(LimitError, match="verity_tree"):
        verity.build(lambda *_: None, 1 << 40, b"")
    with pytest.raises(FormatError):
        built(b"")
    with pytest.raises(FormatError):
        built(b"x", bytes(257))
    with pytest.raises(LimitError):
        verity.parse_superblock(built(bytes(10 * BLOCK))[1], limits=Limits(image_size=9 * BLOCK))


def test_memory_does_not_grow_with_the_image() -> None:
    def read(_: int, view: memoryview) -> None:
        view[0] = 1

    tracemalloc.start()
    try:
        verity.build(read, 40 << 20, b"")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
