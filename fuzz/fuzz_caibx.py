# SPDX-License-Identifier: Apache-2.0
"""casync indexes over a store of chunks: any bytes give the image that they promise, or one of our errors.

The input is an index, and behind it the one file that every name in the store leads to.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate

from regraft.engine.chunkfiles import ChunkSource
from regraft.engine.match import match
from regraft.engine.stream import Streamer
from regraft.errors import RegraftError, SourceError
from regraft.formats import caibx
from regraft.limits import DEFAULT
from regraft.model import Algorithm, DigestColumn
from regraft.model.buffers import Buffer

LIMITS = replace(DEFAULT, image_size=1 << 20, chunk_size=1 << 16, chunks=2000, header_size=1 << 16)
END = caibx.TAIL.to_bytes(8, "little")


class OneFile:
    location = "fuzz.castr"

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, paths: Sequence[str], maximum: int) -> Buffer | None:
        return self._content if len(self._content) <= maximum else None

    def absent(self, paths: Sequence[str]) -> RegraftError:
        return SourceError(paths[0])

    def abort(self) -> None: ...


def target(data: bytes) -> None:
    with suppress(RegraftError):
        end = data.find(END)
        end = end + 8 if end >= 0 else len(data)
        unpack(data[:end], data[end:])


def unpack(index: bytes, chunk: bytes) -> None:
    header = caibx.parse_header(index, limits=LIMITS)
    assert caibx.parse_header(caibx.build_header(header), limits=LIMITS) == header
    recipe = caibx.recipe(header, "fuzz.castr")
    source = ChunkSource([OneFile(chunk)], header.digests, caibx.paths, recipe.units.length, threads=1, limits=LIMITS)
    streamer = Streamer(match(recipe, []), [], [source], workers=1, limits=LIMITS)
    assert sum(map(len, streamer.pieces())) == recipe.size


def seeds() -> list[bytes]:
    import gzip
    import lzma

    import zstandard

    plain = b"what changed moves. " * 60
    found = [b"", caibx.MAGIC]
    for number, pack in enumerate((bytes, gzip.compress, lzma.compress, zstandard.compress)):
        algorithm = (Algorithm.SHA256, Algorithm.SHA512_256)[number % 2]
        count = 1 + number
        digests = DigestColumn(algorithm, algorithm.of(plain) * count)
        bounds = array("Q", accumulate([len(plain)] * count, initial=0))
        sizes = caibx.Sizes(64, 1024, 1 << 14)
        found.append(caibx.build_header(caibx.Header(sizes, bounds, digests)) + pack(plain))
    return found
