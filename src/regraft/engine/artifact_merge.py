# SPDX-License-Identifier: Apache-2.0
"""A merge of a chunked artifact onto a base, with the files that it keeps in the state folder while it lasts.

`STEM.merge` is the journal, `STEM.merge-index` the index of the base as it was before the first write (the plan that
goes on must be the one that began), `STEM.merge-data` the stored bytes that came from afar. The journal is made last
and removed first: without it nothing was begun.
"""

from __future__ import annotations

from collections.abc import Sequence

from regraft.engine.medium import Medium, read_all, save
from regraft.engine.merge import Merge
from regraft.engine.merge_journal import open_journal
from regraft.engine.order import Schedule, onto, stored_units
from regraft.engine.progress import QUIET, Progress
from regraft.engine.ranges import RangeSource
from regraft.engine.seeds import index_medium
from regraft.engine.spool import Spool
from regraft.engine.state import State
from regraft.engine.throttle import Throttle
from regraft.errors import FormatError, StateError, UnsupportedError
from regraft.formats import kept_index
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, Index, Plan, Recipe


def plan_onto(recipe: Recipe, base: Medium, *, progress: Progress = QUIET) -> Plan:
    """The plan for a base that nothing is known of: reads all of it. Raises UnsupportedError."""
    return onto(recipe, base.name, index_medium(base, _algorithm(recipe), recipe.chunker, progress=progress))


def begun(state: State) -> bool:
    """Whether a merge onto the base with this state has begun and not ended."""
    if not state.directory.exists(journal_name(state)):
        return False
    journal = open_journal(state.directory, journal_name(state))
    try:
        return bool(journal.records())
    finally:
        journal.medium.close()


def journal_name(state: State, what: str = "") -> str:
    """The name of the journal of a merge onto the base with this state; `what`: of another file that it keeps."""
    return f"{state.stem}.merge{what}"


def _algorithm(recipe: Recipe) -> Algorithm:
    if recipe.matchable is None:
        raise UnsupportedError(
            "the digests of this archive are too short to find its chunks by", cure="make it with --hash-length 16"
        )
    return recipe.matchable


class ArtifactMerge:
    """blob: where the stored bytes are; `remote` says that they are to be brought here first."""

    def __init__(
        self,
        recipe: Recipe,
        blob: RangeSource,
        base: Medium,
        state: State | None,
        *,
        remote: bool = False,
        window: int = 0,
        throttle: Throttle | None = None,
        limits: Limits = DEFAULT,
        progress: Progress = QUIET,
    ) -> None:
        if state is None:
            raise StateError(f"there is no folder for the state of {base.name}", cure="name one in REGRAFT_STATE")
        self._recipe, self._state, self._limits, self._progress = recipe, state, limits, progress
        self._journal, self._index, self._data = (journal_name(state, what) for what in ("", "-index", "-data"))
        self._open: list[Medium] = []
        self.fetched = 0  #: stored bytes that came from afar
        try:
            self.resumed = begun(state)  #: whether an earlier run goes on
            index = self._load_index() if self.resumed else self._make_index(base)
            self.plan = onto(recipe, base.name, index)
            self._spool = Spool(recipe, blob, self._file(self._data), limits) if remote else None
            journal = open_journal(state.directory, self._journal, limits=limits)
            self._open.append(journal.medium)
            blobs: Sequence[RangeSource] = [blob if self._spool is None else self._spool]
            self.merge = Merge(
                self.plan, base, blobs, journal,
                window=window, identified=not self.resumed, throttle=throttle, limits=limits, progress=progress,
            )  # fmt: skip
        except BaseException:
            self.close()
            raise

    def _make_index(self, base: Medium) -> Index:
        index = index_medium(base, _algorithm(self._recipe), self._recipe.chunker, progress=self._progress)
        save(self._state.directory, self._index, kept_index.build(index))
        return index

    def _load_index(self) -> Index:
        cure = "install the whole image"
        try:
            medium = self._state.directory.open(self._index)
        except FileNotFoundError:
            raise StateError(
                f"{self._index}, which tells how the merge of an artifact began, is gone, or {self._journal} in "
                f"{self._state.directory.path} is the journal of a delta's merge",
                cure="finish a delta's merge with its delta; else install the whole image",
            ) from None
        try:
            return kept_index.parse(read_all(medium, self._limits.header_size), limits=self._limits)
        except (FormatError, StateError, ValueError) as error:
            raise StateError(f"{medium.name}: {error}", cure=cure) from None
        finally:
            medium.close()

    def _file(self, name: str) -> Medium:
        directory = self._state.directory
        medium = directory.open(name) if directory.exists(name) else directory.create(name)
        self._open.append(medium)
        return medium

    @property
    def schedule(self) -> Schedule:
        """In which order it goes."""
        return self.merge.schedule

    def run(self) -> bool:
        """Fetch what is missing, merge, read back, clean up: True. False if `merge.stop` came first."""
        self.merge.prepare()
        if self._spool is not None:
            units = stored_units(self.plan, self.schedule, self.merge.status().batch)
            self.fetched += self._spool.bring(units, progress=self._progress)
        self._state.drop_index()
        if not self.merge.run():
            return False
        table, directory = self._recipe.table, self._state.directory
        self._state.keep_index(Index(table.bounds, table.digests, self._recipe.chunker))
        for name in (self._journal, self._index, self._data):
            directory.remove(name)
            directory.sync_directory()
        return True

    def close(self) -> None:
        """Close what was opened here."""
        while self._open:
            self._open.pop().close()
