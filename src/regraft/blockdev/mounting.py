# SPDX-License-Identifier: Apache-2.0
"""The system calls mount(2) and umount2(2), which Python does not have, and what is mounted where."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntFlag

from regraft.errors import BusyError, MissingError, MountError, UsageError

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


class MountFlag(IntFlag):
    """Of mount(2)."""

    READ_ONLY = 1
    NO_SUID = 2
    NO_DEVICES = 4


class UnmountFlag(IntFlag):
    """Of umount2(2)."""

    FORCE = 1
    DETACH = 2
    NO_FOLLOW = 8


def mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    """Mount a file system. Raises MissingError if the kernel does not know the kind, UsageError, MountError."""
    if _libc.mount(source.encode(), os.fsencode(target), kind.encode(), int(flags), data.encode()):
        number = ctypes.get_errno()
        words = f"mount on {target}: {os.strerror(number)}"
        if number == errno.ENODEV:
            raise MissingError(
                f"{words}: this kernel has no {kind}", cure=f"as root: modprobe {kind.partition('.')[0]}"
            )
        if number in (errno.EPERM, errno.EACCES):
            raise UsageError(words, cure="mounting needs root (CAP_SYS_ADMIN)")
        raise MountError(words)


def unmount(target: str, flags: int = 0) -> None:
    """Unmount. Raises BusyError while it is used, UsageError without the right, MountError."""
    if _libc.umount2(os.fsencode(target), int(flags | UnmountFlag.NO_FOLLOW)):
        number = ctypes.get_errno()
        words = f"unmount {target}: {os.strerror(number)}"
        if number == errno.EBUSY:
            raise BusyError(words, cure="end what uses it first: see `fuser -m`, `losetup -j`")
        if number == errno.EPERM:
            raise UsageError(words, cure="unmounting needs root (CAP_SYS_ADMIN)")
        raise MountError(words)


@dataclass(frozen=True, slots=True)
class Mounted:
    """A line of /proc/self/mountinfo. `device`: its number as MAJOR:MINOR."""

    device: str
    point: str
    kind: str
    source: str


def mounts() -> Iterator[Mounted]:
    """What is mounted in this mount namespace (proc(5), "/proc/pid/mountinfo"), nothing if that cannot be told."""
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, separator, after = line.rstrip("\n").partition(" - ")
            fields, rest = before.split(" "), after.split(" ")
            if separator and len(fields) >= 5 and len(rest) >= 2:
                yield Mounted(fields[2], _plain(fields[4]), rest[0], _plain(rest[1]))


def _plain(text: str) -> str:
    """A path without the escapes of the kernel."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text
