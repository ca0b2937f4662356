# SPDX-License-Identifier: Apache-2.0
"""Every fuzz target takes all of its seeds, its corpus, and their truncations, with nothing escaping."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
NAMES = sorted(path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.py"))


@pytest.fixture
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FUZZ))
    return importlib.import_module(f"fuzz_{request.param}")


@pytest.mark.parametrize("module", NAMES, indirect=True)
def test_seeds_pass(module: ModuleType) -> None:
    seeds = module.seeds()
    assert seeds, "a target has at least one seed"
    corpus = FUZZ / "corpus" / module.__name__.removeprefix("fuzz_")
    for data in [*seeds, *(path.read_bytes() for path in sorted(corpus.glob("*")))]:
        module.target(data)
        for end in {0, 1, len(data) // 2, max(len(data) - 1, 0)}:
            module.target(data[:end])


def test_there_are_targets() -> None:
    assert "kernels" in NAMES
