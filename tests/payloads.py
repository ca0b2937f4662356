# SPDX-License-Identifier: Apache-2.0
"""Android update payloads and bsdiff patches for tests, made straight from their layouts."""

from __future__ import annotations

import bz2
import hashlib
import struct
from collections.abc import Callable

import brotli

from regraft.formats.protobuf import bytes_field, number_field

BLOCK = 4096
Extents = list[tuple[int, int]]


def sign_magnitude(value: int) -> bytes:
    return struct.pack("<Q", value if value >= 0 else -value | 1 << 63)


def bsdiff(steps: list[tuple[bytes, bytes, int]], *, names: str = "") -> bytes:
    """A patch of steps (difference, extra, skip): BSDIFF40, or BSDF2 with a compression (n, z, b) for each stream."""
    encoders: dict[str, Callable[[bytes], bytes]] = {"n": bytes, "z": bz2.compress, "b": brotli.compress}
    control = b"".join(
        sign_magnitude(len(plus)) + sign_magnitude(len(more)) + sign_magnitude(skip) for plus, more, skip in steps
    )
    plain = control, b"".join(step[0] for step in steps), b"".join(step[1] for step in steps)
    first, second, third = (encoders[name](data) for name, data in zip(names or "zzz", plain, strict=True))
    magic = b"BSDF2" + bytes("nzb".index(name) for name in names) if names else b"BSDIFF40"
    size = len(plain[1]) + len(plain[2])
    return magic + b"".join(map(sign_magnitude, (len(first), len(second), size))) + first + second + third


def _extents(name: int, extents: Extents) -> bytes:
    return b"".join(
        bytes_field(name, number_field(1, start) + number_field(2, count), always=True) for start, count in extents
    )


class PayloadMaker:
    """Collects operations of one partition."""

    def __init__(self) -> None:
        self.blobs = bytearray()
        self.operations: list[bytes] = []

    def add(
        self, kind: int, target: Extents, *, data: bytes | None = None, source: Extents | None = None,
        digest: bytes | None = None, source_digest: bytes = b"",
    ) -> None:  # fmt: skip
        message = number_field(1, kind)
        if data is not None:
            message += number_field(2, len(self.blobs)) + number_field(3, len(data))
            message += bytes_field(8, digest or hashlib.sha256(data).digest())
            self.blobs += data
        message += _extents(4, source or []) + _extents(6, target) + bytes_field(9, source_digest)
        self.operations.append(message)

    def build(
        self, old: bytes | None, new: bytes, *, name: str = "system", extra: bytes = b"", minor: int = 4
    ) -> bytes:
        def info(image: bytes) -> bytes:
            return number_field(1, len(image)) + bytes_field(2, hashlib.sha256(image).digest())

        partition = bytes_field(1, name.encode())
        partition += bytes_field(6, info(old)) if old is not None else b""
        partition += bytes_field(7, info(new)) + b"".join(bytes_field(8, op, always=True) for op in self.operations)
        manifest = number_field(3, BLOCK) + number_field(12, minor) + bytes_field(13, partition + extra)
        signature = b"a signature"
        head = b"CrAU" + struct.pack(">QQI", 2, len(manifest), len(signature))
        return head + manifest + signature + bytes(self.blobs)
