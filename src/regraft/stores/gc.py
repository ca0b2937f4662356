# SPDX-License-Identifier: Apache-2.0
"""Mark and sweep: drop what no image needs, beside running clones and open images.

Marking and sweeping happen under the store's lock, so a clone's intent is either seen or sees what was left. Packs that
are being written are left alone, and nothing is dropped because of what they hold. What is copied out of a mostly dead
pack is complete in a new pack, with its index, before the old one goes.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass, field

from regraft.engine.progress import QUIET, Origin, Progress
from regraft.errors import LimitError, MediumError, RegraftError, SourceError, SpaceError
from regraft.formats.pack_index import BLOCK, blocks_of
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm
from regraft.stores import names
from regraft.stores.lookup import Lookup
from regraft.stores.packs import (
    Pack,
    PackWriter,
    append_drops,
    being_written,
    drop_pack,
    lay_out,
    open_pack,
    read_index,
    sound_packs,
)
from regraft.stores.store import Store

#: A pack of which less than this part is alive is copied and dropped.
_WORTH_KEEPING = 0.5

#: Packs that are open at once while they are compacted: a process has few descriptors, a store many packs.
_AT_ONCE = 64


@dataclass(slots=True)
class Report:
    """What was dropped, or would be. Sizes in bytes of disk."""

    live: int = 0  #: chunks that an image or an intent needs
    packs: int = 0  #: dropped
    freed: int = 0
    copied: int = 0  #: moved out of mostly dead packs
    debris: list[str] = field(default_factory=list)  #: files of no meaning that were removed


@dataclass(slots=True)
class _Use:
    """How much of a pack is alive: rows of its index, and their bytes of disk."""

    number: int
    algorithm: Algorithm
    size: int
    rows: list[int]
    live: int
    untidy: bool  #: whether pack and index do not end together


def collect(store: Store, *, dry_run: bool = False, limits: Limits = DEFAULT, progress: Progress = QUIET) -> Report:
    """Drop packs that nothing needs, compact those that are mostly dead, sweep away what crashes left.

    Raises BusyError while another gc runs; StateError, FormatError if a description is damaged: then it is not known
    what is needed, and nothing is dropped.
    """
    report = Report()
    with store.collecting():
        with store.locked():
            uses = _mark(store, limits)
            report.live = sum(use.live for use in uses)
            _sweep(store, uses, report, dry_run, limits)
        sparse = [use for use in uses if use.rows and use.live < _WORTH_KEEPING * use.size]
        if dry_run:
            report.freed += sum(use.size - use.live for use in sparse)
            report.packs += len(sparse)
            return report
        if sparse and _compact(store, sparse, report, limits, progress):
            with store.locked():
                uses = _mark(store, limits)
                _sweep(store, uses, report, False, limits)
    return report


def _mark(store: Store, limits: Limits) -> list[_Use]:
    """What is alive in each pack that is not being written; of a chunk that is there twice, the newer one."""
    needed: dict[Algorithm, Lookup] = {}
    for _, description in store.roots():
        algorithm = description.digests.algorithm
        if algorithm is None:
            continue
        wanted = needed.setdefault(algorithm, Lookup(algorithm))
        for row, digest in enumerate(description.digests):
            if not description.zero[row]:
                wanted.add(digest, description.length(row))
    seen = {algorithm: bytearray(len(lookup)) for algorithm, lookup in needed.items()}
    uses = []
    for pack in sound_packs(store.directory, limits):
        size = pack.medium.size
        pack.medium.close()
        if being_written(store.directory, pack.number):
            continue
        use = _Use(pack.number, pack.index.algorithm, size, [], 0, pack.lost > 0 or size != pack.index.pack_size)
        uses.append(use)
        if use.algorithm not in needed:
            continue
        lookup, marks = needed[use.algorithm], seen[use.algorithm]
        for row, (digest, length) in enumerate(zip(pack.index.digests, pack.index.lengths, strict=True)):
            chunk = lookup.find(digest, length)
            if chunk >= 0 and not marks[chunk]:
                marks[chunk] = 1
                use.rows.append(row)
                use.live += BLOCK * blocks_of(length)
    return uses


def _sweep(store: Store, uses: list[_Use], report: Report, dry_run: bool, limits: Limits) -> None:
    directory = store.directory
    for use in uses:
        if not use.rows:
            report.packs += 1
            report.freed += use.size
            if not dry_run:
                drop_pack(directory, use.number)
        elif use.untidy and not dry_run:
            report.freed += _trim(store, use.number, limits)
    for file in _debris(store, {use.number for use in uses}, limits):
        report.debris.append(file)
        if not dry_run:
            directory.remove(file)
    if not dry_run:
        directory.sync_directory()


def _trim(store: Store, number: int, limits: Limits) -> int:
    """Make pack and index agree: cut off what was written behind the last record, by a clone that was interrupted, and
    take back records of what a shortened pack lost. Returns the bytes that were cut off."""
    pack = open_pack(store.directory, number, limits)
    try:
        if pack.lost:
            index = read_index(store.directory, number, limits)
            append_drops(
                store.directory, index, [row for row in range(len(index)) if index.ends(row) > pack.medium.size]
            )
        tail = pack.medium.size - pack.index.pack_size
        if tail > 0:
            pack.medium.resize(pack.index.pack_size)
        return max(tail, 0)
    finally:
        pack.medium.close()


def _debris(store: Store, sound: set[int], limits: Limits) -> list[str]:
    """Files that a crash left and that mean nothing. To be read under the lock. sound: packs that are none."""
    there = store.directory.names()
    found = [name for name in there if name.endswith(names.NEW)]
    images = {*names.with_suffix(there, names.IMAGE), *names.with_suffix(there, names.PARTIAL)}
    found += [name + names.PIN for name in names.with_suffix(there, names.PIN) if name not in images]
    indexes, packs = set(names.numbers(there, names.INDEX)), set(names.numbers(there, names.PACK))
    found += [names.pack(number) for number in sorted(packs - indexes)]
    for number in sorted(indexes - sound):
        if being_written(store.directory, number):
            continue
        try:
            open_pack(store.directory, number, limits).medium.close()
        except FileNotFoundError:
            found.append(names.index(number))
        except (MediumError, LimitError):
            continue  # it cannot be read now, by us: that says nothing of what it holds
        except RegraftError:
            # Without its index nothing in a pack can be found: who needs it has to fetch it again anyway.
            found += [names.index(number), *([names.pack(number)] if number in packs else [])]
    return found


def _compact(store: Store, sparse: list[_Use], report: Report, limits: Limits, progress: Progress) -> bool:
    """Copy what is alive in these packs into new ones; whether anything was."""
    done = False
    progress.phase("compact", sum(use.live for use in sparse))
    by_algorithm = sorted(sparse, key=lambda use: (use.algorithm.label, use.number))
    for algorithm, group in itertools.groupby(by_algorithm, key=lambda use: use.algorithm):
        while some := list(itertools.islice(group, _AT_ONCE)):
            with suppress(SpaceError):  # what does not fit stays where it is
                done = _copy(store, algorithm, some, report, limits, progress) or done
    return done


def _copy(
    store: Store, algorithm: Algorithm, uses: list[_Use], report: Report, limits: Limits, progress: Progress
) -> bool:
    packs: list[tuple[Pack, list[int]]] = []
    try:
        with store.locked():
            for use in uses:
                with suppress(FileNotFoundError):
                    packs.append((open_pack(store.directory, use.number, limits), use.rows))
            rows = [(pack, row) for pack, alive in packs for row in alive if row < len(pack.index)]
            places, sizes = lay_out([pack.index.lengths[row] for pack, row in rows], limits)
            if 2 * sum(sizes) > store.directory.free_space():
                raise SpaceError(f"{store.path}: no room to compact packs")
            writer = PackWriter(store.directory, algorithm, len(sizes), limits=limits)
        try:
            for position, (pack, row) in enumerate(rows):
                digest, length, offset = pack.record(row)
                data = bytearray(length)
                # A chunk that cannot be read, or is damaged, is not copied; then the old pack stays, for `verify`.
                with suppress(SourceError):
                    if pack.medium.read_into(offset, memoryview(data)) == length and algorithm.of(data) == digest:
                        writer.media[places.pack[position]].write(places.offset[position], data)
                        writer.record(places.pack[position], places.offset[position], length, digest)
                        report.copied += length
                progress.advance(length, Origin.SEED)
            writer.flush()
        finally:
            writer.close()
    finally:
        for pack, _ in packs:
            pack.medium.close()
    return bool(rows)
