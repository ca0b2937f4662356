# SPDX-License-Identifier: Apache-2.0
"""dm-update diffs from strangers: what is out of order is refused, by name."""

from __future__ import annotations

import random
import struct
from array import array
from contextlib import suppress
from dataclasses import replace

import pytest
from deltas import Update, applied, base_of, blocks_pair, dm_update

from regraft.build.dm_update import Options
from regraft.engine.deltas import open_delta, parse
from regraft.errors import DigestError, FormatError, LimitError, RegraftError, UnsupportedError
from regraft.formats import dm_update as form
from regraft.formats import sidecar as sidecars
from regraft.limits import DEFAULT, Limits
from regraft.model import DigestColumn
from regraft.testing.memory import MemoryMedium

BLOCK = 512


def around(
    listed: list[tuple[int, int, int]],
    *,
    chunks: bytes = bytes(4 * BLOCK),
    at: int = 512,
    chunk_blocks: int = 2,
    **fields: object,
) -> bytes:
    """A diff without compression: (block, chunk, number) entries, the sentinel among them; chunks at 512."""
    directory = b"".join(
        struct.pack("<IHHII", block & 0xFFFFFFFF, block >> 32, chunk >> 32, chunk & 0xFFFFFFFF, number)
        for block, chunk, number in listed
    )
    place = at + len(chunks)
    superblock = form.Superblock(BLOCK, chunk_blocks, "none", place, len(directory), len(listed))
    head = form.build_superblock(replace(superblock, **fields))  # type: ignore[arg-type]
    return head.ljust(at, b"\0") + chunks + directory


def read(content: bytes, limits: Limits = DEFAULT) -> form.Diff:
    return parse(MemoryMedium(content), limits=limits)


GOOD = [(1, 512, 0), (4, 512, 1), (5, 1536, 0), (form.SENTINEL, 2048, 0)]


def test_a_diff_is_read() -> None:
    diff = read(around(GOOD))
    assert list(diff.blocks) == [1, 4, 5]
    assert list(diff.runs()) == [(0, 2), (2, 3)]
    assert diff.end == 2048


def test_the_directory_may_lie_anywhere() -> None:
    directory = struct.pack("<IHHII", 1, 0, 0, 600, 0) + struct.pack("<IHHII", 7, 0, 0, 600 + BLOCK, 0)
    superblock = form.Superblock(BLOCK, 1, "none", 65, 32, 2)
    content = form.build_superblock(superblock) + b"\0" + directory + bytes(600 - 97) + b"x" * BLOCK
    diff = read(content)
    target = form.recipe(diff, "x", base_size=4 * BLOCK)
    assert list(target.table.bounds) == [0, BLOCK, 2 * BLOCK, 4 * BLOCK]


def test_a_chunk_may_decode_to_more_than_its_entries_need() -> None:
    old, new = bytes(8 * BLOCK), bytes(BLOCK) + b"a" * BLOCK + bytes(6 * BLOCK)
    for compression in ("none", "deflate", "zstd", "lz4"):
        update = dm_update(old, b"b" * BLOCK + b"a" * BLOCK + bytes(6 * BLOCK), Options(compression, None, BLOCK, 1024))
        diff = read(update.content)
        raw = form.build_directory(diff.blocks[1:], diff.chunks[1:], array("I", [1]), diff.end)
        other = form.build_directory(diff.blocks[:1], diff.chunks[:1], array("I", [0]), diff.end)  # the second unused
        for directory, expected in ((raw, new), (other, b"b" * BLOCK + bytes(7 * BLOCK))):
            stored = _compressed(compression, directory)
            superblock = form.Superblock(BLOCK, 2, compression, len(update.content), len(stored), 2)
            content = form.build_superblock(superblock) + update.content[64:] + stored
            assert applied(Update(old, expected, content, _sidecar(expected)), sidecar=False) == expected


def _compressed(name: str, data: bytes) -> bytes:
    from regraft.build.pool import compressor

    return compressor(form.CODECS[name], 1, window_log=11)(data)


def _sidecar(image: bytes) -> sidecars.Sidecar:
    return dm_update(image, image).sidecar


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([(4, 512, 0), (1, 512, 1), *GOOD[2:]], "after block"),
        ([(1, 512, 0), (1, 512, 1), *GOOD[2:]], "after block"),
        ([*GOOD[:3], (5, 2048, 0)], "after block"),
        ([(1, 1536, 0), (4, 512, 1), (9, 2048, 0)], "a chunk at 512 after 1536"),
        ([(1, 512, 0), (4, 1536, 0), (5, 512, 1), GOOD[3]], "a chunk at 512 after"),
        ([(1, 512, 2), *GOOD[1:]], "of a chunk of 2 blocks"),
        ([(1, 512, 0xFFFFFFFF), *GOOD[1:]], "of a chunk of 2 blocks"),
        ([*GOOD[:3], (form.SENTINEL, 1536, 0)], "the sentinel is within"),
        ([*GOOD[:3], (form.SENTINEL, 1535, 0)], "after"),
        ([(1, 0, 0), (2, 512, 0)], "chunks from 0"),
        ([(1, 63, 0), (2, 63 + BLOCK, 0)], "chunks from 63"),
        ([*GOOD[:3], (form.SENTINEL, 1 << 40, 0)], "chunks from"),
        ([(1, 512, 0), (4, 1 << 47, 0), (5, (1 << 47) + 512, 0)], "chunks from"),
        ([*GOOD[:3], (form.SENTINEL, 2600, 0)], "and a directory"),
        ([(1, 512, 0), (4, 512, 1), (5, 1100, 0), GOOD[3]], "its entries need"),
        ([(1, 512, 0), (9, 2048, 0)], "its entries need"),
    ],
)
def test_a_directory_out_of_order_is_refused(entries: list[tuple[int, int, int]], words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read(around(entries))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"entries": 0}, FormatError),
        ({"entries": 1}, FormatError),
        ({"entries": 5}, FormatError),
        ({"entries": 1 << 60}, LimitError),
        ({"entries": (1 << 64) - 1}, LimitError),
        ({"directory_stored": (1 << 64) - 1}, LimitError),
        ({"directory_stored": 0}, FormatError),
        ({"directory_stored": 65}, FormatError),
        ({"directory_offset": 0}, FormatError),
        ({"directory_offset": 63}, FormatError),
        ({"directory_offset": (1 << 64) - 1}, FormatError),
        ({"directory_offset": 1 << 40}, FormatError),
        ({"chunk_blocks": 0}, FormatError),
        ({"chunk_blocks": 0xFFFFFFFF}, FormatError),
        ({"chunk_blocks": 1 << 21}, LimitError),
        ({"block_size": 256}, FormatError),
        ({"block_size": 1 << 32}, FormatError),
        ({"compression": "842"}, UnsupportedError),
        ({"compression": "lzo"}, UnsupportedError),
        ({"compression": "zstdzstdzstdzst\0"}, UnsupportedError),
        ({"compression": "zstdzstdzstdzstd"}, FormatError),
        ({"compression": "n\u00f6ne"}, FormatError),
    ],
    ids=str,
)
def test_a_superblock_that_makes_no_sense_is_refused(fields: dict[str, object], error: type[RegraftError]) -> None:
    with pytest.raises(error):
        read(around(GOOD, **fields))


def test_other_magics_and_versions_are_refused() -> None:
    content = around(GOOD)
    with pytest.raises(UnsupportedError, match="version 1"):
        read(content[:8] + b"\1" + content[9:])
    with pytest.raises(FormatError):
        read(b"updates\0" + content[8:])
    for size in range(64):
        with pytest.raises(FormatError):
            read(content[:size])


def test_a_base_that_does_not_fit_is_refused() -> None:
    diff = read(around(GOOD))
    for base, target in ((5 * BLOCK, None), (5 * BLOCK, 8 * BLOCK), (8 * BLOCK, 5 * BLOCK), (0, None)):
        with pytest.raises(FormatError):
            form.recipe(diff, "x", base_size=base, target_size=target)
    assert form.recipe(diff, "x", base_size=5 * BLOCK, target_size=6 * BLOCK).size == 6 * BLOCK
    with pytest.raises(FormatError):  # a terabyte that is said to be in the base
        form.recipe(diff, "x", base_size=6 * BLOCK, target_size=1 << 40)


def test_a_bomb_is_not_blown_up() -> None:
    bomb = _compressed("zstd", bytes(100 << 20))
    directory = _compressed(
        "zstd", form.build_directory(array("Q", [0]), array("Q", [512]), array("I", [0]), 512 + len(bomb))
    )
    superblock = form.Superblock(BLOCK, 2, "zstd", 512 + len(bomb), len(directory), 2)
    content = form.build_superblock(superblock).ljust(512, b"\0") + bomb + directory
    with pytest.raises(FormatError, match="a unit of 512 bytes"):
        applied(Update(bytes(BLOCK), bytes(BLOCK), content, _sidecar(bytes(BLOCK))), sidecar=False)
    big = replace(superblock, directory_offset=512, directory_stored=len(bomb))
    with pytest.raises(FormatError, match="a unit of 32 bytes"):
        read(form.build_superblock(big) + content[64:])


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_no_cut_or_flipped_file_gives_another_image(compression: str) -> None:
    old, new = blocks_pair(random.Random(1), 12, BLOCK)
    update = dm_update(old, new, Options(compression, None, BLOCK, 1024, sector=512))
    content = update.content
    assert applied(update) == new
    for size in range(0, len(content), 37):
        with suppress(RegraftError):  # the padding is no part of it
            assert applied(update, content=content[:size]) == new
    for at in range(64, len(content), 23):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        with suppress(RegraftError):
            assert applied(update, content=bytes(flipped)) == new
    with pytest.raises(RegraftError):
        applied(update, content=content[: read(content).superblock.directory_offset + 3])


def test_headers_survive_every_flip_without_digests() -> None:
    old, new = blocks_pair(random.Random(1), 12, BLOCK)
    content = dm_update(old, new, Options("none", None, BLOCK, 1024, sector=512)).content
    directory = read(content).superblock.directory_offset
    for at in [*range(64), *range(directory, len(content))]:
        for bit in range(8):
            flipped = bytearray(content)
            flipped[at] ^= 1 << bit
            with suppress(RegraftError):
                open_delta(MemoryMedium(flipped), len(old), None)


def test_a_sidecar_belongs_to_one_delta() -> None:
    old, new = blocks_pair(random.Random(2), 12, BLOCK)
    update = dm_update(old, new, Options("none", None, BLOCK, 1024))
    other = dm_update(old, new, Options("none", None, BLOCK, 2048))
    data = sidecars.build(update.sidecar)
    assert sidecars.parse(data) == update.sidecar
    with pytest.raises(DigestError, match="another delta"):
        open_delta(MemoryMedium(other.content), len(old), update.sidecar)
    rows = update.sidecar.rows
    shorter = replace(update.sidecar, rows=DigestColumn(rows.algorithm, rows.data[32:]))
    with pytest.raises(FormatError):
        open_delta(MemoryMedium(update.content), len(old), shorter)
    with pytest.raises(DigestError, match="the base has"):
        open_delta(MemoryMedium(update.content), len(old) - 1, update.sidecar)


def test_sidecars_survive_every_cut_and_flip() -> None:
    old, new = blocks_pair(random.Random(2), 6, BLOCK)
    data = sidecars.build(dm_update(old, new, Options("none", None, BLOCK, 1024)).sidecar)
    for size in range(len(data)):
        with pytest.raises(FormatError):
            sidecars.parse(data[:size])
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RegraftError):
            sidecars.parse(flipped)
    with pytest.raises(FormatError):
        sidecars.parse(data + b"\0")


def test_limits_hold() -> None:
    content = around(GOOD)
    for limits in (replace(DEFAULT, chunks=2), replace(DEFAULT, header_size=63), replace(DEFAULT, stored_size=1023)):
        with pytest.raises(LimitError):
            read(content, limits)


def test_a_base_sector_that_cannot_be_read_ends_it_with_its_name() -> None:
    old, new = blocks_pair(random.Random(2), 12, BLOCK)
    update = dm_update(old, new, Options("none", None, BLOCK, 1024))
    seed = base_of(old)
    assert isinstance(seed.medium, MemoryMedium)
    seed.medium.bad.append((0, len(old)))
    from regraft.engine.apply import apply
    from regraft.engine.blobs import LocalBlob

    blob = MemoryMedium(update.content)
    delta = open_delta(blob, len(old), update.sidecar)
    with pytest.raises(RegraftError):
        apply(delta.recipe, [seed], [LocalBlob(blob)], MemoryMedium())
