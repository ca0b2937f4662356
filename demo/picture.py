# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of an image came from, reduced to as many cells as there is room for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: [start, end, origin] in bytes, ascending and without gaps: what `regraft install --json` calls `origins`.
Runs = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Origin:
    """One of the places that bytes come from. `light`, `dark`: its colour on a light and on a dark ground."""

    number: int
    field: str
    name: str
    letter: str
    light: str
    dark: str


#: The numbers and fields are those of `regraft install --json`. Told apart by lightness, too, for those who see no hue.
ORIGINS = (
    Origin(4, "from_network", "network", "N", "#d9480f", "#ff922b"),
    Origin(3, "from_seeds", "old slot", "s", "#3aa895", "#2f9e8f"),
    Origin(2, "zeros", "zeros", ".", "#e3e7eb", "#3d444d"),
    Origin(1, "in_place", "in place", "p", "#6c7cc4", "#7886d7"),
)
BY_NUMBER = {origin.number: origin for origin in ORIGINS}


def cells(runs: Runs, size: int, count: int) -> list[int]:
    """The origin of most bytes in each of `count` equal parts of an image of `size` bytes (0: `runs` has none)."""
    found: list[int] = []
    at = 0
    for cell in range(count):
        start = size * cell // count
        end = max(size * (cell + 1) // count, start + 1)
        while at < len(runs) and runs[at][1] <= start:
            at += 1
        weights: dict[int, int] = {}
        run = at
        while run < len(runs) and runs[run][0] < end:
            first, last, origin = runs[run]
            weights[origin] = weights.get(origin, 0) + min(last, end) - max(first, start)
            run += 1
        found.append(max(weights, key=lambda origin: (weights[origin], origin)) if weights else 0)
    return found


def joined(row: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first cell, number of cells, origin) of each stretch of equal cells."""
    found: list[tuple[int, int, int]] = []
    for cell, origin in enumerate(row):
        if found and found[-1][2] == origin:
            first, count, _ = found[-1]
            found[-1] = (first, count + 1, origin)
        else:
            found.append((cell, 1, origin))
    return found
