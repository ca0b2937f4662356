# SPDX-License-Identifier: Apache-2.0
"""Any bytes as the index of a pack: as they are, and as a group with a right CRC behind a sound header."""

from __future__ import annotations

import struct
import zlib

from regraft.errors import RegraftError
from regraft.formats import pack_index
from regraft.limits import Limits
from regraft.model import Algorithm

HEADER = pack_index.build_header(1, Algorithm.SHA256)
CRC = pack_index.crc_of(HEADER)
LIMITS = Limits(pack_index_size=1 << 20)


def target(data: bytes) -> None:
    sealed = data + struct.pack("<I", zlib.crc32(data, CRC))
    for content in (data, HEADER + data, HEADER + sealed):
        try:
            index = pack_index.parse(content, limits=LIMITS)
        except RegraftError:
            continue
        columns = {len(index), len(index.blocks), len(index.digests)}
        if len(columns) != 1 or not 0 < index.end <= len(content) or index.skipped > len(content):
            raise AssertionError("an index that does not add up")


def seeds() -> list[bytes]:
    digests = bytes(range(96))
    group = pack_index.build_group(CRC, [0, 2, 3], [5000, 1, 4096], digests)
    drop = pack_index.build_group(CRC, [2], [0], digests[32:64])
    return [b"", HEADER, group[:-4], HEADER + group + drop + group[:20], b"RGGR" * 100 + group]
