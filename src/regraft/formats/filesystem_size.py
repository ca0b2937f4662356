# SPDX-License-Identifier: Apache-2.0
"""How many bytes a file system takes, by its superblock: what SWUpdate's `source-size = "detect"` needs.

ext2 to ext4 (superblock at 1024), squashfs 4 and erofs (superblock at 1024). A hint: wrong numbers cost reuse only.
"""

from __future__ import annotations

import struct

from regraft.model.buffers import Buffer

#: Bytes from the start of a device that `detect` looks at.
HEAD = 4096


def detect(head: Buffer) -> int | None:
    """Bytes from the start of the device to the end of its file system; None if none is recognised."""
    data = bytes(head[:HEAD])
    if len(data) < HEAD:
        return None
    if data[:4] == b"hsqs":
        used: int = struct.unpack_from("<Q", data, 40)[0]
        return -(-used // 4096) * 4096
    if struct.unpack_from("<I", data, 1024)[0] == 0xE0F5E1E2:
        bits = data[1024 + 12]
        blocks: int = struct.unpack_from("<I", data, 1024 + 36)[0]
        return blocks << bits if 9 <= bits <= 16 else None
    if struct.unpack_from("<H", data, 1024 + 56)[0] == 0xEF53:
        blocks = struct.unpack_from("<I", data, 1024 + 4)[0]
        log: int = struct.unpack_from("<I", data, 1024 + 24)[0]
        incompatible: int = struct.unpack_from("<I", data, 1024 + 96)[0]
        if incompatible & 0x80:  # 64-bit block numbers
            blocks |= struct.unpack_from("<I", data, 1024 + 336)[0] << 32
        return blocks * (1024 << log) if log <= 6 else None
    return None
