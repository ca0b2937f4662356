# SPDX-License-Identifier: Apache-2.0
"""Generic netlink byte by byte, and with a kernel at the other end of a socket pair that speaks the real layouts."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from regraft.blockdev import attachment, nbd_ioctl, nbd_netlink, netlink
from regraft.blockdev.attachment import Disk
from regraft.errors import BusyError, FormatError, MissingError, MountError, RegraftError, UsageError
from regraft.limits import Limits

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are those of a little-endian machine")

DISK = Disk(size=0x1234000, timeout=30, dead_timeout=86_400, identifier="regraft-1")
CONNECT = bytes.fromhex(
    "84000000 1c00 0500 07000000 00000000"  # length, family, REQUEST | ACK, sequence, port
    "01 01 0000"  # CONNECT, version
    "0800 0100 03000000"  # INDEX
    "0c00 0200 0040230100000000"  # SIZE_BYTES
    "0c00 0300 0010000000000000"  # BLOCK_SIZE_BYTES
    "0c00 0500 0f01000000000000"  # SERVER_FLAGS: HAS_FLAGS, READ_ONLY, FLUSH, FUA, MULTI_CONN
    "0c00 0400 1e00000000000000"  # TIMEOUT
    "0c00 0800 8051010000000000"  # DEAD_CONN_TIMEOUT
    "0e00 0a00 726567726166742d3100 0000"  # BACKEND_IDENTIFIER with its NUL, padded
    "1c00 0780"  # SOCKETS, nested
    "0c00 0180 0800 0100 09000000"  # ITEM, nested: FD
    "0c00 0180 0800 0100 0a000000"
)


def test_a_connect_request() -> None:
    attributes = nbd_netlink.connect_attributes(DISK, [9, 10], 3)
    made = netlink.message(28, nbd_netlink.Command.CONNECT, attributes, sequence=7)
    assert made.hex() == CONNECT.hex()


def test_without_an_index_the_kernel_picks_one() -> None:
    attributes = nbd_netlink.connect_attributes(DISK, [9], None)
    kinds = [kind for kind, _ in netlink.parse_attributes(b"".join(attributes))]
    assert kinds == [2, 3, 5, 4, 8, 10, 7]


def test_a_reconfigure_request_names_device_identifier_and_sockets() -> None:
    parsed = netlink.parse_attributes(b"".join(nbd_netlink.reconfigure_attributes(DISK, [5], 2)))
    assert [kind for kind, _ in parsed] == [1, 4, 8, 10, 7]
    assert netlink.string(dict(parsed)[10]) == "regraft-1"


def test_times_and_identifier_are_left_out_where_there_are_none() -> None:
    disk = Disk(4096, timeout=0, dead_timeout=0)
    kinds = [kind for kind, _ in netlink.parse_attributes(b"".join(nbd_netlink.connect_attributes(disk, [1], 0)))]
    assert kinds == [1, 2, 3, 5, 7]


FAMILY = netlink.message(
    16, 1,
    [
        netlink.text(2, "nbd"), netlink.attribute(1, struct.pack("=H", 28)), netlink.u32(3, 1),
        netlink.nested(7, [netlink.nested(1, [netlink.u32(2, 5), netlink.text(1, "nbd_mc_group")])]),
    ],
    sequence=1,
)  # fmt: skip
STATUS = netlink.message(
    28, 5,
    [
        netlink.nested(9, [
            netlink.nested(1, [netlink.u32(1, 3), netlink.attribute(2, b"\1")]),
            netlink.nested(1, [netlink.u32(1, 4), netlink.attribute(2, b"\0")]),
        ])
    ],
    sequence=2,
)  # fmt: skip


def test_answers() -> None:
    (family,) = netlink.parse_messages(FAMILY)
    assert netlink.parse_family(family.payload) == netlink.Family(28, {"nbd_mc_group": 5})
    (status,) = netlink.parse_messages(STATUS)
    assert nbd_netlink.parse_status(status.payload) == {3: True, 4: False}
    (dead,) = netlink.parse_messages(netlink.message(28, 4, [netlink.u32(1, 6)], sequence=0))
    assert nbd_netlink.parse_index(dead.payload) == 6


def take_apart(data: bytes) -> None:
    """All parsers on one datagram."""
    for message in netlink.parse_messages(data):
        for parser in (netlink.parse_family, nbd_netlink.parse_status, nbd_netlink.parse_index):
            try:
                parser(message.payload)
            except RegraftError:
                continue
        if message.kind == netlink.ERROR:
            netlink.parse_error(message)


@pytest.mark.parametrize("data", [FAMILY, STATUS, CONNECT, struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -16)])
def test_no_truncation_and_no_flip_is_more_than_an_error(data: bytes) -> None:
    broken = [data[:end] for end in range(len(data))]
    broken += [data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for at in range(len(data)) for bit in range(8)]
    for each in broken:
        try:
            take_apart(each)
        except RegraftError:
            continue


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(15), "15 bytes where a message begins"),
        (struct.pack("=IHHII", 15, 1, 0, 0, 0), "a message of 15 bytes"),
        (struct.pack("=IHHII", 17, 1, 0, 0, 0), "a message of 17 bytes, 16 are there"),
    ],
)
def test_lengths_of_messages_are_checked(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        netlink.parse_messages(data)


@pytest.mark.parametrize("data", [b"\4\0\1", b"\3\0\1\0", b"\5\0\1\0", b"\xff\xff\1\0" + bytes(8)])
def test_lengths_of_attributes_are_checked(data: bytes) -> None:
    with pytest.raises(FormatError):
        netlink.parse_attributes(data)


Answer = Callable[[bytes, int], bytes]


@contextmanager
def kernel(*answers: Answer) -> Iterator[socket.socket]:
    """A line to a kernel that gives these answers, each a function of the request and its sequence number."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def serve() -> None:
        for answer in answers:
            request = theirs.recv(65_536)
            theirs.send(answer(request, struct.unpack_from("=I", request, 8)[0]))

    thread = threading.Thread(target=serve)
    thread.start()
    yield ours
    thread.join()
    theirs.close()
    ours.close()


def renumbered(message: bytes, sequence: int) -> bytes:
    return message[:8] + struct.pack("=I", sequence) + message[12:]


def ack(sequence: int, code: int = 0) -> bytes:
    return struct.pack("=IHHIIi", 36, 2, 0, sequence, 0, -code) + bytes(16)


def known(_: bytes, sequence: int) -> bytes:
    return renumbered(FAMILY, sequence) + ack(sequence)


def test_a_request_and_its_answer() -> None:
    def answer(request: bytes, sequence: int) -> bytes:
        assert request[4:6] == b"\x1c\0"
        stray = renumbered(STATUS, sequence + 1)
        return stray + renumbered(STATUS, sequence) + ack(sequence)

    with kernel(known, answer) as line, netlink.GenericSocket("nbd", line=line) as talk:
        assert talk.family.number == 28
        (payload,) = talk.request(5, [netlink.u32(1, 3)])
        assert nbd_netlink.parse_status(payload)[3]


def test_a_family_that_is_not_there() -> None:
    with (
        kernel(lambda _, sequence: ack(sequence, errno.ENOENT)) as line,
        pytest.raises(MissingError, match="has no nbd") as failed,
    ):
        netlink.GenericSocket("nbd", line=line)
    assert "modprobe nbd" in failed.value.cure


def test_a_refusal_has_its_number() -> None:
    with (
        kernel(known, lambda _, sequence: ack(sequence, errno.EBUSY)) as line,
        netlink.GenericSocket("nbd", line=line) as talk,
        pytest.raises(netlink.RefusedError) as refused,
    ):
        talk.request(1, [])
    assert refused.value.number == errno.EBUSY
    assert isinstance(nbd_netlink._understood("attach", refused.value), BusyError)


def test_a_kernel_that_is_silent_or_too_loud() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, pytest.raises(MountError, match="does not answer"):
        netlink.GenericSocket("nbd", line=ours, timeout=0.05)
    with kernel(lambda _, __: bytes(5000)) as line, pytest.raises(RegraftError, match="netlink_message"):
        netlink.GenericSocket("nbd", line=line, limits=Limits(netlink_message=4096))


def test_this_kernel_knows_the_controller() -> None:
    try:
        with netlink.GenericSocket("nlctrl") as talk:
            assert talk.family.number == netlink.CONTROLLER
    except MissingError:
        pytest.skip("no generic netlink here")


@pytest.mark.parametrize(("name", "index"), [("/dev/nbd0", 0), ("nbd17", 17)])
def test_names_of_devices(name: str, index: int) -> None:
    assert attachment.index_of(name) == index


@pytest.mark.parametrize("name", ["/dev/nbd0p1", "/dev/sda", "auto", "/dev/nbd", "/dev/../nbd1", "/dev/nbd-1", ""])
def test_what_is_no_name_of_a_device(name: str) -> None:
    with pytest.raises(UsageError):
        attachment.index_of(name)


@pytest.fixture
def sysfs(tmp_path: os.PathLike[str]) -> str:
    for index, pid in ((0, "77"), (1, "")):
        folder = f"{tmp_path}/nbd{index}"
        os.makedirs(f"{folder}/queue")
        os.makedirs(f"{folder}/holders")
        for name, text in (("size", "8\n"), ("dev", f"43:{index * 32}\n"), ("backend", "regraft-1\n"), ("pid", pid)):
            if text:
                with open(f"{folder}/{name}", "w") as file:
                    file.write(text)
    return str(tmp_path)


def test_what_sysfs_says(sysfs: str) -> None:
    assert attachment.size_of(0, sysfs=sysfs) == 4096
    assert attachment.is_attached(0, sysfs=sysfs)
    assert not attachment.is_attached(1, sysfs=sysfs)
    assert attachment.identifier_of(0, sysfs=sysfs) == "regraft-1"
    assert attachment.size_of(9, sysfs=sysfs) == 0
    with pytest.raises(MountError, match="has 4096 bytes"):
        attachment.wait_for_size(0, 8192, sysfs=sysfs, timeout=0)


def test_who_uses_a_device_without_opening_it(sysfs: str) -> None:
    os.makedirs(f"{sysfs}/proc/1/ns")
    os.symlink("mnt:[1]", f"{sysfs}/proc/1/ns/mnt")
    with open(f"{sysfs}/proc/1/mountinfo", "w") as file:
        file.write("22 1 43:0 / /data ro - ext4 /dev/nbd0 ro\n")
    with pytest.raises(BusyError, match="mounted on /data"):
        attachment.check_unused("/dev/nbd0", sysfs=sysfs, proc=f"{sysfs}/proc")
    attachment.check_unused("/dev/nbd1", sysfs=sysfs, proc=f"{sysfs}/proc")
    os.mkdir(f"{sysfs}/nbd1/holders/dm-0")
    with pytest.raises(BusyError, match="dm-0 stands on"):
        attachment.check_unused("/dev/nbd1", sysfs=sysfs, proc=f"{sysfs}/proc")


def test_the_order_of_ioctls() -> None:
    calls = nbd_ioctl.plan(Disk(8192, timeout=10), [5, 6])
    assert calls == [(0xAB01, 4096), (0xAB07, 2), (0xAB09, 10), (0xAB0A, 0x10F), (0xAB00, 5), (0xAB00, 6)]


def test_by_ioctl_connections_cannot_be_replaced(sysfs: str) -> None:
    old = nbd_ioctl.IoctlAttachment(sysfs=sysfs)
    assert old.connected("/dev/nbd0")
    with pytest.raises(RegraftError, match="cannot be replaced"):
        old.reconfigure("/dev/nbd0", [], DISK)
    with pytest.raises(BusyError, match="attached already"):
        old.attach("/dev/nbd0", [], DISK)
