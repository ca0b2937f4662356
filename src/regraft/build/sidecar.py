# SPDX-License-Identifier: Apache-2.0
"""Digests for sidecars: of what the rows of a delta's recipe must give."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from regraft import kernels
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.verify import batches, row_lengths
from regraft.errors import ChangedError
from regraft.model import Algorithm, DigestColumn, OpTable, Units

_BATCH = 4 << 20


def digest_rows(image: Medium, table: OpTable, *, progress: Progress = QUIET) -> DigestColumn:
    """SHA-256 of each row's bytes in `image`, on all cores. Raises ChangedError if it became shorter."""
    digests = DigestColumn(Algorithm.SHA256)
    progress.phase("digest", table.size)
    size = min(max(_BATCH, _longest(table)), table.size)
    buffers = [memoryview(bytearray(size)) for _ in range(2)]  # one is read into while the other one is hashed

    def digest(first: int, rows: int, view: memoryview, reading: Future[int]) -> None:
        if reading.result() < len(view):
            raise ChangedError(f"{image.name} became shorter while it was read", cure="give files at rest")
        lengths = row_lengths(table, first, rows)
        digests.data += kernels.digest_ranges(view, lengths, algorithm=Algorithm.SHA256.label)
        progress.advance(len(view), Origin.SEED)

    with ThreadPoolExecutor(1, "read-ahead") as pool:
        before: tuple[int, int, memoryview, Future[int]] | None = None
        for number, (first, rows) in enumerate(batches(table, range(len(table)), _BATCH)):
            start = table.bounds[first]
            view = buffers[number % 2][: table.bounds[first + rows] - start]
            reading = pool.submit(image.read_into, start, view)
            if before is not None:
                digest(*before)
            before = first, rows, view, reading
        if before is not None:
            digest(*before)
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
