# SPDX-License-Identifier: Apache-2.0
"""ihop descriptions: any bytes are a description whose recipe is sound, or one of our errors.

The checksum would stop every mutation at the door: it is made right again.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace

from regraft.errors import RegraftError
from regraft.formats import ihop
from regraft.formats.protobuf import bytes_field, number_field
from regraft.limits import DEFAULT
from regraft.model import Algorithm

LIMITS = replace(DEFAULT, image_size=1 << 20, chunk_size=1 << 16, chunks=2000, header_size=1 << 16)


def target(data: bytes) -> None:
    with suppress(RegraftError):
        check(data)
    with suppress(RegraftError):
        check(sealed(data[ihop.LEAD_SIZE : -64]))


def check(data: bytes) -> None:
    header = ihop.parse_header(data, limits=LIMITS)
    recipe = ihop.recipe(header, "fuzz")
    assert recipe.size == header.image_size
    assert all(offset < len(header) for offset in recipe.units.offset)


def sealed(dictionary: bytes) -> bytes:
    lead = ihop.MAGIC + struct.pack("<Q", len(dictionary)) + dictionary
    return lead + Algorithm.BLAKE2B.of(lead)


def seeds() -> list[bytes]:
    chunks = b"".join(
        bytes_field(5, bytes_field(1, bytes([number]) * 32) + number_field(2, 100 + number)) for number in range(3)
    )
    rest = bytes_field(6, number_field(1, 7) + number_field(3, 999) + number_field(4, 16) + number_field(5, 32))
    head = bytes_field(1, b"0.1.2") + bytes_field(2, bytes(64)) + number_field(3, 403)
    return [b"", sealed(head + bytes_field(4, bytes([0, 1, 2, 0])) + chunks + rest), sealed(rest)]
