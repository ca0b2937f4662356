# SPDX-License-Identifier: Apache-2.0
"""Is this the base that the plan was made for, the one that the merge began with, and is it the target at last?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

from regraft.engine.medium import Medium
from regraft.engine.merge_rows import RowReader
from regraft.engine.order import elsewhere, reads_base
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.verify import batches, check_rows, digest_of
from regraft.errors import DigestError, RegraftError, SourceError, VerificationError
from regraft.limits import DEFAULT, Limits
from regraft.model import Digest, Plan

#: Rows looked at before an interrupted merge goes on.
_SAMPLES = 16


def base_identity(digest: Digest | None, size: int | None) -> bytes:
    """32 bytes for the journal: what was known of the base when the merge began."""
    known = b"" if digest is None else str(digest).encode()
    return hashlib.sha256(b"regraft base\0" + known + b"\0" + str(size or "").encode()).digest()


def wrong_in_base(
    plan: Plan,
    rows: RowReader,
    base: Medium,
    digest: Digest | None,
    size: int | None,
    *,
    identified: bool = False,
    limits: Limits = DEFAULT,
    progress: Progress = QUIET,
) -> set[int]:
    """Rows that cannot be made from this base as they should, but in another way.

    `digest` of the first `size` bytes decides if there is one; else each row that reads the base is computed and
    compared. Raises DigestError, or SourceError for rows that nothing else gives, if it is the wrong base;
    VerificationError if nothing can tell.
    """
    table = plan.table
    reading = [row for row in range(len(table)) if reads_base(table, table.first[row] + rows.choice[row])]
    if not reading or identified:
        return set()
    if digest is not None:
        size = base.size if size is None else size
        progress.phase("base", size)
        if size > base.size or not digest_of(base, size, digest, progress=progress):
            raise DigestError(
                f"{base.name} is not the base of this plan: its first {size} bytes have another digest",
                cure="nothing was written: give the base that the plan was made from",
            )
        return set()
    if table.digests.algorithm is None:
        raise VerificationError(
            f"nothing tells whether {base.name} is the base of this plan", cure="give the digest of the base"
        )
    progress.phase("base", sum(map(table.length, reading)))
    wrong: set[int] = set()
    for first, count in batches(table, reading, limits.batch):
        view = memoryview(bytearray(table.bounds[first + count] - table.bounds[first]))
        wrong.update(rows.wrong(first, count, view))
        progress.advance(len(view), Origin.SEED)
    lost = [row for row in sorted(wrong) if not elsewhere(plan, row)]
    if lost:
        raise SourceError(
            f"{base.name} is not the base of this plan: it does not give {len(lost)} of {len(reading)} rows that are"
            f" made from it, the first of them at {table.bounds[lost[0]]}",
            cure="nothing was written: give the base that the plan was made from",
        )
    return wrong


def changed_since(plan: Plan, done: Sequence[int], base: Medium) -> int | None:
    """A row among some of `done` whose bytes are not in their place in the base; None if those that were looked at are.

    A journal from elsewhere, or a base that was written to since, must not be gone on with.
    """
    table = plan.table
    algorithm = table.digests.algorithm
    if algorithm is None or not done:
        return None
    for position in {len(done) - 1 - len(done) * sample // _SAMPLES for sample in range(_SAMPLES)}:
        row = done[position]
        data = memoryview(bytearray(table.length(row)))
        with suppress(RegraftError):
            base.read_into(table.bounds[row], data)
            if algorithm.of(data) == table.digests[row]:
                continue
        return row
    return None


def wrong_in_target(
    plan: Plan, target: Medium, digest: Digest | None, *, limits: Limits = DEFAULT, progress: Progress = QUIET
) -> list[int]:
    """Read all of it back: the rows that are wrong. Raises DigestError if the whole is, and no row tells where."""
    target.forget()
    progress.phase("verify", plan.size)
    if digest is not None and digest_of(target, plan.size, digest, progress=progress):
        return []
    table = plan.table
    everything = range(len(table))
    if table.digests.algorithm is None:
        if digest is None:
            return []  # each unit was verified, or it was to be done without
        raise DigestError(f"{target.name} after the merge differs from the digest of the image")
    right = set(check_rows(target, table, everything, limits=limits, progress=progress))
    wrong = [row for row in everything if row not in right]
    if not wrong and digest is not None:
        raise DigestError(f"every row in {target.name} is right, yet the image differs from its digest")
    return wrong
