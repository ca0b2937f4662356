# SPDX-License-Identifier: Apache-2.0
"""Connect the kernel's NBD client by generic netlink (linux/nbd-netlink.h), Linux >= 4.12.

No process has to stay for the client's sake: the kernel keeps the sockets, and takes others in their place.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum

from regraft.blockdev import netlink
from regraft.blockdev.attachment import Disk, index_of, node_of, wait_for_size
from regraft.errors import BusyError, FormatError, MountError, UsageError
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

FAMILY = "nbd"
GROUP = "nbd_mc_group"


class Command(IntEnum):
    CONNECT = 1
    DISCONNECT = 2
    RECONFIGURE = 3
    LINK_DEAD = 4
    STATUS = 5


class Attribute(IntEnum):
    INDEX = 1
    SIZE_BYTES = 2
    BLOCK_SIZE_BYTES = 3
    TIMEOUT = 4
    SERVER_FLAGS = 5
    CLIENT_FLAGS = 6
    SOCKETS = 7
    DEAD_CONN_TIMEOUT = 8
    DEVICE_LIST = 9
    BACKEND_IDENTIFIER = 10


_ITEM, _FD = 1, 1  # of SOCKETS
_DEVICE, _INDEX, _CONNECTED = 1, 1, 2  # of DEVICE_LIST


def sockets_attribute(descriptors: Sequence[int]) -> bytes:
    items = [netlink.nested(_ITEM, [netlink.u32(_FD, descriptor)]) for descriptor in descriptors]
    return netlink.nested(Attribute.SOCKETS, items)


def connect_attributes(disk: Disk, descriptors: Sequence[int], index: int | None) -> list[bytes]:
    """Of CONNECT; without an index the kernel picks a device, or makes one."""
    found = [] if index is None else [netlink.u32(Attribute.INDEX, index)]
    return [
        *found,
        netlink.u64(Attribute.SIZE_BYTES, disk.size),
        netlink.u64(Attribute.BLOCK_SIZE_BYTES, disk.block_size),
        netlink.u64(Attribute.SERVER_FLAGS, disk.flags),
        *_options(disk),
        sockets_attribute(descriptors),
    ]


def reconfigure_attributes(disk: Disk, descriptors: Sequence[int], index: int) -> list[bytes]:
    """Of RECONFIGURE: the sockets take the place of those that are dead, the identifier must be that of CONNECT."""
    return [netlink.u32(Attribute.INDEX, index), *_options(disk), sockets_attribute(descriptors)]


def _options(disk: Disk) -> Iterator[bytes]:
    if disk.timeout:
        yield netlink.u64(Attribute.TIMEOUT, disk.timeout)
    if disk.dead_timeout:
        yield netlink.u64(Attribute.DEAD_CONN_TIMEOUT, disk.dead_timeout)
    if disk.identifier:
        yield netlink.text(Attribute.BACKEND_IDENTIFIER, disk.identifier)


def parse_index(payload: Buffer) -> int:
    """Which device an answer or a LINK_DEAD is about. Raises FormatError."""
    for kind, value in netlink.parse_generic(payload)[1]:
        if kind == Attribute.INDEX:
            return netlink.number(value)
    raise FormatError("netlink: an answer without the number of the device")


def parse_status(payload: Buffer) -> dict[int, bool]:
    """Whether each device that STATUS tells of is connected. Raises FormatError."""
    found: dict[int, bool] = {}
    for kind, devices in netlink.parse_generic(payload)[1]:
        if kind != Attribute.DEVICE_LIST:
            continue
        for inner, device in netlink.parse_attributes(devices):
            fields = dict(netlink.parse_attributes(device)) if inner == _DEVICE else {}
            if _INDEX in fields and _CONNECTED in fields:
                found[netlink.number(fields[_INDEX])] = bool(netlink.number(fields[_CONNECTED]))
    return found


class NetlinkAttachment:
    """The `Attachment` for kernels since 4.12."""

    can_reconfigure = True

    def __init__(self, *, limits: Limits = DEFAULT) -> None:
        """Raises MissingError if the kernel has no NBD, or one without netlink."""
        self._limits = limits
        with self._talk():
            pass

    @contextmanager
    def _talk(self, doing: str = "") -> Iterator[netlink.GenericSocket]:
        try:
            with netlink.GenericSocket(FAMILY, limits=self._limits) as line:
                yield line
        except netlink.RefusedError as refused:
            raise _understood(doing, refused) from None

    def attach(self, device: str, sockets: Sequence[socket.socket], disk: Disk) -> str:
        index = None if device == "auto" else index_of(device)
        descriptors = [each.fileno() for each in sockets]
        with self._talk(f"attach {device}") as line:
            answers = line.request(Command.CONNECT, connect_attributes(disk, descriptors, index))
        if index is None:
            if not answers:
                raise FormatError("netlink: no answer that says which device was taken")
            index = parse_index(answers[0])
        node = node_of(index)
        try:
            wait_for_size(index, disk.size)
        except MountError:
            self.disconnect(node)
            raise
        return node

    def reconfigure(self, device: str, sockets: Sequence[socket.socket], disk: Disk) -> None:
        index, descriptors = index_of(device), [each.fileno() for each in sockets]
        with self._talk(f"give {device} new connections") as line:
            line.request(Command.RECONFIGURE, reconfigure_attributes(disk, descriptors, index))

    def disconnect(self, device: str) -> None:
        with self._talk(f"detach {device}") as line:
            line.request(Command.DISCONNECT, [netlink.u32(Attribute.INDEX, index_of(device))])

    def connected(self, device: str) -> bool:
        index = index_of(device)
        try:
            with self._talk(f"look at {device}") as line:
                answers = line.request(Command.STATUS, [netlink.u32(Attribute.INDEX, index)])
        except UsageError:
            raise
        except MountError:
            return False  # there is no such device
        return any(parse_status(each).get(index, False) for each in answers)


def _understood(doing: str, refused: netlink.RefusedError) -> MountError | BusyError | UsageError:
    words = f"{doing}: {refused}"
    if refused.number == errno.EPERM:
        return UsageError(words, cure="this needs root (CAP_SYS_ADMIN)")
    if refused.number == errno.EBUSY:
        return BusyError(words, cure="take another device, or auto; or `regraft umount` it first")
    return MountError(words)
