# SPDX-License-Identifier: Apache-2.0
"""The fuzz targets of bundles over mutated seeds: a small, repeatable part of what the fuzzer does."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

ROUNDS = 1500


@pytest.fixture(autouse=True)
def fuzz_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "fuzz"))


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize("name", ["fuzz_cpio", "fuzz_cms", "fuzz_bundle"])
def test_nothing_but_our_errors_comes_out(name: str) -> None:
    module, mutate = load(name), load("mutate").mutate
    seeds, dice = module.seeds(), Random(20261120)
    for _ in range(ROUNDS):
        module.target(mutate(dice.choice(seeds), seeds, dice))


def test_the_seeds_are_good_where_they_should_be() -> None:
    module = load("fuzz_cms")
    assert module.verify_detached(module.SIGNATURE, module.CONTENT, module.TRUST, at=module.AT).name == "Fuzz signer"
    module = load("fuzz_bundle")
    reader = module.read_bundle(io.BytesIO(module.seeds()[0]), module.POLICY)
    assert len(list(reader.members())) == 3
