# SPDX-License-Identifier: Apache-2.0
"""Where files begin and end is read from real file systems; bad ones only lose places, and never take long."""

from __future__ import annotations

import lzma
import random
import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from regraft.formats.filesystems import Layout, layout
from regraft.limits import DEFAULT, Limits

IMAGES = Path(__file__).parents[3] / "fuzz" / "filesystems"
ALL = sorted(path.name.removesuffix(".img.xz") for path in IMAGES.glob("*.img.xz"))
FILES = {"a": (1, 9000), "b": (2, 13000), "c": (3, 5000)}


def image(name: str) -> bytearray:
    return bytearray(lzma.decompress((IMAGES / f"{name}.img.xz").read_bytes()))


def found(data: bytes | bytearray, limits: Limits = DEFAULT) -> Layout:
    def read(offset: int, view: memoryview) -> None:
        assert offset + len(view) <= len(data)
        view[:] = data[offset : offset + len(view)]

    result = layout(read, len(data), limits=limits)
    bounds = [0, *result.cuts, max(len(data), 1)]
    assert all(before < behind for before, behind in pairwise(bounds))
    return result


def content(number: int, size: int) -> bytes:
    return b"".join(b"%d file %06d\n" % (number, line) for line in range(size // 14 + 1))[:size]


@pytest.mark.parametrize("name", ["ext4", "ext2", "erofs"])
def test_plain_files_begin_at_a_place(name: str) -> None:
    data = image(name)
    cuts = set(found(data).cuts)
    for number, size in FILES.values():
        assert data.find(content(number, size)[:900]) in cuts


def test_every_run_of_a_files_blocks_in_ext4_begins_and_ends_at_a_place() -> None:
    data = image("ext4")
    cuts = set(found(data).cuts)
    runs = 0
    for number, size in FILES.values():
        whole = content(number, size)
        end = -1
        for at in range(0, size, 1024):
            start = data.find(whole[at : at + 1024])
            if start != end:
                assert start in cuts
                assert end < 0 or end in cuts
                runs += 1
            end = start + 1024
        assert end in cuts
    assert runs > 3  # one of them is in two parts
    assert data.find(content(4, 900)) in cuts


def test_compressed_files_of_erofs_begin_where_their_first_block_lies() -> None:
    """As dump.erofs -e tells of this image."""
    assert list(found(image("packed.erofs")).cuts) == [4096, 8192, 12288, 16384]


def test_blocks_fragments_and_tables_of_squashfs_are_places() -> None:
    import zstandard

    data = image("squashfs")
    cuts = found(data).cuts
    blocks = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if data[start : start + 4] == b"\x28\xb5\x2f\xfd":
            blocks.append(zstandard.ZstdDecompressor().decompressobj().decompress(bytes(data[start:end])))
    for number, size in FILES.values():
        whole = content(number, size)
        pieces = [whole[at : at + 4096] for at in range(0, size - size % 4096, 4096)]
        at = blocks.index(pieces[0])
        assert blocks[at : at + len(pieces)] == pieces


@pytest.mark.parametrize("name", ALL)
def test_the_end_of_the_file_system_is_a_place_if_more_follows(name: str) -> None:
    data = image(name)
    end = {"squashfs": struct.unpack_from("<Q", data, 40)[0], "ext2": 65_536}.get(name, len(data))
    assert end in found(data + bytes(100_000)).cuts


@pytest.mark.parametrize("data", [b"", bytes(4095), bytes(100_000), b"hsqs" + bytes(9000)])
def test_what_is_no_file_system_has_no_places_and_a_note(data: bytes) -> None:
    result = found(data)
    assert (result.kind, list(result.cuts)) == ("", [])
    assert result.note


@pytest.mark.parametrize("name", ALL)
def test_a_file_system_that_is_cut_off_loses_places_only(name: str) -> None:
    data = image(name)
    whole = set(found(data).cuts)
    for size in [*range(0, 4096, 97), *range(4096, len(data), 511)]:
        result = found(data[:size])
        assert set(result.cuts) <= whole | {size}


@pytest.mark.parametrize("name", ALL)
def test_no_flipped_bit_of_a_superblock_is_more_than_a_note(name: str) -> None:
    data = image(name)
    start, end = (0, 96) if name == "squashfs" else (1024, 1152) if "erofs" in name else (1024, 1400)
    limits = replace(DEFAULT, layout_bytes=1 << 20)
    for bit in range(8 * start, 8 * end):
        data[bit // 8] ^= 1 << bit % 8
        found(data, limits)
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("name", ALL)
def test_scattered_flips_are_never_more_than_a_note(name: str) -> None:
    data, chance = image(name), random.Random(4)
    limits = replace(DEFAULT, layout_bytes=1 << 20)
    for _ in range(1500):
        bits = [chance.randrange(8 * min(len(data), 24_000)) for _ in range(chance.choice([1, 1, 4]))]
        for bit in bits:
            data[bit // 8] ^= 1 << bit % 8
        found(data, limits)
        for bit in bits:
            data[bit // 8] ^= 1 << bit % 8


def test_a_tree_of_extents_that_leads_to_itself_comes_to_an_end() -> None:
    """Each node claims the depth that its parent expects of it and points to one block again and again."""
    data = image("ext4")
    (size,) = struct.unpack_from("<H", data, 1024 + 88)
    table = next(at for at in range(0, len(data), 1024) if data[at + size : at + size + 2] == b"\xed\x41")  # inode 2
    nodes = [51_200 + 1024 * depth for depth in range(5)]
    for depth, at in enumerate(nodes):
        entries = 84
        data[at : at + 12] = struct.pack("<4HI", 0xF30A, entries, entries, depth, 0)
        below = nodes[depth - 1] // 1024
        for entry in range(entries):
            data[at + 12 + 12 * entry : at + 24 + 12 * entry] = struct.pack("<IIHH", entry, below, 0, 0)
    for inode in range(32):
        at = table + size * inode
        data[at : at + 100] = (
            struct.pack("<H24xH4xI4x", 0x81A4, 1, 0x80000) + struct.pack("<4HI", 0xF30A, 1, 4, 5, 0)
            + struct.pack("<IIHH", 0, nodes[4] // 1024, 0, 0)
        ).ljust(100, b"\0")  # fmt: skip
    assert "layout_cuts" in found(data, replace(DEFAULT, layout_cuts=3000)).note
    assert "layout_bytes" in found(data, replace(DEFAULT, layout_bytes=1 << 16)).note


def test_directories_of_erofs_that_contain_each_other_are_read_once() -> None:
    data = image("erofs")
    root = struct.unpack_from("<H", data, 1024 + 14)[0]
    changed = 0
    for at in range(1152, 4096 - 12):
        nid, _, kind, zero = struct.unpack_from("<QHBB", data, at)
        if kind == 2 and not zero and nid < 4096 and nid != root:
            data[at : at + 8] = struct.pack("<Q", root)
            changed += 1
    assert changed
    assert not found(data, replace(DEFAULT, layout_bytes=1 << 16)).note


def test_more_places_than_the_limit_are_left_out_with_a_note() -> None:
    result = found(image("ext4"), replace(DEFAULT, layout_cuts=3))
    assert 0 < len(result.cuts) <= 3
    assert "layout_cuts" in result.note


def test_what_cannot_be_unpacked_is_said() -> None:
    data = image("squashfs")
    data[20:22] = b"\5\0"
    result = found(data)
    assert "lz4" in result.note
    assert result.kind == "squashfs"
