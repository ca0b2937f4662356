# SPDX-License-Identifier: Apache-2.0
"""The fuzz targets of this corner, over mutated seeds: a small, repeatable part of what the fuzzer does."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

FUZZ = str(Path(__file__).parents[2] / "fuzz")
ROUNDS = 1500


def load(name: str) -> ModuleType:
    sys.path.insert(0, FUZZ)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(FUZZ)


def mutate(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        start = dice.randrange(len(changed) + 1)
        kind = dice.randrange(5)
        if kind == 0 and start < len(changed):
            changed[start] ^= 1 << dice.randrange(8)
        elif kind == 1 and start < len(changed):
            changed[start] = dice.choice(b"\x00\xff\x7f\x80\x30\x31Ff0")
        elif kind == 2:
            del changed[start : start + dice.randint(1, 40)]
        elif kind == 3:
            changed[start:start] = changed[start : start + dice.randint(1, 40)]
        else:
            changed[start:start] = dice.randbytes(dice.randint(1, 8))
    return bytes(changed)


@pytest.mark.parametrize("name", ["fuzz_cpio", "fuzz_cms", "fuzz_bundle"])
def test_nothing_but_our_errors_comes_out(name: str) -> None:
    module = load(name)
    seeds = module.seeds()
    for seed in seeds:
        module.target(seed)
    dice = random.Random(20261120)
    for _ in range(ROUNDS):
        module.target(mutate(dice.choice(seeds), dice))


def test_the_seeds_are_good_where_they_should_be() -> None:
    module = load("fuzz_cms")
    assert module.verify_detached(module.SIGNATURE, module.CONTENT, module.TRUST, at=module.AT).name == "Fuzz signer"
    module = load("fuzz_bundle")
    import io

    reader = module.read_bundle(io.BytesIO(module.seeds()[0]), module.POLICY)
    assert len(list(reader.members())) == 3
