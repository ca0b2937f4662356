# SPDX-License-Identifier: Apache-2.0
"""What a merge tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class Where(IntEnum):
    """Where the right bytes of a row are."""

    BASE = 0  #: at their final place in the base
    SOURCE = 1  #: at an old place in the base, or computed from it
    WINDOW = 2  #: in the journal
    STORED = 3  #: in stored bytes, in another seed, or they are zeros


class Place(NamedTuple):
    """`offset` in bytes: in the base (BASE, SOURCE) or in the journal's medium (WINDOW)."""

    where: Where
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """What a merge is at. `state`: "ready", "merging", "paused", "stopped", "verifying", "complete", "failed"."""

    state: str
    batch: int
    batches: int
    done: int  #: bytes of the image that are where they belong
    total: int
    error: str = ""
