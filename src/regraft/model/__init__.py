# SPDX-License-Identifier: Apache-2.0
"""The narrow waist: digests, indexes, recipes, plans. Columns of numbers, no I/O and no formats.

A format module makes a `Recipe` (what a target consists of); matching it with the `Index` of each seed makes a `Plan`
(how this device obtains it); a way out executes the plan.
"""

from regraft.model.digest import Algorithm, Digest, DigestColumn
from regraft.model.index import Index
from regraft.model.plan import Plan
from regraft.model.recipe import Addressing, Base, Blob, Codec, Recipe, Units
from regraft.model.table import Kind, Op, OpTable

__all__ = [
    "Addressing",
    "Algorithm",
    "Base",
    "Blob",
    "Codec",
    "Digest",
    "DigestColumn",
    "Index",
    "Kind",
    "Op",
    "OpTable",
    "Plan",
    "Recipe",
    "Units",
]
