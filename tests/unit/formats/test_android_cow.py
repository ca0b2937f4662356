# SPDX-License-Identifier: Apache-2.0
"""COW files from strangers: everything has its place, and what has another is refused."""

from __future__ import annotations

import random
import struct
from array import array
from contextlib import suppress
from dataclasses import replace

import pytest
from deltas import Update, applied, blocks_pair, cow, merged

from regraft.build.android_cow import Options
from regraft.engine.deltas import open_delta, parse, read_cow
from regraft.errors import FormatError, LimitError, RegraftError, UnsupportedError
from regraft.formats import android_cow as form
from regraft.formats import cow_v2, cow_v3
from regraft.formats.android_cow import Cow, CowKind, Header
from regraft.limits import DEFAULT, Limits
from regraft.testing.memory import MemoryMedium

BLOCK = 512


def read(content: bytes, limits: Limits = DEFAULT) -> Cow:
    found = parse(MemoryMedium(content), limits=limits)
    assert isinstance(found, Cow)
    return found


def older(*, clusters: int = 4, scratch: int = 0, finish: bool = True) -> bytes:
    """A file of version 2 with an operation of each kind."""
    out = MemoryMedium()
    writer = cow_v2.Writer(out.write, Header(2, BLOCK, clusters, buffer_size=scratch))
    if clusters:
        writer.sequence(array("I", [9, 5]))
    writer.copy(9, 5)
    writer.xor(5, 3 * BLOCK + 7, b"x" * BLOCK)
    writer.label(1)
    writer.zero(2)
    writer.replace(3, b"r" * BLOCK)
    writer.label((1 << 64) - 1)
    writer.replace(4, b"s" * BLOCK)
    if finish:
        writer.finish()
    return bytes(out.content)


def newer(**fields: object) -> bytes:
    """The same in version 3."""
    out = MemoryMedium()
    header = Header(3, BLOCK, sequence_count=2, resume_room=4, op_room=6, unit_size=4 * BLOCK)
    writer = cow_v3.Writer(out.write, header, array("I", [9, 5]))
    writer.copy(9, 5)
    writer.xor(5, 3 * BLOCK + 7, b"x" * BLOCK)
    writer.label(1)
    writer.zero(2)
    writer.replace(3, b"r" * BLOCK)
    writer.label(7)
    writer.replace(10, b"s" * 4 * BLOCK, 2)
    writer.finish()
    if fields:
        made = form.parse_header(out.content)
        out.write(0, form.build_header(replace(made, **fields)))  # type: ignore[arg-type]
    return bytes(out.content)


@pytest.mark.parametrize("clusters", [0, 2, 3, 4, 100])
@pytest.mark.parametrize("scratch", [0, 4096])
def test_version_2_has_its_operations_in_order(clusters: int, scratch: int) -> None:
    found = read(older(clusters=clusters, scratch=scratch))
    kinds = [CowKind.COPY, CowKind.XOR, CowKind.ZERO, CowKind.REPLACE, CowKind.REPLACE]
    assert list(found.ops.kind) == kinds
    assert list(found.ops.block) == [9, 5, 2, 3, 4]
    assert list(found.ops.source) == [5, 3 * BLOCK + 7, 0, 0, 0]
    assert list(found.sequence) == ([9, 5] if clusters else [])
    assert found.labels == ((1, 2), ((1 << 64) - 1, 4))
    assert list(found.merge_order()) == [0, 1, 2, 3, 4]
    content = older(clusters=clusters, scratch=scratch)
    assert [content[at : at + 1] for at in found.ops.data if at] == [b"x", b"r", b"s"]


def test_version_2_lies_in_the_file_as_its_layout_says() -> None:
    content = older(clusters=4, scratch=100)
    op = struct.Struct("<BBHQQ")
    first = 38 + 100
    assert op.unpack_from(content, first) == (7, 0, 8, 0, first + 80)
    assert op.unpack_from(content, first + 20) == (1, 0, 0, 9, 5)
    assert op.unpack_from(content, first + 40) == (6, 0, BLOCK, 5, 3 * BLOCK + 7)
    assert op.unpack_from(content, first + 60) == (5, 0, 0, 0, 8 + BLOCK)
    second = first + 80 + 8 + BLOCK
    assert op.unpack_from(content, second) == (4, 0, 0, 0, 1)
    assert op.unpack_from(content, second + 40) == (2, 0, BLOCK, 3, second + 80)
    assert op.unpack_from(content, len(content) - 84) == (255, 0, 64, 20 * 11, 11)
    assert content[-64:] == bytes(64)


def test_version_3_lies_in_the_file_as_its_layout_says() -> None:
    content = newer()
    assert struct.unpack_from("<8sHHHHHIIQI", content) == (b"!!WOcwoC", 3, 0, 78, 0, 16, BLOCK, 0, 0, 0)
    assert struct.unpack_from("<QIIQQII", content, 38) == (2, 2, 4, 5, 6, 0, 4 * BLOCK)
    assert struct.unpack_from("<2I4Q", content, 78) == (9, 5, 1, 2, 7, 4)
    ops = 78 + 8 + 64
    data = ops + 6 * 16
    assert struct.unpack_from("<IIQ", content, ops) == (0, 9, 5 | 1 << 60)
    assert struct.unpack_from("<IIQ", content, ops + 64) == (4 * BLOCK, 10, data + 2 * BLOCK | 2 << 57 | 2 << 60)
    assert len(content) == data + 6 * BLOCK
    found = read(content)
    assert list(found.ops.factor) == [0, 0, 0, 0, 2]
    assert found.labels == ((1, 2), (7, 4))


def test_a_file_that_was_not_finished_counts_up_to_a_label() -> None:
    for clusters in (0, 2, 4):
        content = older(clusters=clusters, finish=False)
        with pytest.raises(FormatError, match=r"before its footer|cluster|type 0"):
            read(content)
        assert len(read_cow(MemoryMedium(content.ljust(len(content) + 200, b"\0")), label=1).ops) == 2
    assert len(read_cow(MemoryMedium(newer()), label=7).ops) == 4
    for content in (older(), newer()):
        with pytest.raises(FormatError, match="no label 5"):
            read_cow(MemoryMedium(content), label=5)


def test_labels_of_version_3_are_the_newest() -> None:
    out = MemoryMedium()
    writer = cow_v3.Writer(out.write, Header(3, BLOCK, resume_room=4, op_room=9, unit_size=BLOCK), array("I"))
    for number in range(9):
        writer.zero(number)
        writer.label(number)
    writer.finish()
    assert [label for label, _ in read(bytes(out.content)).labels] == [5, 6, 7, 8]
    with pytest.raises(ValueError, match="room"):
        writer.zero(9)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"op_count": 6}, FormatError),
        ({"op_count": 7}, FormatError),
        ({"op_count": 4, "op_room": 4}, FormatError),
        ({"op_count": 1 << 60, "op_room": 1 << 60}, LimitError),
        ({"op_room": 1 << 63}, FormatError),
        ({"op_room": 7}, FormatError),
        ({"sequence_count": 1}, FormatError),
        ({"sequence_count": 3}, FormatError),
        ({"sequence_count": 1 << 62}, LimitError),
        ({"resume_points": 5}, FormatError),
        ({"resume_room": 1 << 31}, FormatError),
        ({"resume_points": 4}, None),
        ({"compression": 5}, UnsupportedError),
        ({"unit_size": BLOCK}, FormatError),
        ({"unit_size": 3000}, FormatError),
        ({"unit_size": BLOCK << 8}, FormatError),
        ({"block_size": 1024}, FormatError),
        ({"block_size": 1 << 20}, FormatError),
        ({"block_size": 0}, FormatError),
        ({"buffer_size": 1}, RegraftError),
        ({"buffer_size": 0xFFFFFFFF}, FormatError),
        ({"merged": 6}, FormatError),
        ({"cluster_ops": 200}, FormatError),
    ],
    ids=str,
)
def test_a_header_of_version_3_that_lies_is_refused(
    fields: dict[str, object], error: type[RegraftError] | None
) -> None:
    content = newer(**fields)
    if error is None:
        read(content)
        return
    with pytest.raises(error):
        read(content)


@pytest.mark.parametrize(
    ("at", "layout", "value", "words"),
    [
        (0, "<I", 1, "with data"),  # a COPY with data
        (4, "<I", 5, "a second time"),
        (16, "<I", BLOCK - 1, "bytes of data"),
        (16, "<I", 0, "bytes of data"),
        (16, "<I", 1 << 30, "bytes of data"),
        (32 + 8, "<Q", 5 | 3 << 60, "zeros from"),
        (48 + 8, "<Q", 5 | 2 << 60, "and not at"),
        (64 + 8, "<Q", 0, "type 0"),
        (64 + 8, "<Q", 4 << 60, "type 4"),
        (8, "<Q", 5 | 1 << 60 | 1 << 50, "bits above"),
        (8, "<Q", 5 | 1 << 60 | 1 << 57, "for 2 blocks"),
        (32 + 8, "<Q", 3 << 60 | 1 << 57, "for 2 blocks"),
        (32 + 4, "<I", 11, "a second time"),
        (64 + 4, "<I", 0xFFFFFFFD, "blocks from"),
    ],
)
def test_an_operation_of_version_3_that_makes_no_sense_is_refused(at: int, layout: str, value: int, words: str) -> None:
    content = bytearray(newer())
    struct.pack_into(layout, content, 78 + 8 + 64 + at, value)
    with pytest.raises(FormatError, match=words):
        read(bytes(content))


@pytest.mark.parametrize(
    ("slot", "values", "words"),
    [
        (0, (7, 0, 6, 0, 38 + 80), "a sequence of"),
        (0, (7, 0, 8, 0, 38), "a sequence of"),
        (0, (7, 0, 65532, 0, 38 + 80), "the file has"),
        (1, (1, 0, 4, 9, 5), "with data"),
        (1, (1, 4, 0, 9, 5), "with data"),
        (1, (1, 0, 0, 1 << 32, 5), "out of range"),
        (1, (1, 0, 0, 9, 1 << 48), "out of range"),
        (1, (7, 0, 0, 0, 38 + 88), None),
        (1, (1, 0, 0, 5, 5), "a second time"),
        (1, (0, 0, 0, 0, 0), "type 0"),
        (1, (8, 0, 0, 0, 0), "type 8"),
        (1, (5, 0, 0, 0, 0), "the next cluster"),
        (1, (255, 0, 64, 20, 1), None),
        (1, (255, 0, 64, 40, 2), "a footer for"),
        (1, (255, 0, 0, 20, 1), "a footer for"),
        (2, (6, 5, BLOCK, 5, 0), "compression 5"),
        (2, (6, 4, BLOCK, 5, 0), "in one file"),
        (2, (6, 0, BLOCK - 1, 5, 0), "for a block"),
        (2, (6, 4, 0, 5, 0), "missing"),
        (2, (2, 0, BLOCK, 5, 38), "and not at"),
        (3, (5, 0, 0, 0, 8 + BLOCK + 1), "the next cluster"),
        (3, (5, 0, 0, 0, 0), "the next cluster"),
        (3, (5, 0, 0, 0, (1 << 64) - 1), "the next cluster"),
        (3, (5, 0, 1, 0, 8 + BLOCK), "the next cluster"),
        (3, (3, 0, 0, 7, 0), "in a cluster"),
    ],
    ids=str,
)
def test_an_operation_of_version_2_that_makes_no_sense_is_refused(
    slot: int, values: tuple[int, ...], words: str | None
) -> None:
    content = bytearray(older())
    struct.pack_into("<BBHQQ", content, 38 + 20 * slot, *values)
    with pytest.raises(FormatError, match=words or "sequence"):
        read(bytes(content))


def test_a_footer_that_disagrees_is_refused() -> None:
    content = older()
    for at, layout, value in ((2, "<H", 63), (4, "<Q", 180), (12, "<Q", 9), (12, "<Q", (1 << 64) - 1)):
        bad = bytearray(content)
        struct.pack_into(layout, bad, len(content) - 84 + at, value)
        with pytest.raises(FormatError, match="a footer for"):
            read(bytes(bad))


def test_a_sequence_holds_each_ordered_operation_once() -> None:
    for numbers, words in (((9, 9), "twice"), ((9, 77), "no operation"), ((2, 5), "leaves out")):
        for content, at in ((older(), 38 + 80), (newer(), 78)):
            bad = bytearray(content)
            struct.pack_into("<2I", bad, at, *numbers)
            with pytest.raises(FormatError, match=words):
                read(bytes(bad))


def test_without_clusters_a_sequence_has_no_place() -> None:
    content = bytearray(older(clusters=0))
    struct.pack_into("<BBHQQ", content, 38, 7, 0, 0, 0, 58)
    with pytest.raises(UnsupportedError):
        read(bytes(content))


def test_a_merge_that_has_begun_leaves_no_base() -> None:
    cow_of = read(newer(merged=2))
    assert cow_of.header.merged == 2
    assert cow_of.identity == read(newer()).identity
    with pytest.raises(UnsupportedError, match="merged"):
        form.recipe(cow_of, "x", base_size=20 * BLOCK)


def test_operations_must_fit_base_and_target() -> None:
    for found, blocks in ((read(older()), 10), (read(newer()), 14)):
        assert form.recipe(found, "x", base_size=20 * BLOCK).size == 20 * BLOCK
        made = form.recipe(found, "x", base_size=20 * BLOCK, target_size=blocks * BLOCK - 100)
        assert made.size == blocks * BLOCK - 100
        for base, target in (
            (20 * BLOCK, (blocks - 1) * BLOCK),
            (4 * BLOCK, 20 * BLOCK),
            (20 * BLOCK, 1 << 44),
            (4 * BLOCK + 6, blocks * BLOCK),
        ):
            with pytest.raises(FormatError):
                form.recipe(found, "x", base_size=base, target_size=target)


def test_version_1_has_no_scratch_area() -> None:
    content = older(clusters=0)
    head = form.build_header(Header(1, BLOCK))
    assert len(head) == 34
    content = bytearray(head + content[38:])
    found = cow_v2.parse(Header(2, BLOCK), lambda at, count: older(clusters=0)[at : at + count], size=len(content) + 4)
    for number, at in enumerate(found.ops.data):
        if found.ops.kind[number] == CowKind.REPLACE:
            struct.pack_into("<Q", content, at - 4 - 8, at - 4)
    assert list(read(bytes(content)).ops.block) == list(found.ops.block)


def test_other_headers_are_refused() -> None:
    content = newer()
    for at, layout, value, error in (
        (0, "<B", 0x20, FormatError),
        (8, "<H", 4, UnsupportedError),
        (8, "<H", 0, UnsupportedError),
        (10, "<H", 1, UnsupportedError),
        (12, "<H", 79, FormatError),
        (14, "<H", 84, FormatError),
        (16, "<H", 20, FormatError),
    ):
        bad = bytearray(content)
        struct.pack_into(layout, bad, at, value)
        with pytest.raises(error):
            read(bytes(bad))
    clusters = bytearray(older())
    struct.pack_into("<I", clusters, 22, 1)
    with pytest.raises(FormatError, match="clusters of 1"):
        read(bytes(clusters))


def test_limits_hold() -> None:
    for content in (older(), newer()):
        with pytest.raises(LimitError):
            read(content, replace(DEFAULT, chunks=3))
    with pytest.raises(LimitError):
        read(newer(), replace(DEFAULT, chunk_size=1024))


@pytest.fixture(scope="module", params=[(2, "zstd", 3), (2, "gz", 0), (3, "zstd", 0), (3, "none", 0)], ids=str)
def update(request: pytest.FixtureRequest) -> Update:
    version, compression, clusters = request.param
    old, new = blocks_pair(random.Random(3), 14, BLOCK)
    options = Options(version, compression, None, BLOCK, 2 * BLOCK, cluster_ops=clusters, scratch=16)
    return cow(old, new, options)


def test_no_cut_or_flipped_file_gives_another_image(update: Update) -> None:
    content = update.content
    assert applied(update) == merged(content, update.old, len(update.new)) == update.new
    for size in range(len(content)):
        with pytest.raises(RegraftError):
            parse_whole(content[:size], update)
    for at in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        with suppress(RegraftError):
            assert applied(update, content=bytes(flipped)) == update.new


def parse_whole(content: bytes, update: Update) -> None:
    open_delta(MemoryMedium(content), len(update.old), update.sidecar)


def test_tables_survive_every_flip_without_digests(update: Update) -> None:
    content = update.content
    for bit in range(8 * min(len(content), 700)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        with suppress(RegraftError):
            open_delta(MemoryMedium(flipped), len(update.old), None)


def test_a_unit_that_is_a_bomb_is_not_blown_up() -> None:
    from regraft.build.pool import compressor

    bomb = compressor("zstd", 1, window_log=18)(bytes(50 << 20))[:65535]
    out = MemoryMedium()
    writer = cow_v2.Writer(out.write, Header(2, BLOCK, 4), 4)
    writer.replace(0, bomb)
    writer.finish()
    sidecar = cow(bytes(BLOCK), bytes(BLOCK), Options(2, block_size=BLOCK, unit_size=BLOCK)).sidecar
    with pytest.raises(FormatError):
        applied(Update(bytes(BLOCK), bytes(BLOCK), bytes(out.content), sidecar), sidecar=False)
