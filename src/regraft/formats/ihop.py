# SPDX-License-Identifier: Apache-2.0
"""Descriptions of images in ihop's chunk stores, and their Recipe. Follows ihop 0.1.2.

    magic 6 · dictionary size u64 · dictionary (protobuf) · BLAKE2b-512 of all before 64

Little-endian. Very much like the header of a bita archive, but the chunks lie beside the description, a file for each,
as they are: `chunks/<first 4 digits>/<all digits>.chunk`.
"""

from __future__ import annotations

import hmac
import re
from array import array
from dataclasses import dataclass, field

from regraft.errors import DigestError, FormatError, LimitError
from regraft.formats import protobuf
from regraft.formats.cba import Parameters, image_digest, image_size, read_parameters
from regraft.formats.cursor import Cursor
from regraft.formats.protobuf import Message
from regraft.limits import DEFAULT, Limits
from regraft.model import Addressing, Algorithm, Blob, Codec, Digest, DigestColumn, Kind, Op, OpTable, Recipe, Units
from regraft.model.buffers import Buffer

MAGIC = b"IHOP1\0"

#: Bytes that tell how long the description is.
LEAD_SIZE = 14
_CHECKSUM = 64


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed description. Columns have an entry per different chunk; `order` has one per chunk of the image."""

    parameters: Parameters
    digest: Digest | None  #: of the whole image
    image_size: int
    order: array[int]  #: numbers of chunks
    digests: DigestColumn
    lengths: array[int]
    writer: str = ""  #: version of the program that wrote it, as it says
    size: int = field(default=0, compare=False)  #: of the description as it was read
    checksum: bytes = field(default=b"", compare=False)

    @property
    def end(self) -> int:
        """Bytes that the file must have."""
        return self.size

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(slots=True)
class _Parts:
    """What a dictionary says, before it is known whether it makes sense."""

    writer: str = ""
    digest: bytes = b""
    image_size: int = 0
    order: array[int] = field(default_factory=lambda: array("I"))
    chunks: list[Message] = field(default_factory=list)
    parameters: Parameters | None = None


def parse_lead(data: Buffer, *, limits: Limits = DEFAULT) -> int:
    """The size of the description, from at least its first `LEAD_SIZE` bytes. Raises FormatError, LimitError."""
    magic, size = Cursor(memoryview(data)[:LEAD_SIZE], "ihop description").unpack("<6sQ")
    if magic != MAGIC:
        raise FormatError(f"not an ihop description: it starts with {magic.hex(' ')}", offset=0)
    if size > limits.header_size:
        raise LimitError(
            f"ihop description: a dictionary of {size} bytes, more than {limits.header_size} (header_size)"
        )
    return LEAD_SIZE + int(size) + _CHECKSUM


def parse_header(data: Buffer, *, limits: Limits = DEFAULT) -> Header:
    """A whole description: nothing may follow it.

    Raises FormatError, UnsupportedError, LimitError, or DigestError when its own checksum is wrong.
    """
    size = parse_lead(data, limits=limits)
    view = memoryview(data).cast("B")
    if len(view) != size:
        raise FormatError(f"ihop description: {size} bytes announced, {len(view)} are there", offset=len(view))
    end = size - _CHECKSUM
    checksum = bytes(view[end:])
    if not hmac.compare_digest(Algorithm.BLAKE2B.of(view[:end]), checksum):
        raise DigestError("ihop description: its bytes differ from its own checksum")
    parts = _dictionary(protobuf.message(view[LEAD_SIZE:end], "ihop dictionary", base=LEAD_SIZE), limits)
    return _header(parts, size, checksum, limits)


def _dictionary(outer: Message, limits: Limits) -> _Parts:
    parts, seen = _Parts(), set()
    for each in protobuf.fields(outer):
        name = each[0]
        if name in seen and name in (1, 2, 3, 6):
            raise outer.fail(f"field {name} is there twice", each[3])
        seen.add(name)
        if name == 1:
            parts.writer = protobuf.text(outer, each)
        elif name == 2:
            parts.digest = bytes(protobuf.content(outer, each))
        elif name == 3:
            parts.image_size = protobuf.number(outer, each, 64)
        elif name == 4:
            protobuf.numbers(outer, each, 32, parts.order, limits.chunks)
        elif name == 5:
            if len(parts.chunks) >= limits.chunks:
                raise LimitError(f"ihop dictionary: more than {limits.chunks} chunks (limits.chunks)")
            parts.chunks.append(protobuf.inner(outer, each, "chunk"))
        elif name == 6:
            parts.parameters = read_parameters(protobuf.inner(outer, each, "chunker"))
    return parts


def _header(parts: _Parts, size: int, checksum: bytes, limits: Limits) -> Header:
    parameters = parts.parameters
    if parameters is None:
        raise FormatError("ihop dictionary: it does not say how chunks were cut", offset=LEAD_SIZE)
    digest = image_digest("ihop dictionary", parts.digest, parameters)
    digests, lengths = DigestColumn(Algorithm.blake2b(parameters.hash_length)), array("I")
    for number, chunk in enumerate(parts.chunks):
        _chunk(chunk, number, digests, lengths, limits)
    total = image_size("ihop dictionary", parts.image_size, parts.order, lengths, limits)
    return Header(parameters, digest, total, parts.order, digests, lengths, parts.writer, size, checksum)


def _chunk(outer: Message, number: int, digests: DigestColumn, lengths: array[int], limits: Limits) -> None:
    digest: Buffer = b""
    length = 0
    for each in protobuf.fields(outer):
        if each[0] == 1:
            digest = protobuf.content(outer, each)
        elif each[0] == 2:
            length = protobuf.number(outer, each, 32)
    size = digests.algorithm.size if digests.algorithm else 0
    if len(digest) != size or not length:
        raise outer.fail(f"{number}: {length} bytes and a hash of {len(digest)}, the others have {size}", 0)
    if length > limits.chunk_size:
        raise LimitError(
            f"ihop dictionary: chunk {number} of {length} bytes, more than {limits.chunk_size} (chunk_size)"
        )
    digests.append(bytes(digest))
    lengths.append(length)


def recipe(header: Header, store: str) -> Recipe:
    """What the image consists of: a unit per different chunk, a row per chunk. `store` is where the chunks lie.

    The blob counts chunks of the description, not bytes (`Addressing.FILES`): position n is the file
    `paths(header.digests[n])` in the store. Units are numbered in the order in which the image needs them.
    """
    table, units = OpTable(header.digests.algorithm), Units(None)
    numbered: dict[int, int] = {}
    for number in header.order:
        length = header.lengths[number]
        unit = numbered.get(number)
        if unit is None:
            unit = numbered[number] = units.add(blob=0, codec=0, offset=number, stored=1, length=length, digest=None)
        table.add(length, header.digests[number], Op(Kind.DATA, unit=unit))
    made = Recipe(
        table,
        units,
        (Blob(store, len(header), Addressing.FILES),),
        (Codec("none"),),
        digest=header.digest,
        chunker=header.parameters.label,
        identity=header.checksum,
    )
    made.check()
    return made


def paths(digest: bytes) -> tuple[str, ...]:
    """Where a chunk lies in a store, which is the folder of the description."""
    return (f"chunks/{digest[:2].hex()}/{digest.hex()}.chunk",)


_PATH = re.compile(r"chunks/([0-9a-f]{4})/(\1(?:[0-9a-f]{2})+)\.chunk")


def digest_of(path: str) -> bytes | None:
    """The digest of the chunk at a path in a store; None for what is no chunk's path."""
    found = _PATH.fullmatch(path)
    return bytes.fromhex(found[2]) if found else None
