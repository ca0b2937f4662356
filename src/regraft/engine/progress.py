# SPDX-License-Identifier: Apache-2.0
"""What a way out tells about itself while it works, and where each row came from."""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol


class Origin(IntEnum):
    """Where the bytes of a row came from. The numbers are stored, a byte per row."""

    NONE = 0
    IN_PLACE = 1  #: already in the target
    ZERO = 2
    SEED = 3
    FETCHED = 4


class Progress(Protocol):
    """Called from any thread. Must return quickly and never raise."""

    def phase(self, name: str, total: int) -> None:
        """A new phase begins ("index", "write", "verify"), of `total` bytes."""

    def advance(self, count: int, origin: Origin) -> None:
        """`count` more bytes of this phase are done."""


class Quiet:
    """Tells nothing."""

    def phase(self, name: str, total: int) -> None: ...
    def advance(self, count: int, origin: Origin) -> None: ...


QUIET = Quiet()
