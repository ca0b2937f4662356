# SPDX-License-Identifier: Apache-2.0
"""Device-mapper's and loop's structures byte by byte; what the kernel makes of them is shown in the device."""

from __future__ import annotations

import errno
import os
import struct
import sys
from pathlib import Path

import pytest

from regraft.blockdev import device_mapper, loop
from regraft.blockdev.device_mapper import Call, DeviceMapper, Flag, Target, linear, verity_target
from regraft.errors import BusyError, LimitError, MountError, RegraftError, UsageError
from regraft.formats.verity import Verity
from regraft.limits import Limits

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are those of a little-endian machine")

VERITY = Verity(root=bytes(range(32)), salt=b"\xaa\xbb", data_blocks=10, hash_offset=40_960)


def test_a_table_of_two_targets() -> None:
    data = device_mapper.build(
        "disk", flags=Flag.READ_ONLY, targets=[linear(0, 8, "7:0", 2), linear(8, 8, "/dev/b", 0)]
    )
    assert data[:12] == struct.pack("<III", 4, 0, 0)
    assert struct.unpack_from("<IIIiI", data, 12) == (len(data), 312, 2, 0, 1)
    assert data[48:53] == b"disk\0"
    assert struct.unpack_from("<QQiI16s", data, 312) == (0, 8, 0, 48, b"linear" + bytes(10))
    assert data[352:360] == b"7:0 2\0\0\0"
    assert struct.unpack_from("<QQiI16s", data, 360) == (8, 8, 0, 56, b"linear" + bytes(10))
    assert data[400:] == b"/dev/b 0" + bytes(8)
    assert device_mapper.HEADER.size == 312


def test_a_verity_table() -> None:
    root = bytes(range(32)).hex()
    assert verity_target(VERITY, "/dev/nbd0", "/dev/nbd0") == Target(
        0, 80, "verity", f"1 /dev/nbd0 /dev/nbd0 4096 4096 10 11 sha256 {root} aabb"
    )
    bare = Verity(root=bytes(32), salt=b"", data_blocks=1)
    assert verity_target(bare, "a", "b").parameters.endswith(" -")


@pytest.mark.parametrize("name", ["a/b", "..", ".", "control", "a b", "x" * 128, "-x"])
def test_names_that_would_be_other_paths(name: str) -> None:
    with pytest.raises(UsageError):
        device_mapper.build(name)


def test_devices_with_spaces_cannot_be_in_a_table() -> None:
    with pytest.raises(UsageError):
        linear(0, 1, "/dev/a b", 0)


def answer(targets: list[Target], *, flags: int = 0, device: int = 0) -> bytearray:
    """As the kernel fills it in: `next` counts from the first target."""
    body = b""
    for target in targets:
        text = target.parameters.encode() + b"\0"
        text += bytes(-(len(body) + 40 + len(text)) % 8)
        body += struct.pack(
            "<QQiI16s", target.start, target.length, 0, len(body) + 40 + len(text), target.kind.encode()
        )
        body += text
    head = device_mapper.HEADER.pack(
        4, 47, 0, 312 + len(body), 312, len(targets), 2, flags, 0, 0, device, b"disk", b"", b""
    )
    return bytearray(head + body)


TARGETS = [Target(0, 8, "linear", "7:0 2"), Target(8, 80, "verity", "V")]


def test_an_answer() -> None:
    # major 253, minor 0x12345, as the kernel writes large numbers
    found = device_mapper.parse(answer(TARGETS, device=253 << 8 | 0x45 | 0x12300 << 12), with_targets=True)
    assert found.targets == tuple(TARGETS)
    assert (os.major(found.device), os.minor(found.device)) == (253, 0x12345)
    assert (found.version, found.open_count, found.name) == ((4, 47, 0), 2, "disk")


def test_an_answer_without_data_counts_no_padding() -> None:
    data = answer([])
    struct.pack_into("<I", data, 12, 305)
    assert device_mapper.parse(data).targets == ()


def test_no_truncation_and_no_flip_of_an_answer_is_more_than_an_error() -> None:
    data = bytes(answer(TARGETS))
    broken = [data[:end] for end in range(len(data))]
    broken += [
        data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        for at in [*range(48), *range(312, len(data))] for bit in range(8)
    ]  # fmt: skip
    for each in broken:
        try:
            device_mapper.parse(each, with_targets=True)
        except RegraftError:
            continue


class Kernel:
    """Takes calls down, and answers with an error or a filled buffer."""

    def __init__(self, **failing: int) -> None:
        self.calls: list[tuple[Call, int]] = []
        self.failing = failing

    def __call__(self, _: int, request: int, data: bytearray) -> int:
        call = Call(request & 0xFF)
        assert request & ~0xFF == 0xC138FD00
        self.calls.append((call, struct.unpack_from("<I", data, 28)[0]))
        if call.name in self.failing:
            raise OSError(self.failing[call.name], os.strerror(self.failing[call.name]))
        if call is Call.TABLE_STATUS:
            full = answer([Target(0, 8, "linear", "x" * 20_000)])
            if len(full) > len(data):
                struct.pack_into("<I", data, 28, Flag.BUFFER_FULL)
            else:
                data[: len(full)] = full
        return 0


def test_a_device_whose_table_is_refused_does_not_stay(tmp_path: Path) -> None:
    kernel = Kernel(TABLE_LOAD=errno.EINVAL)
    with pytest.raises(MountError) as failed:
        DeviceMapper(folder=str(tmp_path), ioctl=kernel).create("disk", [linear(0, 8, "7:0", 0)])
    assert "modprobe dm-linear" in failed.value.cure
    assert [call for call, _ in kernel.calls] == [Call.DEV_CREATE, Call.TABLE_LOAD, Call.DEV_REMOVE]


def test_errors_of_the_kernel(tmp_path: Path) -> None:
    def mapper(**failing: int) -> DeviceMapper:
        return DeviceMapper(folder=str(tmp_path), ioctl=Kernel(**failing))

    with pytest.raises(BusyError):
        mapper(DEV_REMOVE=errno.EBUSY).remove("disk")
    with pytest.raises(UsageError):
        mapper(VERSION=errno.EPERM).version()
    assert not mapper(DEV_STATUS=errno.ENXIO).exists("disk")
    assert mapper().exists("disk")


def test_suspend_and_resume_have_their_flags(tmp_path: Path) -> None:
    kernel = Kernel()
    mapper = DeviceMapper(folder=str(tmp_path), ioctl=kernel)
    mapper.suspend("disk")
    mapper.suspend("disk", flush=False, freeze=False)
    mapper.resume("disk")
    assert kernel.calls == [(Call.DEV_SUSPEND, 2), (Call.DEV_SUSPEND, 2 | 1024 | 2048), (Call.DEV_SUSPEND, 0)]


def test_a_status_that_needs_more_room_gets_it_up_to_a_limit(tmp_path: Path) -> None:
    kernel = Kernel()
    (target,) = DeviceMapper(folder=str(tmp_path), ioctl=kernel).status("disk", table=True).targets
    assert target.parameters == "x" * 20_000
    assert len(kernel.calls) == 2
    with pytest.raises(LimitError):
        DeviceMapper(folder=str(tmp_path), ioctl=Kernel(), limits=Limits(device_mapper_answer=20_000)).status("disk")


def test_the_configuration_of_a_loop_device() -> None:
    data = loop.config(7, "/images/a", loop.Flag.READ_ONLY | loop.Flag.AUTOCLEAR, 4096)
    assert len(data) == 304
    assert struct.unpack_from("<II", data) == (7, 4096)
    assert struct.unpack_from("<I", data, 8 + 52) == (5,)
    assert data[8 + 56 : 8 + 66] == b"/images/a\0"
    assert len(loop.info("x" * 100, 0)) == 232
