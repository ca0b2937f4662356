# SPDX-License-Identifier: Apache-2.0
"""The order of a merge: native against twin, and both against what an order means, byte by byte."""

from __future__ import annotations

import random
from array import array
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import native_kernels

from regraft.kernels import NEVER, _twins

STAY, WRITE, READ = 0, 1, 2
EDGES = 1 << 30
Columns = tuple[array, array, bytes, array]  # type: ignore[type-arg]


@st.composite
def columns(draw: st.DrawFn) -> Columns:
    """Rows of any lengths that read anywhere, or blocks that read whole blocks, or blocks that read across two."""
    count = draw(st.integers(0, 40))
    kind = draw(st.sampled_from(["rows", "blocks", "permutation", "unaligned"]))
    lengths = draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)) if kind == "rows" else [4] * count
    bounds = array("Q", accumulate(lengths, initial=0))
    if kind == "permutation":
        at = [4 * block for block in draw(st.permutations(range(count)))]
    elif kind == "blocks":
        at = [4 * draw(st.integers(0, count + 2)) for _ in range(count)]
    else:
        at = [draw(st.integers(0, bounds[-1] + 5)) for _ in range(count)]
    role = bytes(draw(st.lists(st.sampled_from([READ, READ, READ, WRITE, STAY]), min_size=count, max_size=count)))
    costs = st.one_of(st.integers(1, 30), st.just(NEVER)) if draw(st.booleans()) else st.integers(1, 30)
    cost = array("I", draw(st.lists(costs, min_size=count, max_size=count)))
    return bounds, array("Q", at), role, cost


def replayed(found: Columns, order: array[int], starts: array[int], journaled: bytes, role: bytes) -> bool:
    """Whether each read, byte by byte, sees the base. Written without a look at the kernels."""
    bounds, at, _, _ = found
    size = bounds[-1]
    fresh = [True] * size
    done = []
    for batch, whole in enumerate(journaled):
        rows = order[starts[batch] : starts[batch + 1]]
        reads = [byte for r in rows if role[r] == READ for byte in range(at[r], at[r] + bounds[r + 1] - bounds[r])]
        writes = {byte for row in rows for byte in range(bounds[row], bounds[row + 1])}
        if any(byte < size and not fresh[byte] for byte in reads) or (not whole and writes & set(reads)):
            return False
        for byte in writes:
            fresh[byte] = False
        done += list(rows)
    return sorted(done) == [row for row in range(len(role)) if role[row] != STAY]


@settings(max_examples=400)
@given(found=columns(), window=st.integers(0, 60), batch=st.integers(1, 40), worth=st.integers(0, 40))
def test_every_read_sees_the_base(found: Columns, window: int, batch: int, worth: int) -> None:
    bounds, at, role, cost = found
    sizes = (window, batch, worth)
    order, starts, journaled, converted, needed = _twins.merge_order(*found, sizes, EDGES)
    if needed:
        assert needed > window
        assert NEVER in cost
        again = _twins.merge_order(*found, (needed, batch, worth), EDGES)
        assert again[-1] == 0, "so large a window is enough"
        return
    after = bytearray(role)
    for row in converted:
        assert role[row] == READ
        assert cost[row] != NEVER
        after[row] = WRITE
    assert replayed(found, order, starts, journaled, after)
    assert _twins.merge_check(bounds, at, after, (order, starts, journaled), window) == -1
    for batch_number, whole in enumerate(journaled):
        rows = order[starts[batch_number] : starts[batch_number + 1]]
        size = sum(bounds[row + 1] - bounds[row] for row in rows)
        assert size <= window if whole else len(rows) == 1 or size <= batch
        assert list(rows) == sorted(rows)


@settings(max_examples=400)
@given(found=columns(), window=st.integers(0, 60), batch=st.integers(1, 40), worth=st.integers(0, 40))
def test_native_and_twin_agree(found: Columns, window: int, batch: int, worth: int) -> None:
    sizes = (window, batch, worth)
    assert native_kernels().merge_order(*found, sizes, EDGES) == _twins.merge_order(*found, sizes, EDGES)


@given(found=columns(), data=st.data(), window=st.integers(0, 60))
def test_native_and_twin_find_the_same_fault(found: Columns, data: st.DataObject, window: int) -> None:
    bounds, at, role, _ = found
    order = array("I", data.draw(st.lists(st.integers(0, len(role) + 1), max_size=len(role) + 2)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=6)))
    starts = array("I", [0, *cuts, len(order)])
    journaled = bytes(data.draw(st.lists(st.integers(0, 1), min_size=len(cuts) + 1, max_size=len(cuts) + 1)))
    position = _twins.merge_check(bounds, at, role, (order, starts, journaled), window)
    assert native_kernels().merge_check(bounds, at, role, (order, starts, journaled), window) == position
    if position < 0:
        assert replayed(found, order, starts, journaled, role)


def cycles_of(source: list[int]) -> list[list[int]]:
    """The cycles of a map from blocks to blocks, a block that reads itself apart."""
    seen: set[int] = set()
    cycles = []
    for start in range(len(source)):
        path: list[int] = []
        block = start
        while block not in seen and block < len(source):
            seen.add(block)
            path.append(block)
            block = source[block]
        if block in path and source[block] != block:
            cycles.append(path[path.index(block) :])
    return cycles


@settings(max_examples=200)
@given(source=st.lists(st.integers(0, 30), min_size=1, max_size=30), data=st.data(), window=st.integers(0, 12))
def test_whole_blocks_are_converted_at_the_least_cost(source: list[int], data: st.DataObject, window: int) -> None:
    count = len(source)
    cost = array("I", data.draw(st.lists(st.integers(1, 50), min_size=count, max_size=count)))
    role = bytes(STAY if source[block] == block else READ for block in range(count))
    bounds, at = array("Q", range(count + 1)), array("Q", source)
    converted = _twins.merge_order(bounds, at, role, cost, (window, 8, 4), EDGES)[3]
    best = sum(min(cost[block] for block in cycle) for cycle in cycles_of(source) if len(cycle) > window)
    assert sum(cost[row] for row in converted) == best


@pytest.mark.parametrize("seed", range(30))
def test_unaligned_blocks_cost_little_more_than_the_least(seed: int) -> None:
    """Against every choice there is, on graphs of few nodes."""
    chance = random.Random(seed)
    count = 9
    bounds = array("Q", range(0, 4 * count + 1, 4))
    at = array("Q", [chance.randrange(4 * count - 3) for _ in range(count)])
    cost = array("I", [chance.randint(1, 9) for _ in range(count)])
    role = bytes([READ]) * count
    found = sum(cost[row] for row in _twins.merge_order(bounds, at, role, cost, (4, 8, 4), EDGES)[3])

    def works(mask: int) -> bool:
        after = bytes(WRITE if mask >> row & 1 else READ for row in range(count))
        never = array("I", [NEVER] * count)
        return _twins.merge_order(bounds, at, after, never, (4, 8, 4), EDGES)[-1] == 0

    best = min(sum(cost[row] for row in range(count) if mask >> row & 1) for mask in range(1 << count) if works(mask))
    assert found <= 1.5 * best


SCENARIOS = {
    "shift": ([*range(1, 5000), 4999], 0),
    "swaps": ([block ^ 1 for block in range(5000)], 0),
    "rotations": ([block // 100 * 100 + (block + 1) % 100 for block in range(5000)], 0),
    "one long rotation": ([(block + 1) % 5000 for block in range(5000)], 1),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_known_cases_are_converted_as_little_as_can_be(name: str) -> None:
    source, least = SCENARIOS[name]
    count = len(source)
    bounds, at = array("Q", range(0, 4096 * count + 1, 4096)), array("Q", [4096 * block for block in source])
    role = bytes(STAY if source[block] == block else READ for block in range(count))
    cost = array("I", [1]) * count
    order = native_kernels().merge_order(bounds, at, role, cost, (510 * 4096, 8 << 20, 1 << 19), EDGES)
    assert len(order[3]) == least
    if least == 0:
        assert native_kernels().merge_check(bounds, at, role, order[:3], 510 * 4096) == -1


@pytest.mark.parametrize("implementation", ["twin", "native"])
def test_columns_that_do_not_fit_are_refused(implementation: str) -> None:
    kernels = _twins if implementation == "twin" else native_kernels()
    good = (array("Q", [0, 4, 8]), array("Q", [4, 0]), bytes([READ, READ]), array("I", [1, 1]))
    for position, bad in (
        (0, array("Q", [0, 4])),
        (0, array("Q", [0, 4, 4])),
        (1, array("Q", [0])),
        (2, bytes([READ, 3])),
        (3, array("I", [1])),
    ):
        arguments = [*good]
        arguments[position] = bad  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="belong together"):
            kernels.merge_order(*arguments, (8, 8, 8), EDGES)
    with pytest.raises(OverflowError):
        kernels.merge_order(*good, (8, 8, 8), 1)
    for starts, journaled in ((array("I", [0, 1]), b"\0"), (array("I", [0, 2]), b""), (array("I", [1, 2]), b"\0")):
        with pytest.raises(ValueError, match="belong together"):
            kernels.merge_check(*good[:3], (array("I", [0, 1]), starts, journaled), 8)
