# SPDX-License-Identifier: Apache-2.0
"""Which nodes of a strongly connected component are converted, so that what is left of it fits a window.

A converted node no longer reads. To find the least cost is the weighted feedback vertex set problem. One cycle, which
is all that whole blocks can form, is solved by its cheapest node. For anything else: the reductions of Levy and Low (no
way in or out: not on a cycle; one neighbour that costs no more stands for the node), then the node that costs least for
the ways that lead through it, until no cycle is left. At last every choice, the dearest first, is undone if the
components then still fit the window.
"""

from __future__ import annotations

from array import array
from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regraft.kernels._ordering import Graph

#: Cost of a node that cannot be converted.
NEVER = 0xFFFF_FFFF

#: Steps that the search for better choices may take, per node and edge. Real updates need some ten.
_PATIENCE = 64


def conversions(graph: Graph, members: list[int], cost: array[int], window: int) -> list[int]:
    """Nodes of `members` (ascending) to convert. Where none can be, what remains does not fit."""
    costs = [cost[graph.rows[node]] for node in members]
    position = {node: number for number, node in enumerate(members)}
    ways = [
        [position[other] for other in range(graph.low[node], graph.high[node]) if other in position and other != node]
        for node in members
    ]
    if len(members) == 1 or all(len(way) == 1 for way in ways):
        best = min(range(len(members)), key=lambda number: (costs[number], number))
        return [] if costs[best] == NEVER else [members[best]]
    back: list[list[int]] = [[] for _ in members]
    for number, way in enumerate(ways):
        for other in way:
            back[other].append(number)
    patience = _PATIENCE * (len(members) + sum(map(len, ways)))
    chosen = _cut(ways, back, costs, patience)
    sizes = [graph.size(node) for node in members]
    kept = _without_needless(ways, back, costs, chosen, sizes, window, patience)
    return [members[number] for number in kept if costs[number] != NEVER]


def _cut(ways: list[list[int]], back: list[list[int]], costs: list[int], patience: int) -> list[int]:
    """Nodes without which there is no cycle."""
    after, before = [set(way) for way in ways], [set(way) for way in back]
    alive, waiting = bytearray(b"\1") * len(ways), bytearray(b"\1") * len(ways)
    queue = deque(range(len(ways)))
    heap: list[tuple[float, int]] = []
    chosen: list[int] = []

    def touch(node: int) -> None:
        if alive[node] and not waiting[node]:
            waiting[node] = 1
            queue.append(node)

    def remove(node: int) -> None:
        alive[node] = 0
        for other in sorted(after[node]):
            before[other].discard(node)
            touch(other)
        for other in sorted(before[node]):
            after[other].discard(node)
            touch(other)

    def bypass(node: int) -> bool:
        nonlocal patience
        if patience <= 0:
            return False
        if len(before[node]) == 1:
            (heir,) = before[node]
            if costs[node] >= costs[heir]:
                moved = sorted(after[node])
                remove(node)
                after[heir].update(moved)
                for other in moved:
                    before[other].add(heir)
                patience -= len(moved)
                touch(heir)
                return True
        if len(after[node]) == 1:
            (heir,) = after[node]
            if costs[node] >= costs[heir]:
                moved = sorted(before[node])
                remove(node)
                before[heir].update(moved)
                for other in moved:
                    after[other].add(heir)
                patience -= len(moved)
                touch(heir)
                return True
        return False

    def weight(node: int) -> float:
        price = float("inf") if costs[node] == NEVER else float(costs[node])
        return price / float(len(after[node]) * len(before[node]))

    while True:
        while queue:
            node = queue.popleft()
            waiting[node] = 0
            if not alive[node]:
                continue
            if node in after[node]:
                chosen.append(node)
                remove(node)
            elif not after[node] or not before[node]:
                remove(node)
            elif not bypass(node):
                heappush(heap, (weight(node), node))
        while heap:
            key, node = heappop(heap)
            if alive[node] and key == weight(node):
                chosen.append(node)
                remove(node)
                break
        else:
            return chosen


def _without_needless(
    ways: list[list[int]],
    back: list[list[int]],
    costs: list[int],
    chosen: list[int],
    sizes: list[int],
    window: int,
    patience: int,
) -> list[int]:
    """The choices that cannot be undone one by one, the dearest first."""
    converted = bytearray(len(ways))
    for node in chosen:
        converted[node] = 1
    seen = array("I", [0]) * len(ways)  # 2 r - 1: reached in round r, 2 r: and leads back
    for number, node in enumerate(sorted(chosen, key=lambda node: (-costs[node], node)), start=1):
        converted[node] = 0
        ahead, stack = 2 * number - 1, [node]
        seen[node] = ahead
        while stack and patience > 0:
            here = stack.pop()
            if converted[here]:
                continue
            patience -= len(ways[here])
            for other in ways[here]:
                if seen[other] != ahead:
                    seen[other] = ahead
                    stack.append(other)
        total = sizes[node]
        seen[node], stack = ahead + 1, [node]
        while stack and patience > 0 and total <= window:
            here = stack.pop()
            patience -= len(back[here])
            for other in back[here]:
                if seen[other] == ahead and not converted[other]:
                    seen[other] = ahead + 1
                    total += sizes[other]
                    stack.append(other)
        if patience <= 0 or total > window:
            converted[node] = 1
    return [node for node in range(len(ways)) if converted[node]]
