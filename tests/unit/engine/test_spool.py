# SPDX-License-Identifier: Apache-2.0
"""Stored bytes brought here first: once, verified, and found again."""

from __future__ import annotations

import random
from pathlib import Path

import casync_stores
import pytest
from images import CountingSource, Pair, small_recipe

from regraft.engine.ranges import Range
from regraft.engine.spool import Spool
from regraft.errors import DigestError
from regraft.model import Algorithm, Blob, Codec, Kind, Op, OpTable, Recipe, Units
from regraft.testing.memory import MemoryMedium

CONTENT = random.Random(3).randbytes(5000)
RECIPE = small_recipe(CONTENT)


def test_what_was_brought_is_not_fetched_again_even_by_a_later_process() -> None:
    source, medium = CountingSource(CONTENT), MemoryMedium()
    assert Spool(RECIPE, source, medium).bring([1, 3]) == 2000
    later = Spool(RECIPE, source, medium)
    assert later.bring([1, 3, 4]) == 1000
    source.fetched.clear()
    assert [bytes(data) for _, data in later.fetch([Range(1000, 1000), Range(3000, 1000)])] == [
        CONTENT[1000:2000], CONTENT[3000:4000],
    ]  # fmt: skip
    assert not source.fetched


def test_what_was_not_brought_is_fetched_when_it_is_needed() -> None:
    source = CountingSource(CONTENT)
    spool = Spool(RECIPE, source, MemoryMedium())
    spool.bring([0])
    assert [bytes(data) for _, data in spool.fetch([Range(2000, 1000)])] == [CONTENT[2000:3000]]


def test_a_unit_that_arrives_wrong_is_fetched_once_more() -> None:
    source = CountingSource(CONTENT, spoil={1000: 1})
    assert Spool(RECIPE, source, MemoryMedium()).bring([0, 1]) == 3000
    source = CountingSource(CONTENT, spoil={1000: 2})
    with pytest.raises(DigestError):
        Spool(RECIPE, source, MemoryMedium()).bring([0, 1])


def test_a_chunk_that_only_its_plain_bytes_prove_is_proved_before_it_counts() -> None:
    content = random.Random(4).randbytes(3000)
    table, units = OpTable(Algorithm.SHA256), Units(None)
    for number in range(3):
        unit = units.add(blob=0, codec=0, offset=1000 * number, stored=1000, length=1000, digest=None)
        table.add(1000, Algorithm.SHA256.of(content[1000 * number :][:1000]), Op(Kind.DATA, unit=unit))
    recipe = Recipe(table, units, (Blob("memory", 3000),), (Codec("none"),))
    source = CountingSource(content, spoil={1000: 1})
    assert Spool(recipe, source, MemoryMedium()).bring([0, 1]) == 3000
    with pytest.raises(DigestError):
        Spool(recipe, CountingSource(content, spoil={1000: 2}), MemoryMedium()).bring([0, 1])


def test_chunk_files_are_found_again_by_a_later_process_where_a_power_cut_left_them_whole(
    pair: Pair, tmp_path: Path
) -> None:
    made = casync_stores.pack(pair.new, tmp_path / "store", casync_stores.Options())
    medium = MemoryMedium()

    def spool() -> Spool:
        return Spool(made.recipe, casync_stores.source(made.header, tmp_path / "store"), medium)

    first = spool()
    units = list(range(6))
    assert first.bring(units) > 0
    assert spool().bring(units) == 0
    _, second, *_, last = sorted(first._here.values())
    del medium.content[-1:]  # the last one lost its end,
    medium.content[second.offset + second.length // 2] ^= 1  # and the second one a page
    assert spool().bring(units) == second.length + last.length
    later = spool()
    assert later.bring(units) == 0
    places = [later._decoder.range_of(unit) for unit in units]
    source = casync_stores.source(made.header, tmp_path / "store")
    wanted = {position: bytes(data) for position, data in source.fetch(places)}  # they come in any order
    assert {position: bytes(data) for position, data in later.fetch(places)} == wanted
