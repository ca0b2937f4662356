# SPDX-License-Identifier: Apache-2.0
"""Any bytes as a zchunk header: as they are, and again with a right digest, so that the parser behind it is reached."""

from __future__ import annotations

from array import array

from regraft.errors import RegraftError
from regraft.formats import zchunk
from regraft.limits import DEFAULT
from regraft.model import Algorithm, DigestColumn

_DIGEST = Algorithm.SHA256.size


def target(data: bytes) -> None:
    _read(data)
    try:
        lead = zchunk.parse_lead(data)
    except RegraftError:
        return
    start = lead.size - lead.algorithm.size
    rest = data[lead.size : lead.total]
    right = lead.algorithm.of(zchunk.MAGIC + data[5:start] + rest)
    _read(data[:start] + right + rest)


def _read(data: bytes) -> None:
    try:
        header = zchunk.parse_header(data)
        recipe = zchunk.recipe(header, "fuzz")
    except RegraftError:
        return
    if recipe.size != header.image_size or recipe.size > DEFAULT.image_size:
        raise AssertionError(f"an image of {recipe.size} bytes, the header says {header.image_size}")
    again = zchunk.parse_header(zchunk.build_header(header, detached=header.detached))
    if again != header:
        raise AssertionError("a header changes when it is written and read")


def seeds() -> list[bytes]:
    found = []
    for algorithm in zchunk.ALGORITHMS:
        for flags in (0, zchunk.FLAG_UNCOMPRESSED_SOURCE, zchunk.FLAG_OPTIONAL_ELEMENTS):
            if algorithm == Algorithm.SHA1 and flags & zchunk.FLAG_UNCOMPRESSED_SOURCE:
                continue
            column = DigestColumn(algorithm, bytes(3 * algorithm.size))
            header = zchunk.Header(
                algorithm=Algorithm.SHA256,
                chunk_algorithm=algorithm,
                flags=flags,
                compression="zstd",
                data_digest=bytes(_DIGEST),
                stored_digests=column,
                digests=column if flags & zchunk.FLAG_UNCOMPRESSED_SOURCE else DigestColumn(None),
                stored=array("I", [0, 300, 9]),
                lengths=array("I", [0, 131_072, 1]),
                elements=((1, b"one"),) if flags & zchunk.FLAG_OPTIONAL_ELEMENTS else (),
            )
            found.append(zchunk.build_header(header, detached=flags == 0))
    return found
