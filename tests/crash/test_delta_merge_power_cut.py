# SPDX-License-Identifier: Apache-2.0
"""A power cut at any instant of the merge of a real delta, until nothing of it is left; also of bases that change in
size."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest

from regraft.build import android_cow as cow_maker
from regraft.build import dm_update as diff_maker
from regraft.engine.delta_merge import DeltaMerge
from regraft.engine.state import State
from regraft.formats.sidecar import Sidecar
from regraft.limits import DEFAULT
from regraft.testing.crash import World
from regraft.testing.cuts import Rules, survey
from regraft.testing.memory import MemoryMedium

BLOCK = 4096
SMALL = replace(DEFAULT, merge_batch=4 * BLOCK, batch=2 * BLOCK)
#: Blocks of the new image more than of the old one.
GROWTH = {"equal": 0, "longer": 2, "shorter": -2}


@dataclass(frozen=True)
class Update:
    old: bytes
    new: bytes
    delta: bytes
    sidecar: Sidecar


def make(kind: str, growth: int) -> Update:
    """Swapped, rotated, changed and new blocks."""
    chance = random.Random(growth)
    old = [chance.randbytes(BLOCK) for _ in range(14)]
    new = [old[1], old[0], *old[3:6], old[2], old[6][:-1] + b"x", chance.randbytes(BLOCK), bytes(BLOCK), *old[9:]]
    new = new[:growth] if growth < 0 else new + [chance.randbytes(BLOCK) for _ in range(growth)]
    before, after, out = b"".join(old), b"".join(new), MemoryMedium()
    if kind == "cow":
        made: cow_maker.Made | diff_maker.Made = cow_maker.make(
            MemoryMedium(before), MemoryMedium(after), out, cow_maker.Options(compression="none")
        )
    else:
        made = diff_maker.make(MemoryMedium(before), MemoryMedium(after), out, diff_maker.Options("none"))
    return Update(before, after, bytes(out.content), made.sidecar)


@pytest.mark.parametrize("growth", GROWTH)
@pytest.mark.parametrize("kind", ["dm-update", "cow"])
@pytest.mark.parametrize("device", [False, True])
def test_the_same_call_ends_with_the_new_image_and_nothing_left(kind: str, growth: str, device: bool) -> None:
    update = make(kind, GROWTH[growth])

    def run(target, directory) -> None:  # type: ignore[no-untyped-def]
        delta = MemoryMedium(update.delta, name="delta")
        work = DeltaMerge(
            delta, target, State(directory, "slot"), update.sidecar, window=4 * BLOCK, limits=SMALL
        )  # fmt: skip
        assert work.run()
        work.close()
        again = DeltaMerge(delta, target, State(directory, "slot"), update.sidecar, window=4 * BLOCK, limits=SMALL)
        assert again.run()
        again.close()
        assert directory.names() == []

    def check(world: World) -> None:
        content = bytes(world.target.content)
        assert content[: len(update.new)] == update.new
        assert device or len(content) == len(update.new)

    room = max(len(update.new) - len(update.old), 0) if device else 0
    base = MemoryMedium(update.old + bytes(room), name="slot", device=device)
    report = survey(World(base), run, check, rules=Rules(seed=1), again=2, most=1500)
    assert report.states > 30
