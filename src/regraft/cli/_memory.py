# SPDX-License-Identifier: Apache-2.0
"""Make the C library's allocator give memory back: a device has little of it."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_LARGE = 128 << 10


def be_frugal() -> None:
    """Ask glibc for one heap and for prompt trimming; elsewhere nothing happens.

    By default each thread fills a heap of its own with what it has freed, and the size from which a buffer goes back
    to the system at once grows with use. An update has a dozen threads, so that is tens of MiB of nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE)):
        mallopt(option, value)
