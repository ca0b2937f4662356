# SPDX-License-Identifier: Apache-2.0
"""A laboratory of emulated devices: Debian's kernel in QEMU, without KVM and without anything installed.

with Lab(folder) as lab:
    guest = lab.boot(disks=[Disk(image)])           # /dev/vdc: the root has the first two
    guest.call(function, argument)                   # a Python function, run inside
    guest.run("regraft", "doctor")                   # a program
    job = guest.start("regraft", "nbd", "/dev/vdc")  # in the background
    guest.reboot(); guest.cut()
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tools import missing, tool

from lab import cache, initramfs, kernel, machine, roots
from lab.machine import HOST, Disk, Guest, Job, LabError, Result

__all__ = ["HOST", "Disk", "Guest", "Job", "Lab", "LabError", "Result"]

SOURCE = Path(__file__).parents[2] / "src"
TRIES = 2


class Lab:
    """A turn at the machine, and what devices are made of. Skips the test if a part is missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.guests: list[Guest] = []

    def __enter__(self) -> Self:
        for name in ("qemu-system-x86_64", "setpriv", "busybox", "mksquashfs", "nbd-client", "ldd"):
            tool(name)
        if os.uname().machine != "x86_64":
            missing("a device of this processor's kind")
        with ExitStack() as stack:
            stack.enter_context(cache.turn())
            try:
                found = kernel.obtain()
            except kernel.NoKernelError as error:
                missing(f"the device's kernel ({error})")
            early, all_modules = (found.load_order(names) for names in (kernel.EARLY, kernel.EARLY + kernel.LATE))
            self._kernel = found.image
            self._initramfs = self._folder / "initramfs.cpio"
            self._initramfs.write_bytes(initramfs.make(roots.busybox(), early))
            self._roots = [
                Disk(roots.base(found, all_modules), read_only=True),
                Disk(roots.package(SOURCE), read_only=True),
            ]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            for guest in self.guests:
                guest.cut()

    def boot(
        self, disks: Sequence[Disk] = (), *, network: bool = True, memory: int = 512, processors: int = 2
    ) -> Guest:
        """A device that has booted. A boot that hangs before its user space is tried once more: emulators do that.

        One device at a time: the one before is switched off.
        """
        for again in range(TRIES):
            for old in self.guests:
                old.cut()
            log = self._folder / f"console-{len(self.guests)}.log"
            log.touch()
            guest = machine.start(
                self._kernel, self._initramfs, [*self._roots, *disks], log,
                network=network, memory=memory, processors=processors,
            )  # fmt: skip
            self.guests.append(guest)
            try:
                guest.expect_boot(1)
                return guest
            except machine.BootError:
                if again == TRIES - 1:
                    raise
        raise AssertionError
