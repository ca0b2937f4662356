# SPDX-License-Identifier: Apache-2.0
"""Stores as ihop makes them, for tests."""

from __future__ import annotations

import struct
from pathlib import Path

from regraft.formats import ihop
from regraft.formats.protobuf import bytes_field, number_field
from regraft.model import Algorithm


def described(folder: Path, image: bytes) -> bytes:
    """An ihop store of the image in `folder`; its description."""
    parts = [image[start : start + 5000] for start in range(0, len(image), 5000)]
    chunks, order, known = b"", b"", dict[bytes, int]()
    for part in parts:
        digest = Algorithm.blake2b(32).of(part)
        if digest not in known:
            known[digest] = len(known)
            chunks += bytes_field(5, bytes_field(1, digest) + number_field(2, len(part)))
            file = folder / ihop.paths(digest)[0]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(part)
        order += bytes([known[digest]])
    body = bytes_field(2, Algorithm.BLAKE2B.of(image)) + number_field(3, len(image)) + bytes_field(4, order) + chunks
    body += bytes_field(6, number_field(3, 5000) + number_field(5, 32) + number_field(6, 2))
    lead = ihop.MAGIC + struct.pack("<Q", len(body)) + body
    return lead + Algorithm.BLAKE2B.of(lead)
