# SPDX-License-Identifier: Apache-2.0
"""Any bytes as a superblock and hash tree of dm-verity, and as the record of a mount."""

from __future__ import annotations

from regraft.blockdev import records
from regraft.errors import RegraftError
from regraft.formats import verity


def target(data: bytes) -> None:
    for parser in (verity.parse_superblock, lambda each: verity.check_tree(each, bytes(32)), records.parse):
        try:
            parser(data)
        except RegraftError:
            continue


def seeds() -> list[bytes]:
    def read(_: int, view: memoryview) -> None:
        view[:] = bytes(len(view))

    record = records.Record("nbd", "/dev/nbd3", "/images/a", 4096, 77, identifier="x", connections=2, timeout=30)
    return [verity.build(read, 4096 * count, b"salt")[1][:9000] for count in (1, 2)] + [records.build(record), b"{}"]
