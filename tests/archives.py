# SPDX-License-Identifier: Apache-2.0
"""bita archives for tests, good and bad, made on the spot."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from regraft.build import cba as packer
from regraft.formats import cba
from regraft.formats.cba import Header
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, Recipe
from regraft.testing.memory import MemoryMedium

#: Small chunks, so that few bytes make many.
SMALL = packer.Options(average=512, minimum=64, maximum=4096, window=16)


@dataclass
class Archive:
    content: bytes
    header: Header
    recipe: Recipe


def pack(image: bytes, options: packer.Options = SMALL) -> Archive:
    out = MemoryMedium()
    header = packer.pack(MemoryMedium(image), out, options)
    content = bytes(out.content)
    return Archive(content, header, cba.recipe(header, "memory.cba", size=len(content)))


def read(content: bytes, limits: Limits = DEFAULT) -> Archive:
    header = cba.parse_header(content, limits=limits)
    return Archive(content, header, cba.recipe(header, "memory.cba", size=len(content)))


def changed(archive: Archive, **fields: object) -> bytes:
    """The archive with other fields in its header, and the checksum that belongs to them."""
    return cba.build_header(replace(archive.header, **fields)) + archive.content[archive.header.size :]  # type: ignore[arg-type]


def around(dictionary: bytes, *, magic: bytes = cba.MAGIC, data_offset: int | None = None) -> bytes:
    """A header with these bytes as its dictionary."""
    content = magic + struct.pack("<Q", len(dictionary)) + dictionary
    content += struct.pack("<Q", len(content) + 72 if data_offset is None else data_offset)
    return content + Algorithm.BLAKE2B.of(content)
