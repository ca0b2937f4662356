# SPDX-License-Identifier: Apache-2.0
"""Android payloads with the patches in them, and bsdiff patches alone."""

from __future__ import annotations

import bz2
import struct
from contextlib import suppress
from dataclasses import replace

from regraft.build.payload import Installer, read_payload
from regraft.engine.bsdiff import bspatch
from regraft.errors import RegraftError
from regraft.formats import bsdiff
from regraft.formats import payload as form
from regraft.formats.protobuf import bytes_field, number_field
from regraft.limits import DEFAULT
from regraft.testing.memory import MemoryMedium

LIMITS = replace(DEFAULT, image_size=1 << 18, patched_size=1 << 17, chunks=1000, header_size=1 << 16, artifacts=8)
OLD = bytes(range(256)) * 64


def target(data: bytes) -> None:
    with suppress(RegraftError):
        patch = bsdiff.parse(data, limits=LIMITS)
        assert len(bspatch(OLD, patch)) == patch.size
    with suppress(RegraftError):
        blobs = MemoryMedium(data)
        payload = read_payload(blobs, limits=LIMITS)
        for partition in payload.partitions:
            with suppress(RegraftError):
                Installer(payload, partition, blobs, MemoryMedium(OLD), MemoryMedium(), limits=LIMITS).run()


def seeds() -> list[bytes]:
    control = struct.pack("<6Q", 300, 5, 1 << 63 | 100, 0, 7, 0)
    streams = control, bytes(range(256)) + bytes(44), b"hello" + b"goodbye"
    packed = [bz2.compress(stream) for stream in streams]
    classic = b"BSDIFF40" + struct.pack("<3Q", len(packed[0]), len(packed[1]), 312) + b"".join(packed)
    newer = b"BSDF2\0\0\0" + struct.pack("<3Q", 48, 300, 312) + b"".join(streams)
    blobs = b"literal" + classic + newer
    extent = number_field(2, 1)

    def operation(kind: int, at: int, size: int, block: int) -> bytes:
        there = number_field(1, block) + extent
        message = number_field(1, kind) + number_field(2, at) + number_field(3, size)
        return bytes_field(8, message + bytes_field(4, extent) + bytes_field(6, there))

    partition = bytes_field(1, b"p") + bytes_field(6, number_field(1, 16384)) + bytes_field(7, number_field(1, 20480))
    partition += operation(form.REPLACE, 0, 7, 0) + operation(form.SOURCE_BSDIFF, 7, len(classic), 1)
    partition += operation(form.BROTLI_BSDIFF, 7 + len(classic), len(newer), 2) + operation(form.ZERO, 0, 0, 3)
    partition += operation(form.SOURCE_COPY, 0, 0, 4)
    manifest = number_field(3, 4096) + bytes_field(13, partition)
    return [classic, newer, b"CrAU" + struct.pack(">QQI", 2, len(manifest), 3) + manifest + b"sig" + blobs]
