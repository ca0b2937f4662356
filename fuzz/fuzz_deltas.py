# SPDX-License-Identifier: Apache-2.0
"""Deltas over a base: any bytes are one that gives an image of the size it promises, or one of our errors."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

from regraft.build import android_cow, dm_update
from regraft.engine.blobs import LocalBlob
from regraft.engine.deltas import open_delta, read_cow
from regraft.engine.match import match
from regraft.engine.seeds import base_seed
from regraft.engine.stream import Streamer
from regraft.errors import RegraftError
from regraft.limits import DEFAULT
from regraft.testing.memory import MemoryMedium

LIMITS = replace(DEFAULT, image_size=1 << 20, chunk_size=1 << 16, stored_size=1 << 16, chunks=2000, header_size=1 << 16)
OLD = random.Random(1).randbytes(512) * 4 + random.Random(2).randbytes(4096) + bytes(2048)
NEW = OLD[4096:6144] + OLD[:2048] + OLD[4096:5000] + b"?" + OLD[5001:] + b"what is new " * 100


def target(data: bytes) -> None:
    blob = MemoryMedium(data)
    with suppress(RegraftError):
        read_cow(blob, LIMITS, label=1)
    with suppress(RegraftError):
        recipe = open_delta(blob, len(OLD), None, limits=LIMITS).recipe
        recipe.check()
        base = base_seed(MemoryMedium(OLD))
        streamer = Streamer(
            match(recipe, [("base", base.index)]), [base.medium], [LocalBlob(blob)], workers=1, limits=LIMITS
        )
        assert sum(map(len, streamer.pieces())) == recipe.size == len(OLD)


def seeds() -> list[bytes]:
    found = [b"", b"update\0\0"]
    for new in (NEW[: len(OLD)], OLD):
        for compression in ("none", "zstd", "deflate", "lz4"):
            out = MemoryMedium()
            diff = dm_update.Options(compression, block_size=512, chunk_size=1024, sector=512, workers=1)
            dm_update.make(MemoryMedium(OLD), MemoryMedium(new), out, diff)
            found.append(bytes(out.content))
        for version, compression, clusters in (
            (2, "gz", 3),
            (2, "none", 0),
            (2, "zstd", 64),
            (3, "zstd", 0),
            (3, "none", 0),
        ):
            out = MemoryMedium()
            cow = android_cow.Options(version, compression, None, 512, 2048, cluster_ops=clusters, scratch=0, workers=1)
            android_cow.make(MemoryMedium(OLD), MemoryMedium(new), out, cow)
            found.append(bytes(out.content))
    return found
