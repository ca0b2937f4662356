# SPDX-License-Identifier: Apache-2.0
"""Applying bsdiff patches. Pure."""

from __future__ import annotations

from regraft.engine.patch import add
from regraft.formats.bsdiff import Patch
from regraft.model.buffers import Buffer


def bspatch(old: Buffer, patch: Patch) -> bytearray:
    """The target of a patch over `old`. Where a step reads outside of `old`, nothing is added, as in bspatch."""
    base, difference, extra = memoryview(old).cast("B"), memoryview(patch.difference), memoryview(patch.extra)
    new = bytearray()
    at = added = taken = 0
    for count, more, skip in patch.steps():
        part = difference[added : added + count]
        first, last = max(-at, 0), max(min(len(base) - at, count), 0)
        if first < last:
            new += part[:first]
            new += add(base[at + first : at + last], part[first:last])
            new += part[last:]
        else:
            new += part
        new += extra[taken : taken + more]
        added, taken, at = added + count, taken + more, at + count + skip
    return new
