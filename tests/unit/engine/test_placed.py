# SPDX-License-Identifier: Apache-2.0
"""Cuts are moved to blocks and to where files begin, alike for a stream and for the whole, here and in a seed."""

from __future__ import annotations

import lzma
import random
from array import array
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.engine import chunkers
from regraft.engine.chunkers import named
from regraft.engine.placed import SHORTEST, Placed, places
from regraft.engine.seeds import index_medium
from regraft.errors import LimitError, UnsupportedError
from regraft.formats import chunk_rules, zchunk
from regraft.formats.chunk_rules import Placement
from regraft.formats.filesystems import layout
from regraft.model import Algorithm, Index
from regraft.testing.memory import MemoryMedium

SHA = Algorithm.SHA256
RULES = ("fixed/1000", "bita-rollsum/64/7/100/3000", "bita-buzhash/16/3/0/9", "bita-buzhash/16/9/200/4096")
IMAGES = Path(__file__).parents[3] / "fuzz" / "filesystems"


def by_hand(data: bytes, rule: str, ends: array[int], align: int) -> list[int]:
    """Bounds of the chunks, stretch by stretch, each cut at once."""
    bounds, start = {0}, 0
    for end in ends:
        lengths, _ = named(rule).session(SHA, 1)(memoryview(data)[start:end], 0, 0, True)
        bounds |= {min(-(-cut // align) * align, end) for cut in accumulate(lengths, initial=start)}
        start = end
    return sorted(bounds | set(ends))


@settings(max_examples=150)
@given(
    parts=st.lists(st.one_of(st.binary(max_size=900), st.integers(0, 9000).map(bytes)), max_size=6),
    seed=st.integers(0, 99),
    cuts=st.sets(st.integers(1, 60_000)),
    rule=st.sampled_from(RULES),
    align=st.sampled_from([1, 7, 512, 4096]),
    step=st.sampled_from([700, 5000, 100_000]),
)
def test_a_stream_is_cut_as_stretch_by_stretch(
    parts: list[bytes], seed: int, cuts: set[int], rule: str, align: int, step: int
) -> None:
    data = b"".join(parts) + random.Random(seed).randbytes(seed * 400)
    ends = places(array("Q", sorted(cut for cut in cuts if cut < len(data))), len(data), align)
    context = named(rule).context
    placed = Placed(lambda: named(rule).session(None, 1), ends, align, context, SHA, 1)
    bounds, digests = [0], b""
    for end in [*range(step, len(data), step), len(data)] if data else []:
        before = min(bounds[-1], context + align)
        found, hashed = placed(memoryview(data)[bounds[-1] - before : end], before, 0, end == len(data))
        bounds += list(accumulate(found, initial=bounds[-1]))[1:]
        digests += hashed
    assert bounds == by_hand(data, rule, ends, align) if data else bounds == [0]
    assert digests == b"".join(SHA.of(data[start:end]) for start, end in pairwise(bounds))


@pytest.mark.parametrize("rule", [*RULES, zchunk.CHUNKER])
@pytest.mark.parametrize("batch", [3000, 65_536])
@pytest.mark.parametrize("name", ["ext4", "squashfs", "packed.erofs"])
def test_an_index_follows_the_layout(name: str, rule: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunkers, "BATCH", batch)
    monkeypatch.setattr(chunkers, "SMALL_BATCH", batch)
    data = lzma.decompress((IMAGES / f"{name}.img.xz").read_bytes())
    if batch < 9000 and rule == zchunk.CHUNKER:
        data = data[:60_000]
    medium = MemoryMedium(data)

    def read(offset: int, view: memoryview) -> None:
        medium.read_into(offset, view)

    for placement in (Placement(512), Placement(files=True), Placement(1024, files=True)):
        index = index_medium(medium, SHA, placement.label(rule))
        cuts = layout(read, len(data)).cuts
        ends = places(cuts if placement.files else array("Q"), len(data), placement.align)
        assert list(index.bounds) == by_hand(data, rule, ends, placement.align)
        assert index.chunker == placement.label(rule)
        assert all(not bound % placement.align for bound in index.bounds[:-1])


def test_a_short_stretch_has_no_places_of_its_own_beside_others() -> None:
    long = SHORTEST
    cuts = array("Q", accumulate([long, 10, 10, 10, long, 10, long, long, 5]))
    assert list(places(cuts, 5 * long, 1)) == [
        long, long + 30, 2 * long + 30, 2 * long + 40, 3 * long + 40, 4 * long + 40, 5 * long
    ]  # fmt: skip
    assert list(places(array("Q"), 10, 4096)) == [10]
    assert list(places(array("Q", [1, 4097]), 20_000, 4096)) == [4096, 8192, 20_000]


def shared(old: Index, new: Index) -> int:
    """Bytes of the new one's chunks that the old one has."""
    there = set(old.digests)
    return sum(
        end - start for (start, end), digest in zip(pairwise(new.bounds), new.digests, strict=True) if digest in there
    )


def file_system(files: list[bytes]) -> bytes:
    """A squashfs of sorts: what is read of it is the superblock and the table of inodes, which is not compressed."""
    import struct

    body, inodes = b"", b""
    for number, content in enumerate(files):
        head = struct.pack("<HHHHII", 2, 0o644, 0, 0, 0, number + 1)
        sizes = [min(4096, len(content) - at) for at in range(0, len(content), 4096)]
        inodes += head + struct.pack("<IIII", 96 + len(body), 0xFFFFFFFF, 0, len(content))
        inodes += b"".join(struct.pack("<I", size | 1 << 24) for size in sizes)
        body += content
    table = b"".join(
        struct.pack("<H", 0x8000 | len(inodes[at : at + 8192])) + inodes[at : at + 8192]
        for at in range(0, len(inodes), 8192)
    )
    start = 96 + len(body)
    none = 0xFFFFFFFFFFFFFFFF
    head = struct.pack("<4sIIIIHHHHHHQ", b"hsqs", len(files), 0, 4096, 0, 1, 12, 0, 1, 4, 0, 0)
    head += struct.pack("<8Q", start + len(table), none, none, start, start + len(table), none, none, 0)[:56]
    return head + body + table


def test_what_lies_in_a_file_that_moved_is_found_whole() -> None:
    """One file of many is replaced: with layout all others are shared."""
    chance = random.Random(7)
    files = [chance.randbytes(chance.randrange(5000, 60_000)) for _ in range(40)]
    old = file_system(files)
    changed = [*files[:20], chance.randbytes(33_333), *files[21:]]
    new = file_system(changed)
    for rule in (zchunk.CHUNKER, "bita-rollsum/64/15/16384/16777216"):
        plain = [index_medium(MemoryMedium(each), SHA, rule) for each in (old, new)]
        layouts = [index_medium(MemoryMedium(each), SHA, f"{rule}+layout/1") for each in (old, new)]
        others = sum(len(content) for number, content in enumerate(files) if number != 20)
        # The end of the last file may be a chunk with the table behind it, which is short.
        assert shared(*layouts) > others - SHORTEST > shared(*plain) + 20_000


def test_bounds_of_the_longest_chunk_are_known_before() -> None:
    assert named("fixed/5000+align/4096").longest == 8192
    assert named("bita-rollsum/64/15/16384/16777216+align/4096").longest == 16 << 20
    with pytest.raises(LimitError, match=r"limits\.chunk_size"):
        named("fixed/16777215+align/65535+layout/1")


@pytest.mark.parametrize(
    "label", ["fixed/9+layout/2", "fixed/9+align/0", "fixed/9+layout/1+align/4", "fixed/9+", "fixed/9+align/x", "rule"]
)
def test_other_labels_are_unknown(label: str) -> None:
    assert chunk_rules.split(label) is None
    assert chunk_rules.stated(label.encode(), "mine") == "mine"
    with pytest.raises(UnsupportedError):
        named(label)


def test_labels_are_read_back() -> None:
    for placement in (Placement(), Placement(4096), Placement(1, True), Placement(512, True)):
        label = placement.label(zchunk.CHUNKER)
        assert chunk_rules.split(label) == (zchunk.CHUNKER, placement)
        assert chunk_rules.stated(label.encode(), "") == label
    assert chunk_rules.stated(None, "mine") == chunk_rules.stated(b"\xff", "mine") == "mine"
