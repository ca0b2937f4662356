# SPDX-License-Identifier: Apache-2.0
"""A merge of a pairwise delta onto its base, with the journal that it keeps in the state folder while it lasts.

The delta itself must stay where it is until the merge has ended: stored bytes are read from it.
"""

from __future__ import annotations

from regraft.engine.artifact_merge import begun, journal_name
from regraft.engine.blobs import LocalBlob
from regraft.engine.deltas import Delta, open_delta
from regraft.engine.match import match
from regraft.engine.medium import Medium
from regraft.engine.merge import Merge
from regraft.engine.merge_journal import open_journal
from regraft.engine.order import Schedule
from regraft.engine.progress import QUIET, Progress
from regraft.engine.seeds import base_seed
from regraft.engine.state import State
from regraft.engine.throttle import Throttle
from regraft.errors import StateError
from regraft.formats.sidecar import Sidecar
from regraft.limits import DEFAULT, Limits
from regraft.model import Plan


def delta_onto(
    medium: Medium, base: Medium, sidecar: Sidecar | None, *, begun: bool = False, limits: Limits = DEFAULT
) -> tuple[Delta, Plan]:
    """The delta in `medium`, and its plan over `base`. Reads nothing of the base.

    begun: the base may have the length of the target by now. Raises what `open_delta` does.
    """
    size = base.size
    if sidecar is not None and (begun or size >= min(sidecar.base_size, sidecar.target_size)):
        size = max(size, sidecar.base_size)
    delta = open_delta(medium, size, sidecar, limits=limits)
    return delta, match(delta.recipe, [(base.name, base_seed(base).index)])


class DeltaMerge:
    """sidecar: without one nothing tells whether base and result are right, and `unverified` must be given."""

    def __init__(
        self,
        delta: Medium,
        base: Medium,
        state: State | None,
        sidecar: Sidecar | None,
        *,
        unverified: bool = False,
        window: int = 0,
        throttle: Throttle | None = None,
        limits: Limits = DEFAULT,
        progress: Progress = QUIET,
    ) -> None:
        if state is None:
            raise StateError(f"there is no folder for the state of {base.name}", cure="name one in REGRAFT_STATE")
        self._state = state
        self.resumed = begun(state)  #: whether an earlier run goes on
        self.fetched = 0
        self.delta, self.plan = delta_onto(delta, base, sidecar, begun=self.resumed, limits=limits)
        self._journal = open_journal(state.directory, journal_name(state), limits=limits)
        known = self.delta.recipe.base
        self.merge = Merge(
            self.plan, base, [LocalBlob(delta)], self._journal,
            window=window, base_digest=None if sidecar is None else sidecar.base,
            base_size=None if known is None else known.size,
            unverified=unverified, throttle=throttle, limits=limits, progress=progress,
        )  # fmt: skip

    @property
    def schedule(self) -> Schedule:
        """In which order it goes."""
        return self.merge.schedule

    def run(self) -> bool:
        """Merge, read back, clean up: True. False if `merge.stop` came first."""
        self.merge.prepare()
        if self.merge.to_write:
            self._state.drop_index()
        if not self.merge.run():
            return False
        self._state.directory.remove(journal_name(self._state))
        self._state.directory.sync_directory()
        return True

    def close(self) -> None:
        """Close the journal; one that nothing was recorded in is removed."""
        name = journal_name(self._state)
        if not self.merge.begun and not self._journal.records() and self._state.directory.exists(name):
            self._state.directory.remove(name)
        self._journal.medium.close()
