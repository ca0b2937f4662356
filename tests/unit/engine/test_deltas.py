# SPDX-License-Identifier: Apache-2.0
"""Opening deltas: those that released versions made, known by their first bytes."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from deltas import Update, applied, base_of, merged, read_dm_update, streamed
from merges import Job

from regraft.engine.blobs import LocalBlob
from regraft.engine.deltas import find_sidecar, is_delta, open_delta, parse, read_sidecar
from regraft.engine.match import match
from regraft.engine.view import View
from regraft.errors import FormatError, LimitError, MissingError
from regraft.formats import sidecar
from regraft.limits import DEFAULT, Limits
from regraft.testing.crash import MemoryDirectory
from regraft.testing.memory import MemoryMedium

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "golden"))
from make_deltas import COWS, DIFFS, FOLDER, images, make

NAMES = [*DIFFS, *COWS]


def golden(name: str) -> Update:
    beside = sidecar.parse((FOLDER / f"{name}{sidecar.SUFFIX}").read_bytes())
    return Update(*images(), (FOLDER / name).read_bytes(), beside)


@pytest.mark.parametrize("name", NAMES)
def test_golden_deltas_give_their_image(name: str) -> None:
    update = golden(name)
    assert is_delta(update.content[:8])
    assert applied(update) == streamed(update) == update.new
    model = read_dm_update if name in DIFFS else merged
    assert model(update.content, update.old, len(update.new)) == update.new


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("none")])
def test_without_compression_the_same_bytes_are_made_for_ever(name: str) -> None:
    update = golden(name)
    assert make(name) == (update.content, sidecar.build(update.sidecar))


@pytest.mark.parametrize("name", NAMES)
def test_golden_deltas_are_read_at_random(name: str) -> None:
    update = golden(name)
    blob, base = MemoryMedium(update.content), base_of(update.old)
    recipe = open_delta(blob, len(update.old), update.sidecar).recipe
    view = View(match(recipe, [("base", base.index)]), [base.medium], [LocalBlob(blob)], local=[0])
    chance = random.Random(1)
    try:
        for _ in range(100):
            start = chance.randrange(len(update.new))
            data = bytearray(min(chance.randint(1, 3000), len(update.new) - start))
            view.read_into(start, memoryview(data))
            assert data == update.new[start : start + len(data)]
    finally:
        view.close()


@pytest.mark.parametrize("name", NAMES)
def test_golden_deltas_are_merged_into_their_base(name: str) -> None:
    update = golden(name)
    recipe = open_delta(MemoryMedium(update.content), len(update.old), update.sidecar).recipe
    plan = match(recipe, [("base", base_of(update.old).index)])
    job = Job(update.old, update.new, plan, update.content)
    base = job.medium()
    job.merge(base, MemoryDirectory()).run()
    assert base.content[: len(update.new)] == update.new


def test_another_file_is_no_delta() -> None:
    for content in (b"", b"\0ZCK1" + bytes(60), b"update"):
        assert not is_delta(content[:8])
        with pytest.raises(FormatError, match="no delta"):
            parse(MemoryMedium(content))


def test_without_a_sidecar_the_target_is_as_long_as_the_base() -> None:
    update = golden("dm-update-none")
    with pytest.raises(FormatError):  # the new image is longer
        open_delta(MemoryMedium(update.content), len(update.old), None)
    delta = open_delta(MemoryMedium(update.content), len(update.new) + 5, None)
    assert delta.recipe.size == len(update.new) + 5
    assert delta.recipe.base is not None
    assert delta.recipe.base.digest is None


def test_a_sidecar_lies_beside_its_delta_or_where_it_is_said_to(tmp_path: Path) -> None:
    update = golden("cow3-zstd")
    delta, other = tmp_path / "delta", tmp_path / "other"
    assert find_sidecar(str(delta), needed=False) is None
    with pytest.raises(MissingError, match=r"delta\.sidecar"):
        find_sidecar(str(delta))
    with pytest.raises(MissingError, match="other"):
        find_sidecar(str(delta), str(other), needed=False)
    for path in (other, tmp_path / "delta.sidecar"):
        path.write_bytes(sidecar.build(update.sidecar))
    assert find_sidecar(str(delta)) == find_sidecar(str(delta), str(other)) == update.sidecar


def test_a_sidecar_has_a_greatest_size() -> None:
    data = sidecar.build(golden("cow3-zstd").sidecar)
    with pytest.raises(LimitError, match="header_size"):
        read_sidecar(MemoryMedium(data), limits=Limits(header_size=len(data) - 1))
    for limits in (Limits(chunks=3), Limits(image_size=1000)):
        with pytest.raises(LimitError):
            read_sidecar(MemoryMedium(data), limits=limits)
    assert read_sidecar(MemoryMedium(data), limits=DEFAULT)
