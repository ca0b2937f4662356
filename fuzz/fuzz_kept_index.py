# SPDX-License-Identifier: Apache-2.0
"""Any bytes as a kept index: as they are, and again with a right digest at their end."""

from __future__ import annotations

import hashlib
from array import array

from regraft.errors import RegraftError
from regraft.formats import kept_index, zchunk
from regraft.model import DigestColumn, Index


def target(data: bytes) -> None:
    for content in (data, data[:-32] + hashlib.sha256(data[:-32]).digest()):
        try:
            index = kept_index.parse(content)
        except RegraftError:
            continue
        if kept_index.parse(kept_index.build(index)) != index:
            raise AssertionError("an index changes when it is written and read")


def seeds() -> list[bytes]:
    found = [b""]
    for algorithm in zchunk.ALGORITHMS:
        digests = DigestColumn(algorithm, bytes(3 * algorithm.size))
        found.append(kept_index.build(Index(array("Q", [0, 1, 131_073, 131_080]), digests, "zchunk/48/15/8192/131072")))
    return found
