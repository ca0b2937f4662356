# SPDX-License-Identifier: Apache-2.0
"""How this device obtains a target, given its seeds."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.model.recipe import Recipe
from regraft.model.table import OpTable


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe with the seeds' ranges put in front of its own operations, as far as they match.

    `table` has the same rows as `recipe.table`. `seeds` names what `source` counts, e.g. device paths; the way out is
    given an open medium for each.
    """

    recipe: Recipe
    table: OpTable
    seeds: tuple[str, ...]

    @property
    def size(self) -> int:
        return self.table.size
