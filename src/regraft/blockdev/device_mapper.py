# SPDX-License-Identifier: Apache-2.0
"""Device-mapper by its ioctls (linux/dm-ioctl.h): devices made of linear and verity targets, without dmsetup or udev.

Messages are made and taken apart by pure functions; `DeviceMapper` calls the kernel. All sizes of tables are in sectors
of 512 bytes, all integers of the machine's byte order.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct

from regraft.errors import BusyError, FormatError, LimitError, MissingError, MountError, RegraftError, UsageError
from regraft.formats.verity import Verity
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

SECTOR = 512
FOLDER = "/dev/mapper"
HEADER = Struct("=3IIIIiIIIQ128s129s7s")
TARGET = Struct("=QQiI16s")  #: start, length, status, where the next begins, type
_LEAST = HEADER.size - 7
_VERSION = (4, 0, 0)
_BASE = 0xC138FD00  # _IOWR(0xfd, ..., 312 bytes)
_CONTROL_MINOR = 236  # of the major number 10
_NAME = re.compile(r"(?!control$)[A-Za-z0-9][A-Za-z0-9#+\-.:=@_]{0,126}")
_FIRST_ANSWER = 16 << 10


class Call(IntEnum):
    VERSION = 0
    DEV_CREATE = 3
    DEV_REMOVE = 4
    DEV_SUSPEND = 6  #: and resume, without the flag SUSPEND
    DEV_STATUS = 7
    TABLE_LOAD = 9
    TABLE_CLEAR = 10
    TABLE_STATUS = 12


class Flag(IntFlag):
    READ_ONLY = 1
    SUSPEND = 2
    STATUS_TABLE = 1 << 4
    ACTIVE_PRESENT = 1 << 5
    INACTIVE_PRESENT = 1 << 6
    BUFFER_FULL = 1 << 8
    SKIP_LOCKFS = 1 << 10
    NO_FLUSH = 1 << 11


def is_name(text: str) -> bool:
    """Whether a device may have this name."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Target:
    """A line of a table: `length` sectors from `start` on are made by `kind` as `parameters` say."""

    start: int
    length: int
    kind: str
    parameters: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the kernel says of a device. `device`: its number as os.makedev has it; open_count: who has it open."""

    version: tuple[int, int, int]
    flags: int
    open_count: int
    device: int
    name: str
    targets: tuple[Target, ...] = ()


def linear(start: int, length: int, device: str, offset: int) -> Target:
    """`length` sectors that lie on `device` (a path, or MAJOR:MINOR) from sector `offset` on."""
    return Target(start, length, "linear", f"{_word(device)} {offset}")


def verity_target(verity: Verity, data: str, tree: str) -> Target:
    """The verified view of `data`; `tree` is the device with the hash tree, perhaps the same one."""
    words = (
        1, _word(data), _word(tree), verity.data_block, verity.hash_block, verity.data_blocks, verity.tree_block,
        verity.algorithm, verity.root.hex(), verity.salt.hex() or "-",
    )  # fmt: skip
    sectors = verity.data_blocks * verity.data_block // SECTOR
    return Target(0, sectors, "verity", " ".join(map(str, words)))


def _word(device: str) -> str:
    if not device or any(character.isspace() or character == "\\" for character in device):
        raise UsageError(f"{device!r} cannot be named in a device-mapper table", cure="use a path without spaces")
    return device


def build(name: str, *, flags: int = 0, targets: Sequence[Target] = (), size: int = 0, uuid: str = "") -> bytearray:
    """The argument of a call, of at least `size` bytes. Raises UsageError, LimitError."""
    if name and not is_name(name):
        raise UsageError(f"{name!r} is no name for a device", cure="take letters, digits and -._ only")
    body = bytearray()
    for target in targets:
        text = target.parameters.encode() + b"\0"
        room = TARGET.size + len(text)
        step = room + -room % 8
        body += TARGET.pack(target.start, target.length, 0, step, target.kind.encode()) + text + bytes(step - room)
    total = max(size, HEADER.size + len(body))
    if total > DEFAULT.device_mapper_answer:
        raise LimitError(f"a device-mapper table of {len(body)} bytes")
    head = HEADER.pack(
        *_VERSION, total, HEADER.size, len(targets), 0, flags, 0, 0, 0, name.encode(), uuid.encode()[:128], b""
    )
    return bytearray(head + body + bytes(total - HEADER.size - len(body)))


def parse(data: Buffer, *, with_targets: bool = False) -> Answer:
    """What a call filled in. Raises FormatError."""
    view = memoryview(data).cast("B")
    if len(view) < HEADER.size:
        raise FormatError(f"device-mapper: {len(view)} bytes, a header has {HEADER.size}", offset=0)
    major, minor, patch, size, start, count, opened, flags, _, _, device, name, _, _ = HEADER.unpack_from(view)
    # Without data the kernel counts the header up to its padding, and start lies behind that.
    if not _LEAST <= size <= len(view):
        raise FormatError(f"device-mapper: {size} bytes with data at {start}, {len(view)} are there", offset=12)
    targets: tuple[Target, ...] = ()
    if with_targets and count and not flags & Flag.BUFFER_FULL:
        targets = _targets(view[start:size], count)
    # The kernel's huge encoding: 12 bits of minor's high part lie above the major number.
    number = os.makedev((device >> 8) & 0xFFF, (device & 0xFF) | ((device >> 12) & 0xFFF00))
    return Answer((major, minor, patch), flags, opened, number, _text(name), targets)


def _targets(view: memoryview, count: int) -> tuple[Target, ...]:
    found: list[Target] = []
    at = 0
    for _ in range(count):
        if len(view) - at < TARGET.size:
            raise FormatError(f"device-mapper: target {len(found)} at {at}, {len(view)} bytes are there", offset=at)
        start, length, _, following, kind = TARGET.unpack_from(view, at)
        text = bytes(view[at + TARGET.size : following if at < following <= len(view) else len(view)])
        found.append(Target(start, length, _text(kind), _text(text)))
        if len(found) < count and following < at + TARGET.size:
            raise FormatError(f"device-mapper: a target that ends at {following}, before it starts", offset=at)
        at = following
    return tuple(found)


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "replace")


class DeviceMapper:
    """Calls to /dev/mapper/control. Names are those of devices, which appear as /dev/mapper/NAME."""

    def __init__(
        self,
        *,
        folder: str = FOLDER,
        ioctl: Callable[[int, int, bytearray], int] | None = None,
        limits: Limits = DEFAULT,
    ) -> None:
        """`ioctl` stands for the kernel's, for tests. Raises MissingError without device-mapper, UsageError."""
        self._folder, self._limits = folder, limits
        self._ioctl = ioctl or _ioctl
        self._control = -1 if ioctl else _open_control(folder)

    def __enter__(self) -> DeviceMapper:  # noqa: PYI034 - not meant for subclasses
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._control >= 0:
            os.close(self._control)
            self._control = -1

    def version(self) -> tuple[int, int, int]:
        """Of the kernel's interface."""
        return self._call(Call.VERSION, "")[0].version

    def create(self, name: str, targets: Sequence[Target], *, read_only: bool = False, uuid: str = "") -> str:
        """Make a device with this table, and its node; its path. Raises BusyError if the name is taken, MountError."""
        flags = int(Flag.READ_ONLY) if read_only else 0
        self._call(Call.DEV_CREATE, name, uuid=uuid)
        try:
            self.load(name, targets, read_only=read_only)
            made = self._call(Call.DEV_SUSPEND, name, flags=flags)[0]
            return self._node(name, made.device)
        except BaseException:
            with suppress(MountError, BusyError):
                self.remove(name)
            raise

    def load(self, name: str, targets: Sequence[Target], *, read_only: bool = False) -> None:
        """Give a device another table, which counts from the next `resume` on."""
        self._call(Call.TABLE_LOAD, name, flags=int(Flag.READ_ONLY) if read_only else 0, targets=targets)

    def suspend(self, name: str, *, flush: bool = True, freeze: bool = True) -> None:
        """Hold back all reads and writes. flush: let those under way end first; freeze: the file system too."""
        flags = Flag.SUSPEND | (Flag(0) if flush else Flag.NO_FLUSH) | (Flag(0) if freeze else Flag.SKIP_LOCKFS)
        self._call(Call.DEV_SUSPEND, name, flags=int(flags))

    def resume(self, name: str) -> None:
        """Go on, with the table that was loaded last."""
        self._call(Call.DEV_SUSPEND, name)

    def status(self, name: str, *, table: bool = False) -> Answer:
        """The state of a device, and what its targets say of themselves, or with `table` what they were told."""
        flags = int(Flag.STATUS_TABLE) if table else 0
        size = _FIRST_ANSWER
        while True:
            answer, data = self._call(Call.TABLE_STATUS, name, flags=flags, size=size)
            if not answer.flags & Flag.BUFFER_FULL:
                return parse(data, with_targets=True)
            size *= 4
            if size > self._limits.device_mapper_answer:
                raise LimitError(f"device-mapper: {name} says more than limits.device_mapper_answer")

    def redirect(self, name: str, targets: Sequence[Target], *, flush: bool = True) -> None:
        """Give a device another table at once, under whatever is mounted on it. flush: let reads that are under way end
        first."""
        self.load(name, targets, read_only=True)
        self.suspend(name, flush=flush, freeze=False)
        self.resume(name)

    def leads_to(self, name: str, device: str) -> bool:
        """Whether a device is nothing but the beginning of another one."""
        number = os.stat(device).st_rdev
        wanted = f"{os.major(number)}:{os.minor(number)} 0"
        return [(t.kind, t.parameters) for t in self.status(name, table=True).targets] == [("linear", wanted)]

    def exists(self, name: str) -> bool:
        try:
            self._ioctl(self._control, _BASE | Call.DEV_STATUS, build(name))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return False
            raise _understood(Call.DEV_STATUS, name, error) from None
        return True

    def remove(self, name: str) -> None:
        """Take a device away, and its node. Raises BusyError while it is open."""
        self._call(Call.DEV_REMOVE, name)
        path = f"{self._folder}/{name}"
        with suppress(OSError):
            if stat.S_ISBLK(os.lstat(path).st_mode):
                os.unlink(path)

    def _node(self, name: str, device: int) -> str:
        path = f"{self._folder}/{name}"
        try:
            with suppress(FileNotFoundError):
                found = os.stat(path)
                if stat.S_ISBLK(found.st_mode) and found.st_rdev == device:
                    return path
                os.unlink(path)
            os.mknod(path, stat.S_IFBLK | 0o600, device)
        except FileExistsError:  # udev was faster
            pass
        except OSError as error:
            raise MountError(f"make {path}: {error.strerror}") from None
        return path

    def _call(
        self, call: Call, name: str, *, flags: int = 0, targets: Sequence[Target] = (), size: int = 0, uuid: str = ""
    ) -> tuple[Answer, bytearray]:
        data = build(name, flags=flags, targets=targets, size=size, uuid=uuid)
        try:
            self._ioctl(self._control, _BASE | call, data)
        except OSError as error:
            raise _understood(call, name, error, targets) from None
        return parse(data), data


def _understood(call: Call, name: str, error: OSError, targets: Sequence[Target] = ()) -> RegraftError:
    words = f"device-mapper: {call.name} {name}: {error.strerror}"
    if error.errno == errno.ENXIO:
        return MountError(words, cure="there is no such device: see /dev/mapper for those that there are")
    if error.errno == errno.EBUSY:
        return BusyError(words, cure="take another --name, or unmount what is on it")
    if error.errno in (errno.EPERM, errno.EACCES):
        return UsageError(words, cure="this needs root (CAP_SYS_ADMIN)")
    if call is Call.TABLE_LOAD and error.errno == errno.EINVAL:
        kinds = ", ".join(sorted({f"dm-{target.kind}" for target in targets}))
        return MountError(words, cure=f"see dmesg; as root: modprobe {kinds}")
    return MountError(words)


def _ioctl(descriptor: int, request: int, data: bytearray) -> int:
    result: int = fcntl.ioctl(descriptor, request, data, True)
    return result


def _open_control(folder: str) -> int:
    path = f"{folder}/control"
    try:
        if not os.path.exists(path) and _has_misc_device():
            os.makedirs(folder, exist_ok=True)
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(10, _CONTROL_MINOR))
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        words = f"open {path}: {error.strerror}"
        if error.errno in (errno.EPERM, errno.EACCES):
            raise UsageError(words, cure="this needs root (CAP_SYS_ADMIN)") from None
        raise MissingError(words, cure="as root: modprobe dm-mod") from None


def _has_misc_device() -> bool:
    with suppress(OSError), open("/proc/misc", encoding="ascii") as lines:
        return any(line.split() == [str(_CONTROL_MINOR), "device-mapper"] for line in lines)
    return False
