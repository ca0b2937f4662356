# SPDX-License-Identifier: Apache-2.0
"""Damaged descriptions: truncated at every byte, every bit flipped. A result or a typed error, nothing else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"description_{name}", FUZZ / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["fuzz_libconfig", "fuzz_description"])
def test_every_truncation_ends_in_a_result_or_a_typed_error(name: str) -> None:
    module = load(name)
    for seed in module.seeds():
        for length in range(len(seed) + 1):
            module.target(seed[:length])


@pytest.mark.parametrize("name", ["fuzz_libconfig", "fuzz_description"])
def test_every_flipped_bit_ends_in_a_result_or_a_typed_error(name: str) -> None:
    module = load(name)
    for seed in module.seeds():
        for bit in range(len(seed) * 8):
            damaged = bytearray(seed)
            damaged[bit // 8] ^= 1 << bit % 8
            module.target(bytes(damaged))
