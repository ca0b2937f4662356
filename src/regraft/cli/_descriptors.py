# SPDX-License-Identifier: Apache-2.0
"""How many files a process may have open: an image of a chunk store lies in as many packs as it likes."""

from __future__ import annotations

import resource
from contextlib import suppress


def allow_many() -> None:
    """Raise the soft limit of descriptors to the hard one: it is low for the sake of select(2), which nobody here uses.

    Where that is not allowed nothing happens.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
