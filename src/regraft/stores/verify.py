# SPDX-License-Identifier: Apache-2.0
"""Is a store sound? Quick: descriptions, indexes, sizes, references. Full: every chunk and image is hashed too."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from regraft.engine.progress import QUIET, Progress
from regraft.engine.verify import check_rows, digest_of
from regraft.errors import BusyError, FormatError, LimitError, MissingError, RegraftError, StateError
from regraft.formats.pack_index import BLOCK
from regraft.limits import DEFAULT, Limits
from regraft.stores import names
from regraft.stores.image import StoredImage, open_image
from regraft.stores.packs import Pack, append_drops, being_written, open_pack, read_index
from regraft.stores.scattered import Places, Scattered, bounds_of, rows_of
from regraft.stores.store import Store


@dataclass(slots=True)
class Report:
    """What was found. Only `damage` makes a store unsound; what crashes leave does not."""

    images: int = 0
    packs: int = 0
    chunks: int = 0
    hashed: int = 0  #: bytes
    bad: int = 0  #: chunks whose bytes are not as recorded; they are taken out of the index
    damage: dict[str, str] = field(default_factory=dict)  #: image -> what is wrong with it
    notes: list[str] = field(default_factory=list)  #: of no consequence for any image

    @property
    def sound(self) -> bool:
        return not self.damage


def verify(
    store: Store,
    *,
    full: bool = False,
    record: bool = True,
    workers: int = 0,
    limits: Limits = DEFAULT,
    progress: Progress = QUIET,
) -> Report:
    """Look at everything in the store.

    full: read and hash each chunk, and each image that has a digest. record: take damaged chunks out of the index, so
    that they are missing, and `repair` fetches them.
    """
    report = Report()
    if full:
        _chunks(store, report, record, workers, limits, progress)
    with store.locked():
        there = store.directory.names()
        report.packs = len(names.numbers(there, names.INDEX))
        _note_packs(store, report, limits)
        whole = []
        for name in store.images():
            report.images += 1
            if _is_complete(store, name, report, limits):
                whole.append(name)
        for name in store.partials():
            _intent(store, name, report)
    for name in whole if full else ():
        with suppress(MissingError), store.image(name) as image:  # one at a time: each has many descriptors
            _whole(image, report, progress)
    return report


def _is_complete(store: Store, name: str, report: Report, limits: Limits) -> bool:
    try:
        description = store.description(name)
    except (StateError, FormatError, LimitError) as error:
        report.damage[name] = str(error)
        return False
    image = open_image(store.directory, name, description, limits)
    image.close()
    if image.missing:
        report.damage[name] = f"{image.missing} of {len(image.chunks.lookup)} chunks are missing"
    return not image.missing


def _intent(store: Store, name: str, report: Report) -> None:
    """An intent keeps chunks alive: one that cannot be read keeps `gc` from its work."""
    try:
        store.description(name, names.PARTIAL)
    except (StateError, FormatError, LimitError) as error:
        report.damage.setdefault(name, str(error))


def _whole(image: StoredImage, report: Report, progress: Progress) -> None:
    digest = image.description.digest
    if digest is None or image.missing:
        return
    progress.phase("verify", image.size)
    if not digest_of(image.medium, image.size, digest, progress=progress):
        report.damage[image.name] = "the image differs from its digest"


def _note_packs(store: Store, report: Report, limits: Limits) -> None:
    for number in names.numbers(store.directory.names(), names.INDEX):
        if being_written(store.directory, number):
            report.notes.append(f"{names.pack(number)} is being written")
            continue
        try:
            pack = open_pack(store.directory, number, limits)
        except (RegraftError, FileNotFoundError) as error:
            report.notes.append(f"{names.pack(number)} cannot be used: {error}")
            continue
        pack.medium.close()
        report.chunks += len(pack.index)
        if pack.lost:
            report.notes.append(f"{names.pack(number)} is too short for {pack.lost} chunks")
        if pack.index.skipped:
            report.notes.append(f"{names.index(number)}: {pack.index.skipped} bytes do not count")


def _chunks(store: Store, report: Report, record: bool, workers: int, limits: Limits, progress: Progress) -> None:
    """Hash what lies in each pack. Packs are opened one after the other; one that gc drops meanwhile is passed over."""
    for number in names.numbers(store.directory.names(), names.INDEX):
        try:
            with store.locked(shared=True):
                pack = open_pack(store.directory, number, limits)
        except (RegraftError, FileNotFoundError):
            continue
        try:
            bad = wrong_chunks(pack, workers, limits, progress)
        finally:
            pack.medium.close()
        report.hashed += sum(pack.index.lengths)
        report.bad += len(bad)
        if bad:
            report.notes.append(f"{names.pack(number)}: {len(bad)} chunks are damaged")
        if bad and record:
            _take_out(store, pack, bad, limits)


def wrong_chunks(pack: Pack, workers: int, limits: Limits, progress: Progress) -> list[int]:
    """The rows of a pack's index whose bytes in the pack are not as recorded."""
    index = pack.index
    rows = range(len(index))
    places = Places(len(index))
    places.pack = array("i", bytes(4 * len(index)))
    places.offset = array("Q", [BLOCK * block for block in index.blocks])
    medium = Scattered(pack.medium.name, bounds_of(index.lengths), places, [pack.medium])
    medium.forget()
    progress.phase("verify", medium.size)
    table = rows_of(medium.bounds, index.digests)
    right = set(check_rows(medium, table, rows, workers=workers, limits=limits, progress=progress))
    return [row for row in rows if row not in right]


def _take_out(store: Store, pack: Pack, rows: Sequence[int], limits: Limits) -> None:
    """Record that these chunks are not there. What somebody writes just now is left to him."""
    with store.locked():
        try:
            now = read_index(store.directory, pack.number, limits)
            wrong = {(pack.index.blocks[row], pack.index.digests[row]) for row in rows}
            append_drops(
                store.directory,
                now,
                [row for row in range(len(now)) if (now.blocks[row], now.digests[row]) in wrong],
            )
        except (BusyError, FileNotFoundError):
            return
