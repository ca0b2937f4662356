# SPDX-License-Identifier: Apache-2.0
"""bita archives: any bytes are an archive that gives the image it promises, or one of our errors.

Checksums would stop every mutation at the door: they are made right again, for the header and for the image.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace

from regraft.build import cba as packer
from regraft.engine.blobs import LocalBlob
from regraft.engine.match import match
from regraft.engine.stream import Streamer
from regraft.errors import RegraftError
from regraft.formats import cba
from regraft.limits import DEFAULT
from regraft.model import Algorithm
from regraft.testing.memory import MemoryMedium

LIMITS = replace(DEFAULT, image_size=1 << 20, chunk_size=1 << 16, stored_size=1 << 16, chunks=2000, header_size=1 << 16)


def target(data: bytes) -> None:
    with suppress(RegraftError):
        unpack(data)
    with suppress(RegraftError):
        unpack(sealed(data))


def unpack(data: bytes) -> None:
    header = cba.parse_header(data, limits=LIMITS)
    assert cba.parse_header(cba.build_header(header), limits=LIMITS) == header
    recipe = cba.recipe(header, "fuzz.cba", size=len(data))
    streamer = Streamer(match(recipe, []), [], [LocalBlob(MemoryMedium(data))], workers=1, limits=LIMITS)
    assert sum(map(len, streamer.pieces())) == recipe.size


def sealed(data: bytes) -> bytes:
    """The same bytes with the right header checksum, if there is room for a header at all."""
    if len(data) < cba.LEAD_SIZE + 72:
        return data
    (size,) = struct.unpack_from("<Q", data, 6)
    end = cba.LEAD_SIZE + min(size, len(data) - cba.LEAD_SIZE - 72) + 8
    head = cba.MAGIC + struct.pack("<Q", end - cba.LEAD_SIZE - 8) + data[cba.LEAD_SIZE : end]
    return head + Algorithm.BLAKE2B.of(head) + data[end + 64 :]


def seeds() -> list[bytes]:
    image = b"what changed moves. " * 60 + bytes(300) + b"what changed moves. " * 20
    found = []
    for chunker in cba.CHUNKERS:
        for compression in ("none", "zstd", "lzma"):
            options = packer.Options(
                chunker=chunker, average=128, minimum=32, maximum=512, window=8, compression=compression,
                hash_length=8 if compression == "none" else 64, metadata={"key": b"value"}, workers=1,
            )  # fmt: skip
            out = MemoryMedium()
            packer.pack(MemoryMedium(image), out, options)
            found.append(bytes(out.content))
    return [b"", cba.MAGIC_LEGACY + found[0][6:], *found]
