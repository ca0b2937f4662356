# SPDX-License-Identifier: Apache-2.0
"""The parts of the demo that decide something: the images it builds, and the pictures it draws."""

from __future__ import annotations

import importlib
import json
import random
import sys
import tarfile
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

DEMO = Path(__file__).resolve().parents[2] / "demo"


def part(name: str) -> ModuleType:
    if str(DEMO) not in sys.path:
        sys.path.append(str(DEMO))
    return importlib.import_module(name)


@st.composite
def runs(draw: st.DrawFn) -> list[list[int]]:
    lengths = draw(st.lists(st.integers(1, 50), min_size=1, max_size=30))
    found, at = [], 0
    for length in lengths:
        found.append([at, at + length, draw(st.integers(1, 4))])
        at += length
    return found


@given(runs(), st.integers(1, 40))
def test_a_cell_shows_the_origin_of_most_of_its_bytes(image: list[list[int]], count: int) -> None:
    origins = [origin for start, end, origin in image for _ in range(start, end)]
    found = part("picture").cells(image, len(origins), count)
    assert len(found) == count
    for cell, origin in enumerate(found):
        start = len(origins) * cell // count
        within = origins[start : max(len(origins) * (cell + 1) // count, start + 1)]
        assert origin == max(set(within), key=lambda each: (within.count(each), each))


@given(st.lists(st.integers(1, 4)))
def test_equal_cells_are_joined_and_none_is_lost(row: list[int]) -> None:
    joined = part("picture").joined(row)
    assert [origin for _, count, origin in joined for _ in range(count)] == row
    assert all(left[2] != right[2] for left, right in pairwise(joined))


def test_the_fields_are_those_of_the_command() -> None:
    from regraft.engine.progress import Origin

    numbers = {origin.number: origin.name for origin in part("picture").ORIGINS}
    assert numbers == {
        Origin.FETCHED: "network",
        Origin.SEED: "old slot",
        Origin.ZERO: "zeros",
        Origin.IN_PLACE: "in place",
    }


def results(story: str = "two images") -> Any:
    entry = {"wire": 300, "from_network": 500, "from_seeds": 300, "zeros": 200, "in_place": 0}
    entry["origins"] = [[0, 500, 4], [500, 800, 3], [800, 1000, 2]]  # type: ignore[assignment]
    second = entry | {"in_place": 600, "origins": [[0, 600, 1], [600, 1000, 4]]}
    module = part("results")
    return module.Results(
        story=story, note="", image=1000, artifact=700, bundle=10, chunks=12, pack_seconds=0.1,
        forecast={"transfer": 290, "seconds": 0.2}, install=entry, install_seconds=0.3, memory=0, again_wire=0,
        again_seconds=0.1, killed=module.Killed(100, 210, second), kernels="native",
    )  # fmt: skip


def test_the_picture_is_whole_xml_whatever_the_words() -> None:
    root = ET.fromstring(part("svg").draw(results('<images> & "quotes"')))
    words = [element.text for element in root.iter() if element.text]
    assert '<images> & "quotes", 1.0 kB' in words
    assert "310 B" in words, "the bundle counts as moved, too"
    assert "100 B + 210 B" in words
    classes = {element.get("class") for element in root.iter()}
    assert {"o1", "o2", "o3", "o4"} <= classes


def test_the_picture_refers_to_nothing_outside() -> None:
    assert part("svg").draw(results()).count("http") == 1, "the name of SVG's namespace, and nothing else"


def test_without_mke2fs_the_files_go_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = part("imagepair")
    monkeypatch.setattr(images.shutil, "which", lambda *_args, **_kwargs: None)
    tree = tmp_path / "tree"
    (tree / "b").mkdir(parents=True)
    (tree / "a").write_bytes(b"1")
    (tree / "b" / "c").write_bytes(b"22")
    image = images._image(tree, tmp_path / "image", 1 << 20)
    assert image.suffix == ".tar"
    with tarfile.open(image) as archive:
        assert archive.getnames() == ["a", "b/c"]
    again = images._image(tree, tmp_path / "again", 1 << 20)
    assert again.read_bytes() == image.read_bytes()


def test_the_new_release_differs_the_same_way_each_time(tmp_path: Path) -> None:
    images = part("imagepair")
    trees = []
    for name in ("one", "two"):
        tree = tmp_path / name
        tree.mkdir()
        for number in range(200):
            (tree / f"{number:03}").write_bytes(random.Random(number).randbytes(300))
        before = {path.name: path.read_bytes() for path in tree.iterdir()}
        images._change(tree)
        trees.append({path.name: path.read_bytes() for path in tree.iterdir()})
    assert trees[0] == trees[1]
    changed = [name for name in before if trees[0].get(name) != before[name]]
    assert changed
    assert len(changed) < 40
    assert set(trees[0]) - set(before), "something is added"
    assert set(before) - set(trees[0]), "something is removed"


def test_a_pair_that_is_not_as_its_sums_say_is_refused(tmp_path: Path) -> None:
    images = part("imagepair")
    for side in ("old", "new"):
        (tmp_path / f"machine-{side}.tar").write_bytes(side.encode())
    sums = "".join(f"{images._digest(path)}  {path.name}\n" for path in sorted(tmp_path.glob("*.tar")))
    (tmp_path / images.SUMS).write_text(sums)
    assert images.obtain(tmp_path, print).old.name == "machine-old.tar"
    (tmp_path / "machine-old.tar").write_bytes(b"olt")
    with pytest.raises(images.ImagesError, match=r"machine-old\.tar"):
        images.obtain(tmp_path, print)


def test_commands_are_shown_as_one_would_type_them(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = part("terminal")
    teller = terminal.Teller(terminal.Console(width=96, highlight=False), Path("/x/out"))
    words = ["swu", "build", *(f"--option-{number}" for number in range(12)), "--device", "/x/out/slot-b.img"]
    teller.command(*words)
    shown = capsys.readouterr().out
    assert "$PWD/slot-b.img" in shown
    joined = shown.replace("\\\n", " ").split()
    assert joined == ["$", "regraft", *words[:-1], "$PWD/slot-b.img"]
    assert json.dumps(shown).isascii()
