# SPDX-License-Identifier: Apache-2.0
"""Write wanted chunks into new packs, and read them back: what `clone` and `repair` share."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.engine.progress import QUIET, Progress
from regraft.engine.ranges import RangeSource
from regraft.engine.seeds import Seed
from regraft.engine.verify import check_rows
from regraft.engine.write import Writer
from regraft.errors import MediumError
from regraft.limits import DEFAULT, Limits
from regraft.stores.arrivals import Arrivals
from regraft.stores.packs import PackWriter
from regraft.stores.scattered import rows_of
from regraft.stores.survey import Survey


def fill(
    looked: Survey,
    arrivals: Arrivals,
    writer: PackWriter,
    seeds: Sequence[Seed],
    blobs: Sequence[RangeSource],
    *,
    workers: int = 0,
    limits: Limits = DEFAULT,
    progress: Progress = QUIET,
) -> tuple[int, int]:
    """Write what `looked` wants to its places, and read it back: (stored bytes fetched, rows that a second way gave).

    What does not read back right is written once more. Raises what `Writer` raises, MediumError; what was finished
    until then is recorded.
    """
    finished, fetched, replaced = looked.finished, 0, 0
    for attempt in range(2):
        progress.phase("write", sum(looked.plan.table.length(row) for row in looked.wanted if not finished[row]))
        execution = Writer(
            looked.plan,
            [seed.medium for seed in seeds],
            blobs,
            arrivals,
            finished=finished,
            done=arrivals.done,
            workers=workers,
            limits=limits,
            progress=progress,
        )
        try:
            execution.run()
        finally:
            writer.flush()
        if attempt:
            arrivals.sync()  # these rows are recorded already, and so nothing else makes them durable
        fetched, replaced = fetched + execution.fetched, replaced + execution.replaced
        wrong = _read_back(looked, arrivals, workers, limits, progress)
        if not wrong:
            break
        if attempt:
            arrivals.take_back(wrong)
            writer.flush()
            raise MediumError(f"{arrivals.name}: {len(wrong)} chunks read back other bytes than were written, twice")
        for row in wrong:
            finished[row] = 0
    return fetched, replaced


def _read_back(looked: Survey, arrivals: Arrivals, workers: int, limits: Limits, progress: Progress) -> list[int]:
    """The rows that were written and are not right."""
    rows = [row for row in looked.wanted if not arrivals.zeros[row]]
    arrivals.forget()
    progress.phase("verify", sum(arrivals.bounds[row + 1] - arrivals.bounds[row] for row in rows))
    table = rows_of(arrivals.bounds, arrivals.digests)
    right = set(check_rows(arrivals, table, rows, workers=workers, limits=limits, progress=progress))
    return [row for row in rows if row not in right]
