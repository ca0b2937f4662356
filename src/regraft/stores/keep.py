# SPDX-License-Identifier: Apache-2.0
"""A lazy clone: what a view obtains is kept as chunks of a store, and the image appears there once all of it is."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from threading import Lock
from typing import NamedTuple

from regraft.engine.keep import Recorder
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Progress
from regraft.engine.seeds import Seed
from regraft.engine.verify import check_rows
from regraft.errors import MediumError, SourceError, UnsupportedError
from regraft.formats.pack_index import BLOCK, blocks_of
from regraft.limits import DEFAULT, Limits
from regraft.model import Recipe
from regraft.stores import names
from regraft.stores.arrivals import is_zeros
from regraft.stores.image import chunks_of
from regraft.stores.packs import PackWriter, locate
from regraft.stores.scattered import NOWHERE, ZEROS, Scattered, rows_of
from regraft.stores.store import Store
from regraft.stores.survey import Survey
from regraft.stores.task import Task, frame_of

_MISSING, _COMING, _THERE = range(3)


class _Pack(NamedTuple):
    """A pack that can be read; and written, if it is the one at `position` of a `writer`."""

    medium: Medium
    writer: PackWriter | None = None
    position: int = 0


class KeepStore:
    """Keeps rows as chunks, in packs of its own, beside those that the store has: a `Keep` for a view of the image.

    It has the marks of a clone: an intent that keeps its chunks from `gc` and other clones from the name, chunks that
    are recorded after they are durable. So any clone of the same image goes on with what was kept, and this with what a
    clone has left. A thread records after `start`.
    """

    def __init__(self, store: Store, task: Task, looked: Survey, *, limits: Limits = DEFAULT) -> None:
        """To be made by `open_keep`, under the store's lock."""
        self._store, self._task, self._limits = store, task, limits
        self._held = ExitStack()
        self._lock, self._recording = Lock(), Lock()
        frame = dataclasses.replace(task.frame, digests=looked.digests or task.frame.digests, zero=looked.zero)
        self._description, self._chunks = frame, chunks_of(frame)
        self._never = dataclasses.replace(limits, journal_interval=float("inf"), journal_bytes=1 << 62)
        self._failed = False
        self._finished: Scattered | None = None
        self._unrecorded: list[int] = []
        self._zeros = bytearray(len(frame))  # rows of zeros that were put
        self._writers: list[PackWriter] = []
        self._room: tuple[int, int] = (-1, 0)  # pack for chunks that turn out to be damaged, and offset of the next
        self._recorder = Recorder(self.flush, lambda: not self._failed and self._finished is None, limits)
        try:
            self.resumed = task.begin(looked, self._held)
            found = locate(store.directory, self._chunks.lookup, limits)
            self._held.callback(found.close)
            self._places = found.places
            self._packs = [_Pack(medium) for medium in found.packs]
            first = self._add(len(looked.pack_sizes))
            for position, row in enumerate(looked.wanted):
                chunk = self._chunks.of[row]
                self._places.pack[chunk] = first + looked.places.pack[position]
                self._places.offset[chunk] = looked.places.offset[position]
            self._state = bytearray(_THERE for _ in self._places.pack)
            for row in looked.wanted:
                self._state[self._chunks.of[row]] = _MISSING
        except BaseException:
            self._let_go()
            raise

    def _add(self, count: int) -> int:
        """New packs, and the number of the first of them. To be called under the store's lock."""
        algorithm = self._chunks.lookup.algorithm
        writer = PackWriter(self._store.directory, algorithm, count, limits=self._never)
        self._writers.append(writer)
        first = len(self._packs)
        self._packs += [_Pack(medium, writer, position) for position, medium in enumerate(writer.media)]
        return first

    @property
    def finished(self) -> Scattered | None:
        return self._finished

    def start(self) -> None:
        """Record from time to time, in a thread of its own."""
        self._recorder.start()

    # -- a Keep -------------------------------------------------------------------------------------------------------

    def has(self, row: int) -> bool:
        chunk = self._chunks.of[row]
        return self._zeros[row] == 1 if chunk == ZEROS else self._state[chunk] == _THERE

    def read(self, row: int, within: int, view: memoryview) -> None:
        chunk = self._chunks.of[row]
        if chunk == ZEROS:
            view[:] = bytes(len(view))
        else:
            self._read(self._place_of(chunk), within, view)

    def _place_of(self, chunk: int) -> tuple[int, int]:
        with self._lock:  # it may be moved just now
            return self._places.pack[chunk], self._places.offset[chunk]

    def _read(self, place: tuple[int, int], within: int, view: memoryview) -> None:
        pack, at = place[0], place[1] + within
        if pack < 0:
            view[:] = bytes(len(view))
            return
        medium = self._packs[pack].medium
        if medium.read_into(at, view) < len(view):
            raise SourceError(f"{medium.name} ends before {at + len(view)}: it was cut while it was served")

    def put(self, row: int, data: memoryview | None) -> None:
        chunk = self._chunks.of[row]
        if self._failed:
            raise MediumError(f"{self._store.path} has failed before")
        if chunk == ZEROS:
            self._zeros[row] = 1
            return
        with self._lock:
            before = self._state[chunk]
            if before == _COMING or (before == _THERE and self._is_there(chunk, data)):
                return
            self._state[chunk] = _COMING
        try:
            self._write(chunk, data)
        except BaseException as error:
            self._failed = self._failed or isinstance(error, MediumError)
            self._state[chunk] = _MISSING
            raise
        with self._lock:
            self._state[chunk] = _THERE
            self._unrecorded.append(chunk)

    def _is_there(self, chunk: int, data: memoryview | None) -> bool:
        """Whether the chunk lies in its place as it should: several rows, or readers, may bring the same."""
        found = memoryview(bytearray(self._chunks.lookup.lengths[chunk]))
        try:
            self._read((self._places.pack[chunk], self._places.offset[chunk]), 0, found)
        except SourceError:
            return False
        return found == data if data is not None else is_zeros(found)

    def _write(self, chunk: int, data: memoryview | None) -> None:
        length = self._chunks.lookup.lengths[chunk]
        if data is None or is_zeros(data):
            self._places.pack[chunk] = ZEROS
            return
        place = self._place_of(chunk)
        if place[0] < 0 or self._packs[place[0]].writer is None:
            place = self._new_place(length)
            with self._lock:
                self._places.pack[chunk], self._places.offset[chunk] = place
        pack, offset = self._packs[place[0]], place[1]
        pack.medium.write(offset, data)
        if pack.writer is not None:
            pack.writer.record(pack.position, offset, length, self._chunks.lookup.digests[chunk])

    def _new_place(self, length: int) -> tuple[int, int]:
        """Where a chunk is put whose place is damaged: packs that are there already are not written to."""
        with self._lock:
            pack, offset = self._room
            if pack < 0 or offset + length > self._limits.pack_size:
                with self._store.locked():
                    pack, offset = self._add(1), 0
            self._room = pack, offset + BLOCK * blocks_of(length)
            return pack, offset

    def flush(self) -> None:
        """Make durable, and record, what was put. Raises MediumError: what was not recorded is then not there."""
        with self._recording:
            with self._lock:
                chunks, self._unrecorded = self._unrecorded, []
            try:
                for writer in self._writers:
                    writer.flush()
            except MediumError:
                self._failed = True
                for chunk in chunks:  # the kernel may have dropped these pages
                    self._state[chunk] = _MISSING
                raise

    def prove(self, *, progress: Progress = QUIET) -> list[int]:
        self.flush()
        whole = self._whole()
        whole.forget()
        rows = [row for row in self._chunks.first_rows() if whole.places.pack[row] >= 0]
        progress.phase("verify", sum(map(self._description.length, rows)))
        table = rows_of(whole.bounds, self._description.digests)
        right = set(check_rows(whole, table, rows, limits=self._limits, progress=progress))
        wrong = {self._chunks.of[row] for row in rows if row not in right}
        if wrong:
            self._take_back(wrong)
            for chunk in wrong:
                self._places.pack[chunk], self._state[chunk] = NOWHERE, _MISSING
            return [row for row, chunk in enumerate(self._chunks.of) if chunk in wrong]
        zero = bytearray(pack == ZEROS for pack in whole.places.pack)
        description = dataclasses.replace(self._description, zero=zero)
        with self._store.locked():
            self._task.finish(description)
            file = self._task.name + names.IMAGE
            self._held.callback(self._store.directory.lock(file, shared=True).release)
        for writer in self._writers:
            writer.settle()
        self._finished = whole
        return []

    def _take_back(self, chunks: set[int]) -> None:
        """What was recorded of these chunks is not so: others, and the next run, must not count on it."""
        for chunk in chunks:
            pack, offset = self._place_of(chunk)
            writer, position = self._packs[pack].writer, self._packs[pack].position
            if writer is not None:
                writer.take_back(position, offset, self._chunks.lookup.digests[chunk])
        self.flush()

    def _whole(self) -> Scattered:
        """The image as it lies in the packs, all chunks being there."""
        places = self._chunks.places(self._places)
        return Scattered(self._task.name, array("Q", self._description.bounds), places, self._media)

    @property
    def _media(self) -> list[Medium]:
        return [pack.medium for pack in self._packs]

    def close(self) -> None:
        """Record what was put, as far as that is possible, and let go."""
        self._recorder.close()
        try:
            if not self._failed and self._finished is None:
                self.flush()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        for writer in self._writers:
            writer.close()
        self._held.close()


def open_keep(
    store: Store,
    name: str,
    recipe: Recipe,
    *,
    seeds: Sequence[Seed] = (),
    source: str = "",
    metadata: dict[str, bytes] | None = None,
    limits: Limits = DEFAULT,
) -> KeepStore | None:
    """Begin, or go on with, the lazy clone of an image; None if the store has it already, complete.

    Raises UnsupportedError if the recipe's digests cannot prove rows; what `clone` raises before it writes: StateError,
    BusyError, SpaceError.
    """
    if recipe.matchable is None:
        raise UnsupportedError(
            "this artifact has no digests that prove its chunks: what is fetched of it cannot be kept",
            cure="bring it into the store at once: regraft clone",
        )
    task = Task(store, name, frame_of(recipe, source, metadata or {}), False)
    with store.locked():
        if task.present() is not None:
            task.drop_intent()
            return None
        looked = task.survey(recipe, seeds)
        looked.check_space(store.directory)
        return KeepStore(store, task, looked, limits=limits)
