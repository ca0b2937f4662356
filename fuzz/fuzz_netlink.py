# SPDX-License-Identifier: Apache-2.0
"""Any bytes as an answer of the kernel over netlink, and as one of device-mapper."""

from __future__ import annotations

import struct
from contextlib import suppress

from regraft.blockdev import device_mapper, nbd_netlink, netlink
from regraft.errors import RegraftError


def target(data: bytes) -> None:
    with suppress(RegraftError):
        device_mapper.parse(data, with_targets=True)
    try:
        messages = netlink.parse_messages(data)
    except RegraftError:
        return
    for message in messages:
        parsers = (netlink.parse_family, nbd_netlink.parse_status, nbd_netlink.parse_index)
        for parser in parsers:
            try:
                parser(message.payload)
            except RegraftError:
                continue
        try:
            netlink.parse_error(message)
        except RegraftError:
            continue


def seeds() -> list[bytes]:
    groups = netlink.nested(7, [netlink.nested(1, [netlink.u32(2, 5), netlink.text(1, "nbd_mc_group")])])
    family = netlink.message(16, 1, [netlink.text(2, "nbd"), netlink.u32(1, 28), groups], sequence=1)
    devices = [netlink.nested(1, [netlink.u32(1, index), netlink.attribute(2, b"\1")]) for index in range(3)]
    status = netlink.message(28, 5, [netlink.nested(9, devices)], sequence=2)
    refused = struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -16) + bytes(16)
    table = device_mapper.build("disk", targets=[device_mapper.linear(0, 8, "7:0", 0)] * 2)
    return [family, status, family + refused, refused, bytes(table), b""]
