# SPDX-License-Identifier: Apache-2.0
"""Prune a casync store: a file for each chunk, of which only those stay that some index needs.

Such a store does not know its indexes: they are named. An index has no checksum of its own; a damaged one would give up
chunks that are needed. So every chunk that any of them names has to be there before the first one goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from regraft.engine.chunkstores import PruneStore, StoredFile
from regraft.errors import StateError
from regraft.formats import caibx
from regraft.formats.caibx import Header

#: Seconds after which nobody is writing a temporary file any more. Ours are under the lock; casync and desync, and
#: caches, have none.
TEMPORARY_AGE = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Report:
    """Chunks that are needed and there, and that were not needed, and forgotten temporary files; bytes of their files.

    missing: chunks that are needed and not there. others: files that are none of these, and stay.
    """

    kept: int
    kept_bytes: int
    removed: int
    removed_bytes: int
    temporary: int
    temporary_bytes: int
    missing: int
    others: int


def prune(
    store: PruneStore,
    indexes: Callable[[], Mapping[str, Header]],
    *,
    incomplete: bool = False,
    dry_run: bool = False,
    now: Callable[[], float] = time.time,
) -> Report:
    """Remove the chunks that none of these indexes names, and temporary files of more than a day.

    indexes: reads them all, by name; called while nobody adds chunks, and before anything is removed. incomplete: not
    all of their chunks need be in this store. Interrupted, it has removed some of what it would have.

    Raises what `indexes` raises; BusyError while chunks are being added by regraft; StateError for a chunk that is
    missing; MediumError.
    """
    with store.pruning():
        needed = _needed(indexes())
        files = list(store.files())
        chunks = {file: digest for file in files if (digest := caibx.digest_of(file.path)) is not None}
        missing = needed.keys() - set(chunks.values())
        if missing and not incomplete:
            one = min(missing)
            raise StateError(
                f"{store.location} lacks {len(missing)} chunks of these indexes, one of them {one.hex()} of "
                f"{needed[one]}: nothing was removed",
                cure="an index is damaged or of another store; if its chunks lie in several stores, say --incomplete",
            )
        kept = [file for file, digest in chunks.items() if digest in needed]
        dead = [file for file, digest in chunks.items() if digest not in needed]
        before = now() - TEMPORARY_AGE
        forgotten = [file for file in files if caibx.is_temporary(file.path) and file.changed < before]
        if not dry_run:
            for file in (*dead, *forgotten):
                store.remove(file.path)
            store.sync()
    return Report(
        len(kept), _bytes(kept), len(dead), _bytes(dead), len(forgotten), _bytes(forgotten), len(missing),
        len(files) - len(chunks) - len(forgotten),
    )  # fmt: skip


def _needed(indexes: Mapping[str, Header]) -> dict[bytes, str]:
    """The digests of all chunks, and the index that named each first."""
    needed: dict[bytes, str] = {}
    for name, header in indexes.items():
        for digest in header.digests:
            needed.setdefault(digest, name)
    return needed


def _bytes(files: list[StoredFile]) -> int:
    return sum(file.size for file in files)
