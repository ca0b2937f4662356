# SPDX-License-Identifier: Apache-2.0
"""Tables of operations, recipes and indexes."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest
from images import small_recipe

from regraft.model import Algorithm, Blob, Codec, Digest, DigestColumn, Index, Kind, Op, OpTable, Recipe, Units
from regraft.model.table import ZERO


def table(*rows: tuple[int, tuple[Op, ...]]) -> OpTable:
    made = OpTable(None)
    for length, ops in rows:
        made.add(length, None, *ops)
    return made


def test_rows_tile_the_target_and_keep_their_alternatives() -> None:
    copy, data = Op(Kind.COPY, source=3, at=1 << 40), Op(Kind.DATA, unit=70_000, within=9)
    made = table((10, (ZERO,)), (20, (copy, data)))
    assert (len(made), made.size) == (2, 30)
    assert list(made.bounds) == [0, 10, 30]
    assert (made.length(0), made.length(1)) == (10, 20)
    assert list(made.ops(0)) == [ZERO]
    assert list(made.ops(1)) == [copy, data]


@pytest.mark.parametrize(("length", "ops"), [(0, (ZERO,)), (-1, (ZERO,)), (5, ())])
def test_a_row_has_bytes_and_a_way_to_them(length: int, ops: tuple[Op, ...]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        table((length, ops))


def test_all_rows_have_a_digest_or_none_has() -> None:
    with pytest.raises(ValueError, match="digest"):
        OpTable(Algorithm.SHA256).add(5, None, ZERO)
    with pytest.raises(ValueError, match="digest"):
        OpTable(None).add(5, bytes(32), ZERO)


def test_a_million_rows_stay_small() -> None:
    recipe = small_recipe(bytes(range(256)) * 4, 1)
    rows = len(recipe.table)
    columns = [recipe.table.bounds, recipe.table.first, recipe.table.kind, recipe.table.source, recipe.table.at]
    columns += [recipe.table.unit, recipe.table.within, recipe.units.blob, recipe.units.codec, recipe.units.offset]
    columns += [recipe.units.stored, recipe.units.length]
    assert sum(len(column) * column.itemsize for column in columns) <= 51 * rows + 64


def recipe(made: OpTable, algorithm: Algorithm | None = None, **settings: object) -> Recipe:
    units = Units(algorithm)
    units.add(blob=0, codec=0, offset=0, stored=8, length=10, digest=bytes(32) if algorithm else None)
    return replace(Recipe(made, units, (Blob("b"),), (Codec("none"),)), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "op", [Op(Kind.DATA, unit=1), Op(Kind.DATA, unit=0, within=1), Op(Kind.PATCH, unit=0, within=10)]
)
def test_an_operation_outside_of_its_unit_is_found(op: Op) -> None:
    recipe(table((10, (Op(Kind.DATA),)))).check()
    with pytest.raises(ValueError, match="outside"):
        recipe(table((10, (ZERO, op)))).check()


def test_a_unit_outside_of_blobs_and_codecs_is_found() -> None:
    good = recipe(table((10, (ZERO,))))
    with pytest.raises(ValueError, match="not there"):
        replace(good, blobs=()).check()
    with pytest.raises(ValueError, match="not there"):
        replace(good, codecs=()).check()


def test_units_have_digests_or_none_has() -> None:
    with pytest.raises(ValueError, match="stored digest"):
        Units(None).add(blob=0, codec=0, offset=0, stored=1, length=1, digest=bytes(32))
    with pytest.raises(ValueError, match="stored digest"):
        Units(Algorithm.SHA256).add(blob=0, codec=0, offset=0, stored=1, length=1, digest=None)


def test_what_covers_every_byte() -> None:
    data, copy = table((10, (Op(Kind.DATA),))), table((10, (Op(Kind.COPY),)))
    assert recipe(data, Algorithm.SHA256).verifiable()
    assert not recipe(data).verifiable()
    assert not recipe(copy, Algorithm.SHA256).verifiable()
    assert recipe(copy, digest=Digest.of(b"")).verifiable()
    assert recipe(table((10, (ZERO,)))).verifiable()
    assert not recipe(table((10, (ZERO, Op(Kind.DATA))))).verifiable()
    assert small_recipe(b"abc").verifiable()


def test_an_index_tiles_from_zero() -> None:
    digests = DigestColumn(Algorithm.SHA256, bytes(64))
    index = Index(array("Q", [0, 5, 9]), digests, "x")
    assert (len(index), index.size) == (2, 9)
    for bounds in ([0, 5], [1, 5, 9], [0, 5, 9, 10]):
        with pytest.raises(ValueError, match="bound"):
            Index(array("Q", bounds), digests, "x")
