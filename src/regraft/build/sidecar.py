# SPDX-License-Identifier: Apache-2.0
"""Digests for sidecars: of what the rows of a delta's recipe must give."""

from __future__ import annotations

from regraft import kernels
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.verify import batches, row_lengths
from regraft.errors import ChangedError
from regraft.model import Algorithm, DigestColumn, OpTable, Units

_BATCH = 8 << 20


def digest_rows(image: Medium, table: OpTable, *, progress: Progress = QUIET) -> DigestColumn:
    """SHA-256 of each row's bytes in `image`, on all cores. Raises ChangedError if it became shorter."""
    digests = DigestColumn(Algorithm.SHA256)
    progress.phase("digest", table.size)
    buffer = memoryview(bytearray(min(max(_BATCH, _longest(table)), table.size)))
    for first, count in batches(table, range(len(table)), _BATCH):
        start, size = table.bounds[first], table.bounds[first + count] - table.bounds[first]
        if image.read_into(start, buffer[:size]) < size:
            raise ChangedError(f"{image.name} became shorter while it was read", cure="give files at rest")
        digests.data += kernels.digest_ranges(
            buffer[:size], row_lengths(table, first, count), algorithm=Algorithm.SHA256.label
        )
        progress.advance(size, Origin.SEED)
    return digests


def digest_units(delta: Medium, units: Units) -> DigestColumn:
    """SHA-256 of each unit's stored bytes in `delta`."""
    digests = DigestColumn(Algorithm.SHA256)
    for unit in range(len(units)):
        stored = bytearray(units.stored[unit])
        delta.read_into(units.offset[unit], memoryview(stored))
        digests.append(Algorithm.SHA256.of(stored))
    return digests


def _longest(table: OpTable) -> int:
    return max((table.length(row) for row in range(len(table))), default=0)
