# SPDX-License-Identifier: Apache-2.0
"""The twin of the kernel that orders the rows of a merge. Rows that are written are called nodes here, in target order.

What a node reads is one range of the base, so what is in conflict with it is one run of nodes, `low` to `high`: the
edges of the graph, never stored. Tarjan's components are the sets of nodes that no order can serve; those that fit a
window are left whole, of the others some nodes are converted (`_feedback`). The rest is levels: the longest path to a
node, so that no node of a level reads what another one writes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise

from regraft.kernels._feedback import NEVER, conversions

#: Roles of a row.
STAY, WRITE, READ = 0, 1, 2


def merge_order(
    bounds: array[int],
    at: array[int],
    role: bytes,
    cost: array[int],
    sizes: tuple[int, int, int],
    edges: int,
) -> tuple[array[int], array[int], bytes, array[int], int]:
    window, batch, worth = sizes
    _check_columns(bounds, at, role)
    if len(cost) != len(role):
        raise ValueError("the columns do not belong together")
    graph = Graph(bounds, at, role, edges)
    converted = [
        node
        for node, row in enumerate(graph.rows)  # reads what it writes, and fits no window
        if graph.cyclic([node]) and graph.size(node) > window and cost[row] != NEVER
    ]
    for node in converted:
        graph.convert(node)
    for members in components(graph):
        if graph.together(members) > window and graph.cyclic(members):
            converted += conversions(graph, members, cost, window)
    converted.sort()
    for node in converted:
        graph.convert(node)
    parts = list(components(graph))
    needed = max((graph.together(part) for part in parts if graph.cyclic(part)), default=0)
    if needed > window:
        return array("I"), array("I", [0]), b"", array("I"), needed
    batches = _Batches(graph, window, batch)
    for level in _levels(graph, parts):
        _emit_level(batches, level, worth)
    batches.flush()
    batches.direct([node for node in range(len(graph.rows)) if graph.low[node] == graph.high[node]])
    rows = graph.rows
    return batches.order, batches.starts, bytes(batches.journaled), array("I", [rows[node] for node in converted]), 0


def _check_columns(bounds: array[int], at: array[int], role: bytes) -> None:
    fits = len(bounds) == len(at) + 1 == len(role) + 1 and len(role) < 1 << 31 and max(role, default=0) <= READ
    if not fits or any(a >= b for a, b in pairwise(bounds)):
        raise ValueError("the columns do not belong together")


class Graph:
    """rows: the row of each node. low, high: node v must come before the nodes low[v] to high[v] - 1."""

    def __init__(self, bounds: array[int], at: array[int], role: bytes, edges: int) -> None:
        self._bounds = bounds
        self.rows = array("I", [row for row in range(len(role)) if role[row] != STAY])
        before = array("I", [0])  # nodes among the first rows
        for each in role:
            before.append(before[-1] + (each != STAY))
        self.low, self.high = array("I"), array("I")
        for row in self.rows:
            first = last = 0
            if role[row] == READ and at[row] < bounds[-1]:
                end = min(at[row] + bounds[row + 1] - bounds[row], bounds[-1])
                first, last = before[bisect_right(bounds, at[row]) - 1], before[bisect_left(bounds, end)]
            self.low.append(first if first < last else 0)
            self.high.append(last if first < last else 0)
            edges -= last - first
            if edges < 0:
                raise OverflowError("too many conflicts")

    def size(self, node: int) -> int:
        row = self.rows[node]
        return self._bounds[row + 1] - self._bounds[row]

    def together(self, nodes: list[int]) -> int:
        return sum(map(self.size, nodes))

    def convert(self, node: int) -> None:
        self.low[node] = self.high[node] = 0

    def cyclic(self, part: list[int]) -> bool:
        """Whether a component cannot be served in any order: more than one node, or one that reads what it writes."""
        return len(part) > 1 or self.low[part[0]] <= part[0] < self.high[part[0]]


def components(graph: Graph) -> Iterator[list[int]]:
    """Tarjan's strongly connected components, each in ascending order, those behind an edge first."""
    count = len(graph.rows)
    index, least = array("I", [0]) * count, array("I", [0]) * count  # 0: not visited
    done = bytearray(count)
    stack: list[int] = []
    clock = 0
    for root in range(count):
        if index[root]:
            continue
        frames = [[root, graph.low[root]]]
        clock += 1
        index[root] = least[root] = clock
        stack.append(root)
        while frames:
            node, following = frames[-1]
            if following < graph.high[node]:
                frames[-1][1] += 1
                if not index[following]:
                    clock += 1
                    index[following] = least[following] = clock
                    stack.append(following)
                    frames.append([following, graph.low[following]])
                elif not done[following]:
                    least[node] = min(least[node], index[following])
                continue
            frames.pop()
            if frames:
                parent = frames[-1][0]
                least[parent] = min(least[parent], least[node])
            if least[node] == index[node]:
                part: list[int] = []
                while not part or part[-1] != node:
                    part.append(stack.pop())
                    done[part[-1]] = 1
                yield sorted(part)


def _levels(graph: Graph, parts: list[list[int]]) -> list[list[list[int]]]:
    """The components that read, by level, in ascending order of their first nodes."""
    level = array("I", [0]) * len(graph.rows)
    found: list[list[list[int]]] = []
    for part in reversed(parts):  # now an edge leads to what comes later
        if graph.low[part[0]] == graph.high[part[0]]:
            continue
        here = max(level[node] for node in part)
        for node in part:
            for other in range(graph.low[node], graph.high[node]):
                level[other] = max(level[other], here + 1)
        found += [[] for _ in range(here + 1 - len(found))]
        found[here].append(part)
    for parts_of_level in found:
        parts_of_level.sort()
    return found


def _emit_level(batches: _Batches, level: list[list[int]], worth: int) -> None:
    """Nodes by themselves are written at once if they are enough bytes to be worth two flushes."""
    alone = [part[0] for part in level if not batches.graph.cyclic(part)]
    if batches.graph.together(alone) >= worth:
        batches.flush()
        batches.direct(alone)
    else:
        for node in alone:
            batches.add([node])
    for part in level:
        if batches.graph.cyclic(part):
            batches.add(part)


class _Batches:
    """The batches so far, and the nodes that gather for the next window."""

    def __init__(self, graph: Graph, window: int, batch: int) -> None:
        self.graph, self._window, self._batch = graph, window, batch
        self.order, self.starts, self.journaled = array("I"), array("I", [0]), bytearray()
        self._gathered: list[int] = []
        self._bytes = 0

    def add(self, part: list[int]) -> None:
        size = self.graph.together(part)
        if self._bytes + size > self._window:
            self.flush()
        self._gathered += part
        self._bytes += size

    def flush(self) -> None:
        nodes, self._gathered, self._bytes = sorted(self._gathered), [], 0
        if self._in_conflict(nodes):
            self._emit(nodes, True)
        else:
            self.direct(nodes)

    def _in_conflict(self, nodes: list[int]) -> bool:
        low, high = self.graph.low, self.graph.high
        return any(bisect_left(nodes, low[node]) < bisect_left(nodes, high[node]) for node in nodes)

    def direct(self, nodes: list[int]) -> None:
        """Nodes of which none reads what one of them writes, in pieces."""
        piece: list[int] = []
        size = 0
        for node in nodes:
            more = self.graph.size(node)
            if piece and size + more > self._batch:
                self._emit(piece, False)
                piece, size = [], 0
            piece.append(node)
            size += more
        if piece:
            self._emit(piece, False)

    def _emit(self, nodes: list[int], journaled: bool) -> None:
        self.order.extend(self.graph.rows[node] for node in nodes)
        self.starts.append(len(self.order))
        self.journaled.append(journaled)


def merge_check(
    bounds: array[int],
    at: array[int],
    role: bytes,
    columns: tuple[array[int], array[int], bytes],
    window: int,
) -> int:
    order, starts, journaled = columns
    _check_columns(bounds, at, role)
    count = len(role)
    if len(starts) != len(journaled) + 1 or starts[0] or starts[-1] != len(order):
        raise ValueError("the columns do not belong together")
    if any(a > b for a, b in pairwise(starts)):
        raise ValueError("the columns do not belong together")
    written = bytearray(count)
    for number, whole in enumerate(journaled):
        positions = range(starts[number], starts[number + 1])
        total = 0
        for read in (True, False) if whole else (False, True):  # a window reads everything before it writes anything
            for position in positions:
                row = order[position]
                if row >= count or role[row] == STAY:
                    return position
                if not read:
                    if written[row]:
                        return position
                    written[row] = 1
                elif role[row] == READ and at[row] < bounds[-1]:
                    end = min(at[row] + bounds[row + 1] - bounds[row], bounds[-1])
                    if written.find(1, bisect_right(bounds, at[row]) - 1, bisect_left(bounds, end)) >= 0:
                        return position
                total += bounds[row + 1] - bounds[row] if read else 0
        if whole and total > window:
            return positions.start
    if any(written[row] != (role[row] != STAY) for row in range(count)):
        return len(order)
    return -1
