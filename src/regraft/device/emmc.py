# SPDX-License-Identifier: Apache-2.0
"""eMMC boot partitions are read-only until told otherwise (kernel documentation, "eMMC boot partition access")."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from regraft.errors import MediumError


@contextmanager
def writable(device: str, *, sysfs: str = "/sys/class/block") -> Iterator[None]:
    """Lift `force_ro` of a boot partition (mmcblkNbootM) while the block runs. Other devices are left alone."""
    switch = os.path.join(sysfs, os.path.basename(os.path.realpath(device)), "force_ro")
    if "boot" not in os.path.basename(device) or not os.path.exists(switch):
        yield
        return
    before = _set(switch, "0")
    try:
        yield
    finally:
        _set(switch, before)


def _set(switch: str, value: str) -> str:
    """Write a kernel switch (nothing that a power cut could tear); returns what it was."""
    try:
        with open(switch, "r+") as file:
            before = file.read().strip()
            file.seek(0)
            file.write(value)
        return before
    except OSError as error:
        raise MediumError(f"{switch}: {error.strerror}", cure="run as root") from None
