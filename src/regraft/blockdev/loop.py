# SPDX-License-Identifier: Apache-2.0
"""Loop devices by their ioctls (linux/loop.h): a file as a block device, without losetup."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from enum import IntFlag
from struct import Struct

from regraft.blockdev.attachment import make_node, read_text
from regraft.errors import BusyError, MissingError, MountError, UsageError

CONTROL = "/dev/loop-control"
INFO = Struct("=QQQQQIIII64s64s32sQQ")
CONFIG_HEAD = Struct("=II")  #: descriptor, block size; then the info and 64 bytes of zeros
SET_FD, CLEAR_FD, SET_STATUS64, SET_DIRECT_IO, SET_BLOCK_SIZE, CONFIGURE = (
    0x4C00,
    0x4C01,
    0x4C04,
    0x4C08,
    0x4C09,
    0x4C0A,
)
GET_FREE = 0x4C82
_TRIES = 20
_UNKNOWN = (errno.EINVAL, errno.ENOTTY, errno.ENOSYS)  # of CONFIGURE before Linux 5.8


class Flag(IntFlag):
    READ_ONLY = 1
    AUTOCLEAR = 4
    DIRECT_IO = 16


def info(name: str, flags: int) -> bytes:
    """A struct loop_info64: the whole file, with what is shown as its name."""
    shown = os.fsencode(name)[:63]
    return INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, shown, b"", b"", 0, 0)


def config(descriptor: int, name: str, flags: int, block_size: int) -> bytes:
    """A struct loop_config."""
    return CONFIG_HEAD.pack(descriptor, block_size) + info(name, flags) + bytes(64)


def attach(path: str, *, direct: bool = True, autoclear: bool = True, block_size: int = 0) -> tuple[str, int]:
    """Make the file at `path` a read-only loop device: its path, and a descriptor of it.

    autoclear: the device goes away with its last user; close the descriptor when somebody else uses it. direct: past
    the page cache of the file, where that can be. block_size: in bytes, 0 for the kernel's choice.
    Raises UsageError, MissingError without loop devices, BusyError if all are taken, MountError.
    """
    flags = Flag.READ_ONLY | (Flag.AUTOCLEAR if autoclear else Flag(0))
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"open {path}: {error.strerror}") from None
    try:
        for _ in range(_TRIES):  # another may be faster
            device, descriptor = _open_free()
            try:
                _configure(descriptor, file, path, int(flags), block_size, direct)
            except OSError as error:
                os.close(descriptor)
                if error.errno == errno.EBUSY:
                    continue
                raise MountError(f"attach {path} to {device}: {error.strerror}") from None
            return device, descriptor
    finally:
        os.close(file)
    raise BusyError("all loop devices are taken by others", cure="detach one: losetup -d")


def _open_free() -> tuple[str, int]:
    try:
        control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError as error:
        raise UsageError(f"open {CONTROL}: {error.strerror}", cure="this needs root (CAP_SYS_ADMIN)") from None
    except OSError as error:
        raise MissingError(f"open {CONTROL}: {error.strerror}", cure="as root: modprobe loop") from None
    try:
        number = fcntl.ioctl(control, GET_FREE)
        device = f"/dev/loop{number}"
        if not os.path.exists(device):
            make_node(device, read_text(f"/sys/block/loop{number}/dev"))
        return device, os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise BusyError(f"no free loop device: {error.strerror}", cure="detach one: losetup -d") from None
    finally:
        os.close(control)


def _configure(descriptor: int, file: int, path: str, flags: int, block_size: int, direct: bool) -> None:
    """By one call, or where that is not known by several."""
    try:
        fcntl.ioctl(descriptor, CONFIGURE, config(file, path, flags, block_size))
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        fcntl.ioctl(descriptor, SET_FD, file)  # read-only, since the file was opened so
        try:
            fcntl.ioctl(descriptor, SET_STATUS64, info(path, flags & Flag.AUTOCLEAR))
            if block_size:
                fcntl.ioctl(descriptor, SET_BLOCK_SIZE, block_size)
        except OSError:
            fcntl.ioctl(descriptor, CLEAR_FD, 0)
            raise
    if direct:
        with suppress(OSError):  # not every file can
            fcntl.ioctl(descriptor, SET_DIRECT_IO, 1)


def detach(device: str) -> None:
    """Let go of the file; if the device is used, when its last user has gone. Raises MountError."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"open {device}: {error.strerror}") from None
    try:
        fcntl.ioctl(descriptor, CLEAR_FD, 0)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise MountError(f"detach {device}: {error.strerror}") from None
    finally:
        os.close(descriptor)
