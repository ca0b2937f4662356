# SPDX-License-Identifier: Apache-2.0
"""Generic netlink, as far as a client needs it (linux/netlink.h, linux/genetlink.h; RFC 3549 for the messages).

Messages are made and taken apart by pure functions; `GenericSocket` sends and receives. All integers are of the
machine's byte order, all parts start at multiples of four.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from types import TracebackType

from regraft.errors import FormatError, LimitError, MissingError, MountError, UsageError
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

MESSAGE = Struct("=IHHII")  #: length, kind, flags, sequence, port
GENERIC = Struct("=BBH")  #: command, version, reserved
ATTRIBUTE = Struct("=HH")  #: length with this header, kind
_ERROR = Struct("=i")
_U32, _U64 = Struct("=I"), Struct("=Q")

NETLINK_GENERIC = 16
ERROR, DONE = 2, 3  #: kinds of messages of the protocol itself
REQUEST, ACK = 1, 4  #: flags
_NESTED, _BIG_ENDIAN = 0x8000, 0x4000  # of an attribute's kind
_LARGEST = 0xFFFF
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1

# The family that knows the others
CONTROLLER, _GET_FAMILY = 16, 3
_FAMILY_ID, _FAMILY_NAME, _GROUPS = 1, 2, 7
_GROUP_NAME, _GROUP_ID = 1, 2


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `kind` is the family, or ERROR, or DONE."""

    kind: int
    flags: int
    sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Family:
    """A family of generic netlink: its number, and its multicast groups by name."""

    number: int
    groups: dict[str, int]


def attribute(kind: int, payload: Buffer) -> bytes:
    """One attribute, padded. Raises LimitError above 64 KiB."""
    length = ATTRIBUTE.size + len(payload)
    if length > _LARGEST:
        raise LimitError(f"a netlink attribute of {length} bytes, more than {_LARGEST}")
    return ATTRIBUTE.pack(length, kind) + bytes(payload) + bytes(-length % 4)


def nested(kind: int, attributes: Iterable[bytes]) -> bytes:
    """An attribute that consists of attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, _U32.pack(value))


def u64(kind: int, value: int) -> bytes:
    return attribute(kind, _U64.pack(value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def message(family: int, command: int, attributes: Iterable[bytes], *, sequence: int, version: int = 1) -> bytes:
    """A request of generic netlink that asks for an acknowledgement."""
    payload = GENERIC.pack(command, version, 0) + b"".join(attributes)
    return MESSAGE.pack(MESSAGE.size + len(payload), family, REQUEST | ACK, sequence, 0) + payload


def parse_messages(data: Buffer) -> list[Message]:
    """What one datagram consists of. Raises FormatError."""
    view, at, found = memoryview(data).cast("B"), 0, []
    while at < len(view):
        if len(view) - at < MESSAGE.size:
            raise FormatError(f"netlink: {len(view) - at} bytes where a message begins", offset=at)
        length, kind, flags, sequence, _ = MESSAGE.unpack_from(view, at)
        if not MESSAGE.size <= length <= len(view) - at:
            raise FormatError(f"netlink: a message of {length} bytes, {len(view) - at} are there", offset=at)
        found.append(Message(kind, flags, sequence, bytes(view[at + MESSAGE.size : at + length])))
        at += length + -length % 4
    return found


def parse_generic(payload: Buffer) -> tuple[int, list[tuple[int, memoryview]]]:
    """The command of a message of generic netlink, and its attributes. Raises FormatError."""
    view = memoryview(payload).cast("B")
    if len(view) < GENERIC.size:
        raise FormatError(f"netlink: {len(view)} bytes where a command belongs", offset=0)
    return GENERIC.unpack_from(view)[0], parse_attributes(view[GENERIC.size :])


def parse_attributes(data: Buffer) -> list[tuple[int, memoryview]]:
    """The attributes in order: kind, payload. Raises FormatError."""
    view, at, found = memoryview(data).cast("B"), 0, []
    while at < len(view):
        if len(view) - at < ATTRIBUTE.size:
            raise FormatError(f"netlink: {len(view) - at} bytes where an attribute begins", offset=at)
        length, kind = ATTRIBUTE.unpack_from(view, at)
        if not ATTRIBUTE.size <= length <= len(view) - at:
            raise FormatError(f"netlink: an attribute of {length} bytes, {len(view) - at} are there", offset=at)
        found.append((kind & ~(_NESTED | _BIG_ENDIAN), view[at + ATTRIBUTE.size : at + length]))
        at += length + -length % 4
    return found


def number(payload: memoryview) -> int:
    """An integer of 1, 2, 4 or 8 bytes. Raises FormatError."""
    if len(payload) not in (1, 2, 4, 8):
        raise FormatError(f"netlink: a number of {len(payload)} bytes")
    return int.from_bytes(payload, sys.byteorder)


def string(payload: memoryview) -> str:
    """A text, up to its NUL. Raises FormatError."""
    try:
        return bytes(payload).partition(b"\0")[0].decode()
    except UnicodeDecodeError:
        raise FormatError("netlink: a text that is not UTF-8") from None


def parse_error(message: Message) -> int:
    """The errno of an ERROR message, 0 for an acknowledgement. Raises FormatError."""
    if len(message.payload) < _ERROR.size:
        raise FormatError(f"netlink: an error message of {len(message.payload)} bytes", offset=0)
    code: int = _ERROR.unpack_from(message.payload)[0]
    if not -4096 < code <= 0:
        raise FormatError(f"netlink: an error message with the number {code}", offset=0)
    return -code


def family_request(name: str, sequence: int) -> bytes:
    """Asks the controller for a family."""
    return message(CONTROLLER, _GET_FAMILY, [text(_FAMILY_NAME, name)], sequence=sequence)


def parse_family(payload: Buffer) -> Family:
    """The controller's answer. Raises FormatError."""
    identity, groups = 0, {}
    for kind, value in parse_generic(payload)[1]:
        if kind == _FAMILY_ID:
            identity = number(value)
        elif kind == _GROUPS:
            for _, group in parse_attributes(value):
                fields = dict(parse_attributes(group))
                if _GROUP_NAME in fields and _GROUP_ID in fields:
                    groups[string(fields[_GROUP_NAME])] = number(fields[_GROUP_ID])
    if not identity:
        raise FormatError("netlink: a family without a number")
    return Family(identity, groups)


class RefusedError(Exception):
    """The kernel answered a request with `number`, an errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class GenericSocket:
    """Requests to one family of the kernel. Use it as a context manager; not for several threads at once."""

    def __init__(
        self, family: str, *, line: socket.socket | None = None, timeout: float = 60.0, limits: Limits = DEFAULT
    ) -> None:
        """`line`: a socket that stands for the kernel's, for tests. Raises MissingError without the family."""
        self._limits = limits
        self._sequence = 0
        try:
            self._line = line or _open()
        except OSError as error:
            raise MissingError(f"generic netlink: {error.strerror}") from None
        self._line.settimeout(timeout)
        try:
            self.family = self._find(family)
        except BaseException:
            self._line.close()
            raise

    def __enter__(self) -> GenericSocket:  # noqa: PYI034 - not meant for subclasses
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.close()

    def request(self, command: int, attributes: Iterable[bytes]) -> list[bytes]:
        """Send a command; the payloads of its answers. Raises RefusedError, FormatError, MountError."""
        self._sequence += 1
        return self._exchange(message(self.family.number, command, attributes, sequence=self._sequence))

    def join(self, group: str) -> None:
        """Receive what is sent to a multicast group. Raises MissingError, MountError."""
        if group not in self.family.groups:
            raise MissingError(f"netlink: no multicast group {group!r} in this kernel")
        try:
            self._line.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, self.family.groups[group])
        except OSError as error:
            raise MountError(f"netlink: join {group}: {error.strerror}") from None

    def listen(self, timeout: float) -> list[bytes]:
        """The payloads of the next messages to a group that was joined; none after `timeout` seconds."""
        self._line.settimeout(timeout)
        try:
            return [each.payload for each in self._receive() if each.kind == self.family.number]
        except TimeoutError:
            return []

    def _find(self, name: str) -> Family:
        self._sequence += 1
        try:
            answers = self._exchange(family_request(name, self._sequence), family=CONTROLLER)
        except RefusedError as refused:
            if refused.number != errno.ENOENT:
                raise MountError(f"netlink: look for {name}: {refused}") from None
            raise MissingError(f"netlink: this kernel has no {name}", cure=f"as root: modprobe {name}") from None
        if not answers:
            raise FormatError(f"netlink: no answer about {name}")
        return parse_family(answers[0])

    def _exchange(self, data: bytes, *, family: int | None = None) -> list[bytes]:
        """Up to the acknowledgement; messages with other sequence numbers were not asked for."""
        wanted = self.family.number if family is None else family
        answers: list[bytes] = []
        try:
            self._line.send(data)
            while True:
                for each in self._receive():
                    if each.sequence != self._sequence:
                        continue
                    if each.kind == ERROR:
                        if code := parse_error(each):
                            raise RefusedError(code)
                        return answers
                    if each.kind == DONE:
                        return answers
                    if each.kind == wanted:
                        answers.append(each.payload)
        except TimeoutError:
            raise MountError("netlink: the kernel does not answer") from None
        except PermissionError as error:
            raise UsageError(f"netlink: {error.strerror}", cure="this needs root (CAP_SYS_ADMIN)") from None
        except OSError as error:
            raise MountError(f"netlink: {error.strerror}") from None

    def _receive(self) -> list[Message]:
        data, _, flags, _ = self._line.recvmsg(self._limits.netlink_message)
        if flags & socket.MSG_TRUNC:
            raise LimitError(f"netlink: an answer above limits.netlink_message = {self._limits.netlink_message}")
        if not data:
            raise FormatError("netlink: an empty answer")
        return parse_messages(data)


def _open() -> socket.socket:
    line = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_GENERIC)
    line.bind((0, 0))
    return line
