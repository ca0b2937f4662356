# SPDX-License-Identifier: Apache-2.0
"""The kernel as a client of our server: what it is told of a disk, and what is the same however it is told."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from regraft.blockdev.nbd.protocol import Transmission
from regraft.errors import BusyError, MissingError, MountError, UsageError

SYSFS = "/sys/block"
BLOCK = 4096
#: What the kernel may do with a disk of ours: read, over several sockets.
READ_ONLY = (
    Transmission.HAS_FLAGS
    | Transmission.READ_ONLY
    | Transmission.SEND_FLUSH
    | Transmission.SEND_FUA
    | Transmission.CAN_MULTI_CONN
)
_NAME = re.compile(r"(?:/dev/)?nbd([0-9]{1,6})")
_READY = 10.0  # seconds until a device must have its size


@dataclass(frozen=True, slots=True)
class Disk:
    """What the kernel is told. Sizes in bytes, times in whole seconds.

    timeout: of one request; then its socket counts as dead, and the request is sent again over another. dead_timeout:
    how long requests wait for new sockets when none is left, then they fail. identifier: must be the same when
    sockets are replaced.
    """

    size: int
    block_size: int = BLOCK
    flags: int = int(READ_ONLY)
    timeout: int = 30
    dead_timeout: int = 86_400
    identifier: str = ""


class Attachment(Protocol):
    """A way to connect the kernel's client. Sockets are SOCK_STREAM; the kernel takes references of its own."""

    @property
    def can_reconfigure(self) -> bool:
        """Whether dead sockets can be replaced."""
        ...

    def attach(self, device: str, sockets: Sequence[socket.socket], disk: Disk) -> str:
        """Make `device` ("/dev/nbd3", or "auto" for a free one) the disk; its path, once it has its size.

        Raises UsageError, BusyError if it is in use, MissingError, MountError.
        """
        ...

    def reconfigure(self, device: str, sockets: Sequence[socket.socket], disk: Disk) -> None:
        """Let `sockets` take the place of dead ones; what waits is sent again. Raises MountError."""
        ...

    def disconnect(self, device: str) -> None:
        """Let go of the device: who still uses it gets errors. Raises MountError."""
        ...

    def connected(self, device: str) -> bool:
        """Whether the device is attached, also if all its sockets are dead."""
        ...


def choose() -> Attachment:
    """The best way this kernel has. Raises MissingError."""
    from regraft.blockdev.nbd_ioctl import IoctlAttachment
    from regraft.blockdev.nbd_netlink import NetlinkAttachment

    try:
        return NetlinkAttachment()
    except MissingError as missing:
        if not os.path.isdir(f"{SYSFS}/nbd0"):
            raise MissingError(
                f"no network block devices here ({missing})",
                cure="as root: modprobe nbd; or use --fuse FILE, which needs none",
            ) from None
        return IoctlAttachment()


def index_of(device: str) -> int:
    """The number of a device's name. Raises UsageError."""
    found = _NAME.fullmatch(device)
    if found is None:
        raise UsageError(f"{device} is no network block device", cure="give /dev/nbd0 and so on, or auto")
    return int(found[1])


def node_of(index: int, *, sysfs: str = SYSFS, folder: str = "/dev") -> str:
    """The path of the device, made where nobody does that (no devtmpfs). Raises MountError."""
    path = f"{folder}/nbd{index}"
    with suppress(OSError):
        if stat.S_ISBLK(os.stat(path).st_mode):
            return path
    make_node(path, read_text(f"{sysfs}/nbd{index}/dev"))
    return path


def make_node(path: str, number: str) -> None:
    """A node for the block device with this number, MAJOR:MINOR. Raises MountError."""
    major, colon, minor = number.partition(":")
    if not colon or not major.isdecimal() or not minor.isdecimal():
        raise MountError(f"make {path}: the kernel gives no device number ({number!r})")
    try:
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(int(major), int(minor)))
    except FileExistsError:
        pass
    except OSError as error:
        raise MountError(f"make {path}: {error.strerror}") from None


def read_text(path: str) -> str:
    """A line of sysfs; empty if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096).strip()
    except OSError:
        return ""


def size_of(index: int, *, sysfs: str = SYSFS) -> int:
    """Bytes of a device; 0 if it is not attached."""
    words = read_text(f"{sysfs}/nbd{index}/size")
    return 512 * int(words) if words.isdecimal() else 0


def is_attached(index: int, *, sysfs: str = SYSFS) -> bool:
    """Whether the kernel's client runs on a device."""
    return read_text(f"{sysfs}/nbd{index}/pid") not in ("", "0")


def identifier_of(index: int, *, sysfs: str = SYSFS) -> str:
    """What it was told when it was attached; empty before Linux 5.14."""
    return read_text(f"{sysfs}/nbd{index}/backend")


def wait_for_size(index: int, size: int, *, sysfs: str = SYSFS, timeout: float = _READY) -> None:
    """Return when a device has its size. Raises MountError if that does not happen."""
    end = time.monotonic() + timeout
    while size_of(index, sysfs=sysfs) != size:
        if time.monotonic() > end:
            raise MountError(
                f"nbd{index} has {size_of(index, sysfs=sysfs)} bytes after {timeout:g} s, {size} are expected"
            )
        time.sleep(0.01)


def set_queue(index: int, values: dict[str, int], *, sysfs: str = SYSFS) -> None:
    """Set what improves the speed, e.g. max_sectors_kb; where that is refused, nothing is lost."""
    for name, value in values.items():
        with suppress(OSError), open(f"{sysfs}/nbd{index}/queue/{name}", "w", encoding="ascii") as file:
            file.write(str(value))


def hold_unused(device: str) -> int:
    """A descriptor of a device that nothing has mounted or stacked upon, in any namespace; nobody can as long as it is
    open. Raises BusyError, MountError."""
    try:
        return os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise BusyError(f"{device} is mounted, or another device stands on it", cure="unmount that first") from None
        raise MountError(f"open {device}: {error.strerror}") from None


def check_unused(device: str, *, sysfs: str = SYSFS, proc: str = "/proc") -> None:
    """The same without opening the device, which may wait for a daemon that is dead: by what is mounted in any mount
    namespace, and what stands on it. Raises BusyError."""
    name = f"nbd{index_of(device)}"
    with suppress(OSError):
        if above := os.listdir(f"{sysfs}/{name}/holders"):
            raise BusyError(f"{above[0]} stands on {device}", cure="remove that first")
    number = read_text(f"{sysfs}/{name}/dev")
    seen = set()
    for pid in filter(str.isdigit, os.listdir(proc)):
        with suppress(OSError):
            namespace = os.readlink(f"{proc}/{pid}/ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            with open(f"{proc}/{pid}/mountinfo", encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    fields = line.split(" ")
                    if len(fields) > 4 and fields[2] == number:
                        raise BusyError(f"{device} is mounted on {fields[4]}", cure="unmount that first")


def socket_pairs(count: int) -> tuple[list[socket.socket], list[socket.socket]]:
    """Ours and the kernel's ends: sockets of UNIX streams, which is what every kernel takes."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(count)]
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
