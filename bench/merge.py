# SPDX-License-Identifier: Apache-2.0
"""A child of the benchmark: one merge, or one ordering, in this process; prints what it took as JSON.

merge.py order BLOCKS                    order as many blocks of 4 KiB, permuted at random
merge.py direct|journaled FOLDER SIZE    merge as many bytes of blocks of 4 KiB, with nothing read back

direct: stored blocks, in units of 64 KiB. journaled: blocks that swap their places.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from array import array
from pathlib import Path

from regraft import kernels
from regraft.engine import order as ordering
from regraft.engine.blobs import LocalBlob
from regraft.engine.files import FileDirectory, open_source, open_target
from regraft.engine.merge import Merge
from regraft.engine.merge_journal import open_journal
from regraft.model import Algorithm, Blob, Codec, Kind, Op, OpTable, Plan, Recipe, Units

BLOCK, UNIT = 4096, 64 << 10


def order(blocks: int) -> dict[str, float]:
    """Seconds, and bytes that the columns and the ordering take at their worst."""
    source = array("Q", range(0, BLOCK * blocks, BLOCK))
    random.Random(1).shuffle(source)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = _peak()
    bounds, cost = array("Q", range(0, BLOCK * (blocks + 1), BLOCK)), array("I", [1000]) * blocks
    role = bytes([2]) * blocks
    began = time.perf_counter()
    batches, converted, _ = kernels.merge_order(
        kernels.Rows(bounds, source, role), cost, window=510 * BLOCK, batch=8 << 20, worth=1 << 19, edges=1 << 30
    )
    seconds = time.perf_counter() - began
    peak = _peak() - before
    columns = 8 * blocks  # `source` was there before
    return {
        "seconds": seconds,
        "memory": peak + columns,
        "conversions": len(converted),
        "batches": len(batches.journaled),
    }


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


class Unread(Merge):
    """Ends when the last batch is recorded: what it is measured against reads nothing back either."""

    def _finish(self) -> None: ...


def merge(kind: str, folder: Path, size: int) -> dict[str, float]:
    """Seconds from the first batch to the last record."""
    chance = random.Random(2)
    base, stored = folder / "base", folder / "stored"
    data = b"".join(chance.randbytes(1 << 20) for _ in range(size >> 20))
    (base if kind == "journaled" else stored).write_bytes(data)
    if kind == "direct":
        base.write_bytes(bytes(size))
    table, units = OpTable(Algorithm.SHA256), Units(None)
    for at in range(0, size, BLOCK):
        if kind == "direct":
            unit, within = divmod(at, UNIT)
            if not within:
                units.add(blob=0, codec=0, offset=at, stored=UNIT, length=UNIT, digest=None)
            table.add(BLOCK, Algorithm.SHA256.of(data[at : at + BLOCK]), Op(Kind.DATA, unit=unit, within=within))
        else:
            other = at ^ BLOCK
            table.add(BLOCK, Algorithm.SHA256.of(data[other : other + BLOCK]), Op(Kind.COPY, at=other))
    del data
    recipe = Recipe(table, units, (Blob("stored"),), (Codec("none"),))
    target, directory = open_target(str(base)), FileDirectory(str(folder))
    blobs = [LocalBlob(open_source(str(stored)))] if kind == "direct" else []
    journal = open_journal(directory, "journal")
    job = Unread(Plan(recipe, table, ("base",)), target, blobs, journal, identified=True)
    job.prepare()
    told = ordering.forecast(job.plan, job.schedule)
    target.sync()
    began = time.perf_counter()
    spent = time.process_time()
    job.run()
    spent = time.process_time() - spent
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "cpu": spent,
        "flushes": told.flushes,
        "direct": told.direct,
        "journaled": told.journaled,
    }


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    print(json.dumps(order(int(rest[0])) if what == "order" else merge(what, Path(rest[0]), int(rest[1]))))
