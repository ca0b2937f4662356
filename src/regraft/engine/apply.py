# SPDX-License-Identifier: Apache-2.0
"""From a recipe and seeds to a verified target: match, journal, write, read back, keep the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regraft.engine.match import match
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.ranges import RangeSource
from regraft.engine.seeds import Seed
from regraft.engine.state import Journal, State
from regraft.engine.verify import check_rows, digest_of
from regraft.engine.write import Writer
from regraft.errors import DigestError, MediumError, VerificationError
from regraft.limits import DEFAULT, Limits
from regraft.model import Base, Digest, DigestColumn, Index, Plan, Recipe


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an execution did. `origins` has an `Origin` for each row of the plan."""

    plan: Plan
    origins: bytearray
    fetched: int  #: stored bytes taken from blobs by this run
    replaced: int  #: rows whose first operation failed and another one did it
    resumed: bool  #: whether an earlier run's journal was continued

    def bytes_from(self, origin: Origin) -> int:
        """Image bytes of that origin."""
        bounds = self.plan.table.bounds
        return sum(bounds[row + 1] - bounds[row] for row, where in enumerate(self.origins) if where == origin)


def apply(
    recipe: Recipe,
    seeds: Sequence[Seed],
    blobs: Sequence[RangeSource],
    target: Medium,
    *,
    state: State | None = None,
    digest: Digest | None = None,
    workers: int = 0,
    limits: Limits = DEFAULT,
    progress: Progress = QUIET,
) -> Outcome:
    """Make `target` the image that `recipe` describes, and prove it by reading it back.

    digest: of the whole image, from verified metadata; the recipe's own if None. state: where the journal and the kept
    index lie; None for targets that need not survive anything. Interrupted at any point, the same call continues.

    The first seed of a delta is its base: where the recipe tells its digest, all of it is compared first.

    Raises DigestError for another base, TooSmallError before anything is written; TransportError, DigestError or
    MediumError with all finished rows recorded; VerificationError if nothing in the recipe covers the image's bytes.
    """
    digest = digest or recipe.digest
    if digest is None and not recipe.verifiable():
        raise VerificationError("nothing signed covers the bytes of this image", cure="give the image's digest")
    if not target.sparse:
        target.resize(recipe.size)  # a device: only checks that it is large enough
    plan = match(recipe, [(seed.medium.name, seed.index) for seed in seeds])
    if recipe.base is not None and recipe.needs_base:
        check_base(seeds[0].medium, recipe.base, progress=progress)
    journal = Journal(state, recipe, target, limits=limits)
    try:
        finished, origins = _in_place(recipe, journal, state, target, workers, limits, progress)
        journal.begin()
        if state is not None:
            state.drop_index()
        if target.size != recipe.size:
            target.resize(recipe.size)
        fetched = replaced = 0
        written: DigestColumn | None = None
        for attempt in range(2):
            progress.phase("write", recipe.size)
            progress.advance(_total(plan, finished), Origin.IN_PLACE)
            writer = Writer(
                plan,
                [seed.medium for seed in seeds],
                blobs,
                target,
                finished=finished,
                done=journal.done,
                written=written,
                workers=workers,
                limits=limits,
                progress=progress,
            )
            try:
                writer.run()
            finally:
                journal.flush()
            target.sync()
            written = writer.written
            fetched, replaced = fetched + writer.fetched, replaced + writer.replaced
            origins = bytearray(max(pair) for pair in zip(origins, writer.origins, strict=True))
            wrong = _read_back(recipe, written, target, digest, workers, limits, progress)
            if not wrong:
                break
            if attempt:
                where = recipe.table.bounds[wrong[0]]
                raise MediumError(f"{target.name} at {where} reads back other bytes than were written, twice")
            for row in wrong:
                finished[row] = 0
        if state is not None and recipe.matchable is not None:  # else there is nothing to match by
            state.keep_index(Index(recipe.table.bounds, recipe.table.digests, recipe.chunker))
        journal.remove()
    finally:
        journal.close()
    return Outcome(plan, origins, fetched, replaced, journal.resumed)


def check_base(medium: Medium, base: Base, *, progress: Progress = QUIET) -> None:
    """Raise DigestError unless `medium` starts with the base that a delta was made from. Reads all of it.

    What is behind the base, on a device that is larger, does not matter.
    """
    cure = "give the image from which the delta was made, or a delta that was made from this one"
    if medium.size < base.size:
        raise DigestError(f"{medium.name} has {medium.size} bytes, the base of this delta {base.size}", cure=cure)
    if base.digest is not None:
        progress.phase("base", base.size)
        if not digest_of(medium, base.size, base.digest, progress=progress):
            raise DigestError(f"{medium.name} is not the base of this delta: its digest is another one", cure=cure)


def _in_place(
    recipe: Recipe,
    journal: Journal,
    state: State | None,
    target: Medium,
    workers: int,
    limits: Limits,
    progress: Progress,
) -> tuple[bytearray, bytearray]:
    """(finished, origins): rows that already lie in the target, by the journal, or by looking where it is worth it."""
    table = recipe.table
    if recipe.matchable is None:
        return bytearray(len(table)), bytearray(len(table))  # nothing could prove earlier rows: write them all
    finished = journal.finished
    if journal.resumed:
        # What was written and not yet recorded when the earlier run died is a seed in its own place.
        rows = [row for row in range(len(table)) if not finished[row] and table.bounds[row + 1] <= target.size]
    else:
        kept = state.load_index(limits) if state is not None else None
        rows = _unmoved(recipe, kept) if kept is not None else []
        rows = [row for row in rows if table.bounds[row + 1] <= target.size]
    if rows:
        progress.phase("look", sum(table.length(row) for row in rows))
        for row in check_rows(target, table, rows, workers=workers, limits=limits, progress=progress):
            finished[row] = 1
    return finished, bytearray(flag * Origin.IN_PLACE for flag in finished)


def _unmoved(recipe: Recipe, kept: Index) -> list[int]:
    """Rows that the target's kept index has at the same offset."""
    if kept.digests.algorithm != recipe.matchable:
        return []
    there = {kept.bounds[chunk]: chunk for chunk in range(len(kept))}
    table = recipe.table
    return [
        row
        for row in range(len(table))
        if (chunk := there.get(table.bounds[row])) is not None and kept.digests[chunk] == table.digests[row]
    ]


def _total(plan: Plan, finished: bytearray) -> int:
    return sum(plan.table.length(row) for row in range(len(plan.table)) if finished[row])


def _read_back(
    recipe: Recipe,
    written: DigestColumn | None,
    target: Medium,
    digest: Digest | None,
    workers: int,
    limits: Limits,
    progress: Progress,
) -> list[int]:
    """The rows whose bytes, read from the medium itself, are not as signed; empty if all is right."""
    target.forget()
    progress.phase("verify", recipe.size)
    if digest is not None and digest_of(target, recipe.size, digest, progress=progress):
        return []
    table = recipe.table
    rows = range(len(table))
    right = set(check_rows(target, table, rows, workers=workers, limits=limits, progress=progress, digests=written))
    wrong = [row for row in rows if row not in right]
    if not wrong and digest is not None:
        raise DigestError(
            f"every chunk in {target.name} is as its header says, yet the image differs from its signed digest",
            cure="the bundle's image digest belongs to another image: build the bundle again",
        )
    return wrong
