# SPDX-License-Identifier: Apache-2.0
"""The first root of a device: busybox, the modules that reach the disks, a script that moves on to the real root."""

from __future__ import annotations

import stat
from pathlib import Path

#: Written to the console as soon as user space runs. A boot that hangs before is repeated, a later failure is not.
MARKER = "lab: user space"

INIT = f"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
echo "{MARKER}"
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t squashfs -o ro /dev/vda /root
/bin/busybox mount -t squashfs -o ro /dev/vdb /root/usr/lib/regraft
for each in dev proc sys; do /bin/busybox mount --move /$each /root/$each; done
exec /bin/busybox switch_root /root /usr/bin/python3 -S /usr/lib/regraft/lab/agent.py
"""


class Archive:
    """A cpio archive of the new ASCII format (cpio(5)), as the kernel unpacks it: all files are root's."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0

    def add(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        """Append a file of any kind; `mode` includes the kind."""
        self._inode += bool(mode)
        raw = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + raw
        self._parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]

    def finish(self) -> bytes:
        """The archive with its trailer."""
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)


def make(busybox: Path, modules: list[Path]) -> bytes:
    """An initramfs whose script loads `modules` in their order."""
    archive = Archive()
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes())
    for module in modules:
        archive.add(f"modules/{module.name}", stat.S_IFREG | 0o644, module.read_bytes())
    archive.add("modules/order", stat.S_IFREG | 0o644, "\n".join(module.name for module in modules).encode())
    archive.add("init", stat.S_IFREG | 0o755, INIT.encode())
    return archive.finish()
