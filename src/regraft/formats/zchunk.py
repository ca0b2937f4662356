# SPDX-License-Identifier: Apache-2.0
"""zchunk files, version 1: the header, both ways, and its Recipe. Follows zchunk_format.txt of zchunk 1.2 to 1.5.

A file is header + body. The header has a lead (magic, digest type, sizes, its own digest), a preface (data digest,
flags, compression), an index (a digest and two lengths per chunk) and a signature count, which is always 0. Chunk 0 is
the dictionary, with lengths 0 when there is none. There are no offsets: a chunk lies where the ones before it end.
"""

from __future__ import annotations

import hmac
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

from regraft.errors import DigestError, FormatError, LimitError, UnsupportedError
from regraft.formats import chunk_rules
from regraft.formats.cursor import Cursor
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, Blob, Codec, DigestColumn, Kind, Op, OpTable, Recipe, Units
from regraft.model.buffers import Buffer

MAGIC = b"\0ZCK1"
MAGIC_DETACHED = b"\0ZHR1"

#: Bytes that are enough to read the lead of any header: magic, two varints, the longest digest.
LEAD_SIZE = 5 + 2 * 10 + 64

#: libzck reads this much at once, and calls anything shorter a short read.
SHORTEST = 25

FLAG_STREAMS = 1
FLAG_OPTIONAL_ELEMENTS = 2
FLAG_UNCOMPRESSED_SOURCE = 4

CHUNKER = "zchunk/48/15/8192/131072"

#: The optional elements of regraft, each KEY=VALUE; libzck passes over them. One names another rule that made the cuts,
#: others carry metadata, a long value in several of the same key.
RULE_ELEMENT = 0x7267
_META = b"meta."

ALGORITHMS = (Algorithm.SHA1, Algorithm.SHA256, Algorithm.SHA512, Algorithm.SHA512_128)
COMPRESSIONS = {0: "none", 2: "zstd"}


def varint(value: int) -> bytes:
    """zchunk's compressed integer: base 128, low bits first, bit 7 set on the *last* byte only."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F)
        value >>= 7
    groups.append(value | 0x80)
    return bytes(groups)


def read_varint(cursor: Cursor) -> int:
    """A compressed integer of at most 64 bits and 10 bytes."""
    value = 0
    for shift in range(0, 70, 7):
        byte = cursor.take(1)[0]
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            if value >> 64:
                break
            return value
    raise cursor.fail("a compressed integer of more than 64 bits")


@dataclass(frozen=True, slots=True)
class Lead:
    """The fixed start of a header: what must be known to fetch the rest. `total` = size of lead + header, in bytes."""

    detached: bool
    algorithm: Algorithm
    size: int  #: of the lead itself, digest included
    total: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header. Columns have an entry per chunk, the dictionary (chunk 0) included."""

    algorithm: Algorithm  #: of the header digest and the data digest
    chunk_algorithm: Algorithm
    flags: int
    compression: str  #: "none" or "zstd"
    data_digest: bytes  #: of the whole body; all zero with FLAG_UNCOMPRESSED_SOURCE
    stored_digests: DigestColumn
    digests: DigestColumn  #: of the uncompressed chunks; absent without FLAG_UNCOMPRESSED_SOURCE
    stored: array[int]  #: stored lengths, bytes
    lengths: array[int]  #: uncompressed lengths, bytes
    elements: tuple[tuple[int, bytes], ...] = ()  #: optional elements: (id, data); zchunk itself has assigned no id
    detached: bool = False
    size: int = field(default=0, compare=False)  #: of the header as it was read, i.e. where the body starts
    digest: bytes = field(default=b"", compare=False)  #: of the header, as it was read

    @property
    def uncompressed_source(self) -> bool:
        """Whether an uncompressed image can serve as a seed (`zck -u`)."""
        return bool(self.flags & FLAG_UNCOMPRESSED_SOURCE)

    @property
    def rule(self) -> str:
        """The label of the rule that made the cuts: zchunk's own, unless an element of ours names another."""
        for number, data in self.elements:
            key, _, value = data.partition(b"=")
            if number == RULE_ELEMENT and key == chunk_rules.KEY.encode():
                return chunk_rules.stated(value, CHUNKER)
        return CHUNKER

    @property
    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        """What the author added, by regraft: (key, value), in order."""
        found: dict[str, bytearray] = {}
        for number, data in self.elements:
            key, _, value = data.partition(b"=")
            if number == RULE_ELEMENT and key.startswith(_META):
                found.setdefault(key.removeprefix(_META).decode("utf-8", "replace"), bytearray()).extend(value)
        return tuple((key, bytes(value)) for key, value in found.items())

    @property
    def dictionary_stored(self) -> int:
        """Stored bytes of the dictionary; 0 without one."""
        return self.stored[0]

    @property
    def image_size(self) -> int:
        """Bytes of the image."""
        return sum(self.lengths) - self.lengths[0]

    @property
    def body_size(self) -> int:
        return sum(self.stored)

    @property
    def end(self) -> int:
        """Bytes of the whole file."""
        return self.size + self.body_size

    def __len__(self) -> int:
        return len(self.stored)


def parse_lead(data: Buffer, *, limits: Limits = DEFAULT) -> Lead:
    """The lead, from at least the first `LEAD_SIZE` bytes of a file (or all of it).

    Raises FormatError, LimitError for a header above `limits.header_size`.
    """
    if len(data) < SHORTEST:
        raise FormatError(f"zchunk header: only {len(data)} bytes, {SHORTEST} is the least", offset=0)
    cursor = Cursor(memoryview(data)[:LEAD_SIZE], "zchunk lead")
    magic = cursor.take(5)
    if magic not in (MAGIC, MAGIC_DETACHED):
        raise FormatError(f"not a zchunk file: it starts with {magic.hex(' ')}", offset=0)
    algorithm = _algorithm(cursor)
    rest = read_varint(cursor)
    if rest > limits.header_size:
        raise LimitError(f"zchunk header of {rest} bytes, more than limits.header_size = {limits.header_size}")
    digest = cursor.take(algorithm.size)
    return Lead(magic == MAGIC_DETACHED, algorithm, cursor.position, cursor.position + rest, digest)


def parse_header(data: Buffer, *, limits: Limits = DEFAULT) -> Header:
    """A complete header from the start of `data`; what follows it is ignored.

    Raises FormatError, UnsupportedError, LimitError, or DigestError when the header's own digest is wrong.
    """
    lead = parse_lead(data, limits=limits)
    view = memoryview(data).cast("B")
    if len(view) < lead.total:
        raise FormatError(f"zchunk header: {lead.total} bytes announced, {len(view)} are there", offset=len(view))
    start = lead.size - lead.algorithm.size
    hasher = lead.algorithm.hasher()
    hasher.update(MAGIC + bytes(view[5:start]))  # a detached header is hashed as if its magic were the other one
    hasher.update(view[lead.size : lead.total])
    if not hmac.compare_digest(hasher.digest(), lead.digest):
        raise DigestError("zchunk header: its bytes differ from its own digest")

    cursor = Cursor(view[lead.size : lead.total], "zchunk header", base=lead.size)
    data_digest = cursor.take(lead.algorithm.size)
    flags = read_varint(cursor)
    if flags & FLAG_STREAMS:
        raise UnsupportedError("zchunk header: streams, which no version of zchunk writes", offset=lead.size)
    if flags & ~(FLAG_OPTIONAL_ELEMENTS | FLAG_UNCOMPRESSED_SOURCE):
        raise UnsupportedError(f"zchunk header: unknown flags {flags:#x}", offset=lead.size)
    compression = read_varint(cursor)
    if compression not in COMPRESSIONS:
        raise UnsupportedError(f"zchunk header: unknown compression type {compression}", offset=lead.size)
    elements = _elements(cursor, limits) if flags & FLAG_OPTIONAL_ELEMENTS else ()
    index_size = read_varint(cursor)
    after = cursor.left - index_size
    if after < 0:
        raise cursor.fail(f"an index of {index_size} bytes, {cursor.left} left")
    end = cursor.end
    cursor.limit(index_size)
    header = _index(cursor, lead, flags, COMPRESSIONS[compression], data_digest, elements, limits)
    cursor.finish()
    cursor.end = end
    if read_varint(cursor) != 0:
        raise UnsupportedError("zchunk header: signatures, for which zchunk defines no type", offset=cursor.position)
    cursor.finish()
    return header


def _algorithm(cursor: Cursor) -> Algorithm:
    number = read_varint(cursor)
    if number >= len(ALGORITHMS):
        raise UnsupportedError(f"zchunk header: unknown digest type {number}", offset=cursor.position)
    return ALGORITHMS[number]


def _elements(cursor: Cursor, limits: Limits) -> tuple[tuple[int, bytes], ...]:
    count = read_varint(cursor)
    if count > limits.optional_elements:
        raise LimitError(f"zchunk header: {count} optional elements, more than {limits.optional_elements}")
    elements = []
    for _ in range(count):
        number, size = read_varint(cursor), read_varint(cursor)
        if size > limits.optional_element_size:
            raise LimitError(f"zchunk header: an optional element of {size} bytes")
        elements.append((number, cursor.take(size)))
    return tuple(elements)


def _index(
    cursor: Cursor,
    lead: Lead,
    flags: int,
    compression: str,
    data_digest: bytes,
    elements: tuple[tuple[int, bytes], ...],
    limits: Limits,
) -> Header:
    algorithm = _algorithm(cursor)
    if algorithm == Algorithm.SHA1 and flags & FLAG_UNCOMPRESSED_SOURCE:
        raise UnsupportedError("zchunk header: SHA-1 for chunks of an uncompressed source", offset=lead.size)
    count = read_varint(cursor)
    if not 1 <= count <= limits.chunks:
        raise LimitError(f"zchunk header: {count} chunks, 1 to {limits.chunks} are possible")
    uncompressed = bool(flags & FLAG_UNCOMPRESSED_SOURCE)
    stored_digests = DigestColumn(algorithm)
    digests = DigestColumn(algorithm if uncompressed else None)
    stored, lengths = array("I"), array("I")
    body = image = 0
    for chunk in range(count):
        stored_digests.append(cursor.take(algorithm.size))
        if uncompressed:
            digests.append(cursor.take(algorithm.size))
        at_rest, length = read_varint(cursor), read_varint(cursor)
        maximum = limits.dictionary_size if chunk == 0 else limits.chunk_size
        if at_rest > limits.stored_size or length > maximum:
            raise LimitError(
                f"zchunk header: chunk {chunk} of {at_rest} stored and {length} uncompressed bytes, "
                f"more than {limits.stored_size} and {maximum}"
            )
        if (at_rest == 0) != (length == 0):
            raise cursor.fail(f"chunk {chunk} has {at_rest} stored bytes for {length}")
        if compression == "none" and at_rest != length:
            raise cursor.fail(f"chunk {chunk} is not compressed, yet {at_rest} stored bytes stand for {length}")
        stored.append(at_rest)
        lengths.append(length)
        body += at_rest
        image += length
    if image > limits.image_size or body > limits.image_size:
        raise LimitError(f"zchunk header: an image of {image} bytes, more than {limits.image_size}")
    return Header(
        algorithm=lead.algorithm,
        chunk_algorithm=algorithm,
        flags=flags,
        compression=compression,
        data_digest=data_digest,
        stored_digests=stored_digests,
        digests=digests,
        stored=stored,
        lengths=lengths,
        elements=elements,
        detached=lead.detached,
        size=lead.total,
        digest=lead.digest,
    )


def rule_elements(label: str) -> tuple[tuple[int, bytes], ...]:
    """The optional elements that name the rule: none for zchunk's own."""
    return () if label == CHUNKER else ((RULE_ELEMENT, f"{chunk_rules.KEY}={label}".encode("ascii")),)


def metadata_elements(metadata: Mapping[str, bytes], limits: Limits = DEFAULT) -> tuple[tuple[int, bytes], ...]:
    """The optional elements that carry metadata. Raises LimitError for more than a reader takes."""
    elements: list[tuple[int, bytes]] = []
    for key, value in metadata.items():
        lead = _META + key.encode() + b"="
        room = limits.optional_element_size - len(lead)
        parts = range(0, max(len(value), 1), room)
        elements += [(RULE_ELEMENT, lead + value[start : start + room]) for start in parts]
    if len(elements) >= limits.optional_elements:  # one is left for the rule
        raise LimitError(
            f"{sum(map(len, metadata.values()))} bytes of metadata: a zchunk header has room for"
            f" {limits.optional_elements - 1} elements of {limits.optional_element_size} (optional_elements)",
            cure="use `regraft pack cba`, or keep the hash tree beside the file",
        )
    return tuple(elements)


def build_header(header: Header, *, detached: bool = False) -> bytes:
    """The bytes of a header, always in the minimal form. With `detached`, magic ZHR1 and the same digest."""
    algorithm = header.chunk_algorithm
    index = bytearray(varint(ALGORITHMS.index(algorithm)) + varint(len(header)))
    for chunk in range(len(header)):
        index += header.stored_digests[chunk]
        if header.uncompressed_source:
            index += header.digests[chunk]
        index += varint(header.stored[chunk]) + varint(header.lengths[chunk])
    preface = bytearray(header.data_digest + varint(header.flags))
    preface += varint(next(number for number, name in COMPRESSIONS.items() if name == header.compression))
    if header.flags & FLAG_OPTIONAL_ELEMENTS:
        preface += varint(len(header.elements))
        for number, data in header.elements:
            preface += varint(number) + varint(len(data)) + data
    rest = bytes(preface + varint(len(index)) + index + varint(0))
    lead = varint(ALGORITHMS.index(header.algorithm)) + varint(len(rest))
    digest = header.algorithm.of(MAGIC + lead + rest)
    return (MAGIC_DETACHED if detached else MAGIC) + lead + digest + rest


def recipe(header: Header, location: str, *, size: int | None = None) -> Recipe:
    """What the image of a zchunk file at `location` consists of: a unit and a row per chunk.

    The dictionary is unit 0 if there is one. Rows carry the digests of the uncompressed chunks where the file has them
    (or where nothing is compressed); else each byte is covered by the digest of its stored chunk.
    """
    plain = header.compression == "none"
    table = OpTable(header.chunk_algorithm if header.uncompressed_source or plain else None)
    units = Units(header.chunk_algorithm)
    dictionary = 0 if header.dictionary_stored and not plain else None
    codecs = (Codec(header.compression), Codec(header.compression, dictionary))
    offset = header.size
    for chunk in range(len(header)):
        stored, length = header.stored[chunk], header.lengths[chunk]
        if stored:
            digest = header.stored_digests[chunk]
            unit = units.add(blob=0, codec=int(chunk > 0), offset=offset, stored=stored, length=length, digest=digest)
            if chunk > 0:
                if plain:
                    row_digest: bytes | None = digest
                else:
                    row_digest = header.digests[chunk] if header.uncompressed_source else None
                table.add(length, row_digest, Op(Kind.DATA, unit=unit))
        offset += stored
    if size is not None and size != offset:
        raise FormatError(f"zchunk file: {size} bytes, but header and chunks take {offset}", offset=min(size, offset))
    made = Recipe(table, units, (Blob(location, offset),), codecs, chunker=header.rule, identity=header.digest)
    made.check()
    return made
