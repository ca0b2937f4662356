# SPDX-License-Identifier: Apache-2.0
"""bita archives (.cba): the header, both ways, and its Recipe. Follows bitar's header.rs and chunk_dictionary.proto.

    magic 6 · dictionary size u64 · dictionary (protobuf) · offset of the chunk data u64 · BLAKE2b-512 of all before 64
    · chunk data

Little-endian. The dictionary has each different chunk once, in a descriptor; the image is a list of their numbers.
Offsets of descriptors count from the chunk data. A chunk whose stored size is its own is stored as it is.
"""

from __future__ import annotations

import hmac
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from regraft.errors import DigestError, FormatError, LimitError, UnsupportedError
from regraft.formats import chunk_rules, protobuf
from regraft.formats.cursor import Cursor
from regraft.formats.protobuf import Field, Message
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, Blob, Codec, Digest, DigestColumn, Kind, Op, OpTable, Recipe, Units
from regraft.model.buffers import Buffer
from regraft.model.recipe import SHORTEST_IDENTITY

MAGIC = b"BITA1\0"
MAGIC_LEGACY = b"\0BITA1"  #: before bita 0.2.0

#: Bytes that tell how long the header is.
LEAD_SIZE = 14
_AFTER = 8 + 64  #: bytes of the header behind the dictionary

BUZHASH, ROLLSUM, FIXED = "buzhash", "rollsum", "fixed"
CHUNKERS = (BUZHASH, ROLLSUM, FIXED)  #: by their numbers
COMPRESSIONS = ("none", "lzma", "zstd", "brotli")  #: by their numbers
STOCK = ("none", "brotli")  #: what bita reads as it is built by default

_CODECS = {"lzma": "xz"}  #: bita calls so what is a complete .xz file


@dataclass(frozen=True, slots=True)
class Parameters:
    """How the chunks were cut. Sizes in bytes. `fixed` has only a maximum."""

    chunker: str
    bits: int = 0
    minimum: int = 0
    maximum: int = 0
    window: int = 0
    hash_length: int = 64  #: bytes kept of each chunk's digest

    @property
    def label(self) -> str:
        """As in `Recipe.chunker`."""
        if self.chunker == FIXED:
            return f"fixed/{self.maximum}"
        return f"bita-{self.chunker}/{self.window}/{self.bits}/{self.minimum}/{self.maximum}"

    @classmethod
    def of(cls, rule: str, hash_length: int = 64) -> Parameters:
        """Those that a label without a placement stands for.

        For a rule that bita does not have they are RollSum's with chunks of about the same size: the cuts are never
        made again from them, only seeds are searched in vain.
        """
        name, *words = rule.split("/")
        numbers = [int(word) for word in words if len(word) < 11]
        if len(numbers) == len(words) and max(numbers, default=0) < 1 << 32:
            if name == FIXED and len(numbers) == 1:
                return cls(FIXED, maximum=numbers[0], hash_length=hash_length)
            if name in ("bita-rollsum", "bita-buzhash") and len(numbers) == 4:
                window, bits, minimum, maximum = numbers
                return cls(name.removeprefix("bita-"), bits, minimum, maximum, window, hash_length)
        return cls(ROLLSUM, 15, 16 << 10, 16 << 20, 64, hash_length)


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header. Columns have an entry per descriptor; `order` has one per chunk of the image."""

    parameters: Parameters
    digest: Digest | None  #: of the whole image
    image_size: int
    compression: str  #: one of COMPRESSIONS
    level: int
    order: array[int]  #: descriptors
    digests: DigestColumn  #: of the plain chunks
    stored: array[int]  #: stored sizes
    offsets: array[int]  #: from the chunk data
    lengths: array[int]  #: plain sizes
    metadata: tuple[tuple[str, bytes], ...] = ()  #: sorted by key
    writer: str = ""  #: version of the program that wrote it, as it says
    legacy: bool = False
    data_offset: int = field(default=0, compare=False)  #: of the chunk data, from the start of the file
    size: int = field(default=0, compare=False)  #: of the header as it was read
    checksum: bytes = field(default=b"", compare=False)  #: of the header as it was read

    @property
    def rule(self) -> str:
        """The label of the rule that made the cuts: the one that metadata of ours names, else bita's parameters."""
        return chunk_rules.stated(dict(self.metadata).get(chunk_rules.KEY), self.parameters.label)

    @property
    def end(self) -> int:
        """Bytes that the file must have: up to the end of the last chunk."""
        ends = (at + size for at, size in zip(self.offsets, self.stored, strict=True))
        return max(self.size, self.data_offset + max(ends, default=0))

    @property
    def body_size(self) -> int:
        """Stored bytes of all chunks."""
        return sum(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def parse_lead(data: Buffer, *, limits: Limits = DEFAULT) -> int:
    """The size of the header, from at least its first `LEAD_SIZE` bytes. Raises FormatError, LimitError."""
    cursor = Cursor(memoryview(data)[:LEAD_SIZE], "bita archive")
    magic, size = cursor.unpack("<6sQ")
    if magic not in (MAGIC, MAGIC_LEGACY):
        raise FormatError(f"not a bita archive: it starts with {magic.hex(' ')}", offset=0)
    if size > limits.header_size:
        raise LimitError(f"bita archive: a dictionary of {size} bytes, more than {limits.header_size} (header_size)")
    return LEAD_SIZE + int(size) + _AFTER


def parse_header(data: Buffer, *, limits: Limits = DEFAULT) -> Header:
    """A complete header from the start of `data`; what follows it is ignored.

    Raises FormatError, UnsupportedError, LimitError, or DigestError when the header's own checksum is wrong.
    """
    size = parse_lead(data, limits=limits)
    view = memoryview(data).cast("B")
    if len(view) < size:
        raise FormatError(f"bita archive: a header of {size} bytes, {len(view)} are there", offset=len(view))
    end = size - _AFTER
    checksum = bytes(view[end + 8 : size])
    if not hmac.compare_digest(Algorithm.BLAKE2B.of(view[: end + 8]), checksum):
        raise DigestError("bita archive: the header's bytes differ from its own checksum")
    (data_offset,) = struct.unpack("<Q", view[end : end + 8])
    if not size <= data_offset <= limits.image_size:
        raise FormatError(f"bita archive: chunk data at {data_offset}, the header ends at {size}", offset=end)
    parts = _dictionary(protobuf.message(view[LEAD_SIZE:end], "bita dictionary", base=LEAD_SIZE), limits)
    return _header(parts, bytes(view[:6]) == MAGIC_LEGACY, data_offset, size, checksum, limits)


@dataclass(slots=True)
class _Parts:
    """What a dictionary says, before it is known whether it makes sense."""

    writer: str = ""
    digest: bytes = b""
    image_size: int = 0
    parameters: Parameters | None = None
    compression: tuple[str, int] | None = None
    order: array[int] = field(default_factory=lambda: array("I"))
    descriptors: list[Message] = field(default_factory=list)
    metadata: dict[str, bytes] = field(default_factory=dict)


def _dictionary(outer: Message, limits: Limits) -> _Parts:
    parts, seen = _Parts(), set()
    for each in protobuf.fields(outer):
        name = each[0]
        if name in seen and name < 6:
            raise outer.fail(f"field {name} is there twice", each[3])
        seen.add(name)
        if name == 1:
            parts.writer = protobuf.text(outer, each)
        elif name == 2:
            parts.digest = bytes(protobuf.content(outer, each))
        elif name == 3:
            parts.image_size = protobuf.number(outer, each, 64)
        elif name == 4:
            parts.parameters = read_parameters(protobuf.inner(outer, each, "chunker"))
        elif name == 5:
            parts.compression = _compression(protobuf.inner(outer, each, "compression"))
        elif name == 6:
            protobuf.numbers(outer, each, 32, parts.order, limits.chunks)
        elif name == 7:
            if len(parts.descriptors) >= limits.chunks:
                raise LimitError(f"bita dictionary: more than {limits.chunks} descriptors (limits.chunks)")
            parts.descriptors.append(protobuf.inner(outer, each, "descriptor"))
        elif name == 8:
            _metadata(protobuf.inner(outer, each, "metadata"), parts.metadata, limits)
    return parts


def _named(outer: Message, each: Field, names: tuple[str, ...], what: str) -> str:
    number = protobuf.number(outer, each, 32)
    if number >= len(names):
        raise UnsupportedError(f"{outer.what}: {what} {number} is not known", offset=outer.base + each[3])
    return names[number]


def read_parameters(outer: Message) -> Parameters:
    """A ChunkerParameters message, which ihop's descriptions have too. Raises FormatError, UnsupportedError."""
    chunker, values = BUZHASH, [0] * 6
    for each in protobuf.fields(outer):
        if each[0] == 6:
            chunker = _named(outer, each, CHUNKERS, "chunking algorithm")
        elif each[0] < 6:
            values[each[0]] = protobuf.number(outer, each, 32)
    _, bits, minimum, maximum, window, hash_length = values
    if not 4 <= hash_length <= 64:
        raise outer.fail(f"chunk hashes of {hash_length} bytes, there are 4 to 64", 0)
    return Parameters(chunker, bits, minimum, maximum, window, hash_length)


def _compression(outer: Message) -> tuple[str, int]:
    name, level = COMPRESSIONS[0], 0
    for each in protobuf.fields(outer):
        if each[0] == 2:
            name = _named(outer, each, COMPRESSIONS, "compression")
        elif each[0] == 3:
            level = protobuf.number(outer, each, 32)
    return name, level


def _metadata(outer: Message, into: dict[str, bytes], limits: Limits) -> None:
    key, value = "", b""
    for each in protobuf.fields(outer):
        if each[0] == 1:
            key = protobuf.text(outer, each)
        elif each[0] == 2:
            value = bytes(protobuf.content(outer, each))
    if key in into:
        raise outer.fail(f"the key {key!r} is there twice", 0)
    if len(into) >= limits.metadata:
        raise LimitError(f"bita dictionary: more than {limits.metadata} entries of metadata (limits.metadata)")
    into[key] = value


def _header(parts: _Parts, legacy: bool, data_offset: int, size: int, checksum: bytes, limits: Limits) -> Header:
    parameters, compression = parts.parameters, parts.compression
    if parameters is None or compression is None:
        raise FormatError("bita dictionary: it does not say how chunks were cut or compressed", offset=LEAD_SIZE)
    digest = image_digest("bita dictionary", parts.digest, parameters)
    digests = DigestColumn(Algorithm.blake2b(parameters.hash_length))
    stored, offsets, lengths = array("I"), array("Q"), array("I")
    for number, descriptor in enumerate(parts.descriptors):
        _descriptor(descriptor, number, compression[0], digests, stored, offsets, lengths, limits)
    total = image_size("bita dictionary", parts.image_size, parts.order, lengths, limits)
    return Header(
        parameters=parameters,
        digest=digest,
        image_size=total,
        compression=compression[0],
        level=compression[1],
        order=parts.order,
        digests=digests,
        stored=stored,
        offsets=offsets,
        lengths=lengths,
        metadata=tuple(sorted(parts.metadata.items())),
        writer=parts.writer,
        legacy=legacy,
        data_offset=data_offset,
        size=size,
        checksum=checksum,
    )


def image_digest(what: str, checksum: bytes, parameters: Parameters) -> Digest | None:
    """The digest of the image, if a dictionary has one; it must where hashes of chunks are too short to prove any.

    `what` names the dictionary, bita's or ihop's. Raises FormatError, UnsupportedError.
    """
    if checksum and len(checksum) != 64:
        raise FormatError(f"{what}: an image checksum of {len(checksum)} bytes, not 64", offset=LEAD_SIZE)
    if not checksum and parameters.hash_length < SHORTEST_IDENTITY:
        raise UnsupportedError(f"{what}: chunk hashes of {parameters.hash_length} bytes, and no checksum of the image")
    return Digest(Algorithm.BLAKE2B, checksum) if checksum else None


def image_size(what: str, said: int, order: Sequence[int], lengths: Sequence[int], limits: Limits) -> int:
    """The bytes of the chunks in `order`: those that the dictionary has `said`. Raises FormatError, LimitError."""
    total = 0
    for row, number in enumerate(order):
        if number >= len(lengths):
            raise FormatError(
                f"{what}: chunk {row} of the image is number {number}, there are {len(lengths)}", offset=LEAD_SIZE
            )
        total += lengths[number]
    if total != said:
        raise FormatError(f"{what}: an image of {said} bytes, but its chunks have {total}", offset=LEAD_SIZE)
    if total > limits.image_size:
        raise LimitError(f"{what}: an image of {total} bytes, more than {limits.image_size} (image_size)")
    return total


def _descriptor(
    outer: Message,
    number: int,
    compression: str,
    digests: DigestColumn,
    stored: array[int],
    offsets: array[int],
    lengths: array[int],
    limits: Limits,
) -> None:
    digest: Buffer = b""
    at_rest = offset = length = 0
    for each in protobuf.fields(outer):
        if each[0] == 1:
            digest = protobuf.content(outer, each)
        elif each[0] == 3:
            at_rest = protobuf.number(outer, each, 32)
        elif each[0] == 4:
            offset = protobuf.number(outer, each, 64)
        elif each[0] == 5:
            length = protobuf.number(outer, each, 32)
    size = digests.algorithm.size if digests.algorithm else 0
    if len(digest) != size:
        raise outer.fail(f"{number}: a hash of {len(digest)} bytes, the others have {size}", 0)
    if at_rest > limits.stored_size or length > limits.chunk_size:
        raise LimitError(
            f"bita dictionary: descriptor {number} of {at_rest} stored and {length} plain bytes, "
            f"more than {limits.stored_size} (stored_size) and {limits.chunk_size} (chunk_size)"
        )
    if not at_rest or at_rest > length:
        raise outer.fail(f"{number}: {at_rest} stored bytes for {length}", 0)
    if compression == "none" and at_rest != length:
        raise outer.fail(f"{number}: nothing is compressed, yet {at_rest} stored bytes stand for {length}", 0)
    if offset > limits.image_size:
        raise outer.fail(f"{number}: stored at {offset}", 0)
    digests.append(bytes(digest))
    stored.append(at_rest)
    offsets.append(offset)
    lengths.append(length)


def build_header(header: Header) -> bytes:
    """The bytes of a header, in the form that bita writes; the chunk data follows it at once.

    For a legacy header the order of chunks is written as bita 0.1 did, a field for each.
    """
    parameters = header.parameters
    chunker = b"".join(
        (
            protobuf.number_field(1, parameters.bits),
            protobuf.number_field(2, parameters.minimum),
            protobuf.number_field(3, parameters.maximum),
            protobuf.number_field(4, parameters.window),
            protobuf.number_field(5, parameters.hash_length),
            protobuf.number_field(6, CHUNKERS.index(parameters.chunker)),
        )
    )
    compression = protobuf.number_field(2, COMPRESSIONS.index(header.compression))
    compression += protobuf.number_field(3, header.level)
    out = bytearray()
    out += protobuf.bytes_field(1, header.writer.encode())
    out += protobuf.bytes_field(2, header.digest.value if header.digest else b"")
    out += protobuf.number_field(3, header.image_size)
    out += protobuf.bytes_field(4, chunker, always=True)
    out += protobuf.bytes_field(5, compression, always=True)
    if header.legacy:
        for number in header.order:
            out += protobuf.varint(6 << 3) + protobuf.varint(number)
    else:
        out += protobuf.bytes_field(6, b"".join(map(protobuf.varint, header.order)))
    for number in range(len(header)):
        descriptor = protobuf.bytes_field(1, header.digests[number])
        descriptor += protobuf.number_field(3, header.stored[number])
        descriptor += protobuf.number_field(4, header.offsets[number])
        descriptor += protobuf.number_field(5, header.lengths[number])
        out += protobuf.bytes_field(7, descriptor, always=True)
    for key, value in sorted(header.metadata):
        entry = protobuf.bytes_field(1, key.encode()) + protobuf.bytes_field(2, value)
        out += protobuf.bytes_field(8, entry, always=True)
    lead = (MAGIC_LEGACY if header.legacy else MAGIC) + struct.pack("<Q", len(out))
    content = lead + bytes(out) + struct.pack("<Q", LEAD_SIZE + len(out) + _AFTER)
    return content + Algorithm.BLAKE2B.of(content)


def recipe(header: Header, location: str, *, size: int | None = None) -> Recipe:
    """What the image of a bita archive at `location` consists of: a unit per different chunk, a row per chunk.

    Rows carry the digests of the plain chunks, and the recipe that of the image. Units are numbered in the order in
    which the image needs them. Raises FormatError if a chunk lies outside of the `size` bytes of the archive.
    """
    if size is not None and size < header.end:
        raise FormatError(f"bita archive: {size} bytes, but its chunks end at {header.end}", offset=size)
    table, units = OpTable(header.digests.algorithm), Units(None)
    codecs = (Codec("none"), Codec(_CODECS.get(header.compression, header.compression)))
    numbered: dict[int, int] = {}
    for number in header.order:
        stored, length = header.stored[number], header.lengths[number]
        unit = numbered.get(number)
        if unit is None:
            unit = numbered[number] = units.add(
                blob=0,
                codec=int(stored != length),
                offset=header.data_offset + header.offsets[number],
                stored=stored,
                length=length,
                digest=None,
            )
        table.add(length, header.digests[number], Op(Kind.DATA, unit=unit))
    made = Recipe(
        table,
        units,
        (Blob(location, size if size is not None else header.end),),
        codecs,
        digest=header.digest,
        chunker=header.rule,
        identity=header.checksum,
    )
    made.check()
    return made
