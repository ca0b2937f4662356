# SPDX-License-Identifier: Apache-2.0
"""Exports one behind the other, padded to blocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbd_talk import PatternExport

from regraft.blockdev.export import FileExport
from regraft.blockdev.views import Joined, SlowJoined, Stored, joined


def content(export: Joined, offset: int, length: int) -> bytes:
    data = bytearray(b"\xee" * length)
    export.read_into(offset, memoryview(data))
    return bytes(data)


@pytest.fixture
def parts() -> Iterator[list[Stored]]:
    made = [Stored(b"a" * 5000), Stored(b""), Stored(b"b" * 4096), Stored(b"c")]
    yield made
    for part in made:
        part.close()


def test_every_range_reads_as_the_padded_parts(parts: list[Stored]) -> None:
    whole = joined(parts)
    expected = b"a" * 5000 + bytes(3192) + b"b" * 4096 + b"c" + bytes(4095)
    assert whole.size == len(expected) == 16_384
    assert list(whole.starts) == [0, 8192, 8192, 12_288]
    edges = [0, 1, 4999, 5000, 5001, 8191, 8192, 12_287, 12_288, 12_289, 16_383, 16_384]
    for start, end in itertools.combinations(edges, 2):
        assert content(whole, start, end - start) == expected[start:end]
        assert sum(extent.length for extent in whole.extents(start, end - start)) == end - start


def test_padding_is_a_hole(parts: list[Stored]) -> None:
    assert [(extent.length, extent.hole) for extent in joined(parts[:1]).extents(0, 8192)] == [
        (5000, False),
        (3192, True),
    ]


def test_each_part_lies_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 5000)
    (tmp_path / "b").write_bytes(b"b" * 5000)
    parts = [FileExport(str(tmp_path / name)) for name in "ab"]
    whole = joined(parts)
    first, second = parts[0].direct(0, 5000), parts[1].direct(8, 10)
    assert whole.direct(0, 5000) == whole.direct(0, 5001) == first
    assert whole.direct(5000, 10) is None
    assert whole.direct(8200, 10) == second != first
    for part in parts:
        part.close()


def test_a_part_that_waits_for_a_peer_makes_the_whole_one_that_may() -> None:
    class Slow(PatternExport):
        def ready(self, offset: int, length: int) -> bool:
            return offset < 4096

    plain = joined([PatternExport()])
    assert not hasattr(plain, "ready")
    slow = joined([PatternExport(), Slow()])
    assert isinstance(slow, SlowJoined)
    assert slow.ready(0, 1 << 20)
    assert slow.ready(1 << 20, 4096)
    assert not slow.ready((1 << 20) + 4096, 4096)
