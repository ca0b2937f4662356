# SPDX-License-Identifier: Apache-2.0
"""Android's update payloads, `payload.bin` (AOSP, system/update_engine): header and manifest, major version 2.

    "CrAU" · version u64 · size of the manifest u64 · size of the metadata signature u32, big-endian
    · manifest (DeltaArchiveManifest of update_metadata.proto) · metadata signature · blobs · payload signature

Only what it takes to make the images is read. Signatures are not looked at: what comes out is compared with the digests
that the manifest has, and who trusts these must have verified the payload.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from regraft.errors import FormatError, LimitError, UnsupportedError
from regraft.formats import protobuf
from regraft.formats.protobuf import Field, Message
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, Digest
from regraft.model.buffers import Buffer

MAGIC = b"CrAU"
HEADER_SIZE = 24
WHAT = "update payload"
HOLE = (1 << 64) - 1  #: as the start of an extent: no blocks at all, zeros when read

REPLACE, REPLACE_BZ, SOURCE_COPY, SOURCE_BSDIFF, ZERO, DISCARD, REPLACE_XZ, BROTLI_BSDIFF = 0, 1, 4, 5, 6, 7, 8, 10
#: Types of operations, by number.
NAMES = {
    REPLACE: "REPLACE", REPLACE_BZ: "REPLACE_BZ", 2: "MOVE", 3: "BSDIFF", SOURCE_COPY: "SOURCE_COPY",
    SOURCE_BSDIFF: "SOURCE_BSDIFF", ZERO: "ZERO", DISCARD: "DISCARD", REPLACE_XZ: "REPLACE_XZ", 9: "PUFFDIFF",
    BROTLI_BSDIFF: "BROTLI_BSDIFF", 11: "ZUCCHINI", 12: "LZ4DIFF_BSDIFF", 13: "LZ4DIFF_PUFFDIFF",
}  # fmt: skip
#: Those that regraft executes.
KNOWN = (REPLACE, REPLACE_BZ, SOURCE_COPY, SOURCE_BSDIFF, ZERO, DISCARD, REPLACE_XZ, BROTLI_BSDIFF)

Extent = tuple[int, int]  #: first block, number of blocks


@dataclass(slots=True)
class Operation:
    """One operation. `data_offset` counts from the start of the blobs, in bytes."""

    kind: int = 0
    data_offset: int = 0
    data_length: int = 0
    source: list[Extent] = field(default_factory=list)
    target: list[Extent] = field(default_factory=list)
    data_digest: bytes = b""
    source_digest: bytes = b""

    @property
    def name(self) -> str:
        return NAMES.get(self.kind, f"operation {self.kind}")


@dataclass(slots=True)
class Partition:
    """What becomes of one partition. Sizes in bytes; `old` is None in full payloads."""

    name: str = ""
    old_size: int = 0
    old: Digest | None = None
    new_size: int = 0
    new: Digest | None = None
    operations: list[Operation] = field(default_factory=list)
    computed: bool = False  #: whether a hash tree or error correction is to be computed into it


@dataclass(frozen=True, slots=True)
class Head:
    manifest_size: int
    signature_size: int

    @property
    def blobs(self) -> int:
        """Where the blobs begin, in bytes."""
        return HEADER_SIZE + self.manifest_size + self.signature_size


@dataclass(frozen=True, slots=True)
class Payload:
    """A parsed manifest."""

    head: Head
    block_size: int
    minor: int
    partitions: tuple[Partition, ...]


def parse_head(data: Buffer, *, limits: Limits = DEFAULT) -> Head:
    """The header, from at least its `HEADER_SIZE` bytes. Raises FormatError, UnsupportedError, LimitError."""
    if len(data) < HEADER_SIZE or bytes(data[:4]) != MAGIC:
        raise FormatError(f"not an {WHAT}: it starts with {bytes(data[:4]).hex(' ')}", offset=0)
    version, manifest, signature = struct.unpack_from(">QQI", data, 4)
    if version != 2:
        raise UnsupportedError(f"{WHAT}: major version {version}, regraft knows 2", offset=4)
    if max(manifest, signature) > limits.header_size:
        raise LimitError(f"{WHAT}: a manifest of {manifest} bytes, more than {limits.header_size} (header_size)")
    return Head(manifest, signature)


def parse_manifest(head: Head, data: Buffer, *, limits: Limits = DEFAULT) -> Payload:
    """The manifest, from its `manifest_size` bytes. Raises FormatError, LimitError."""
    outer = protobuf.message(data, f"{WHAT}: manifest", base=HEADER_SIZE)
    if len(outer.data) != head.manifest_size:
        raise FormatError(f"{WHAT}: a manifest of {head.manifest_size} bytes, {len(data)} are there")
    block_size, minor, budget = 4096, 0, _Budget(limits.chunks)
    partitions: list[Partition] = []
    for each in protobuf.fields(outer):
        if each[0] == 3:
            block_size = protobuf.number(outer, each, 32)
        elif each[0] == 12:
            minor = protobuf.number(outer, each, 32)
        elif each[0] == 13:
            if len(partitions) >= limits.artifacts:
                raise LimitError(f"{WHAT}: more than {limits.artifacts} partitions (limits.artifacts)")
            partitions.append(_partition(protobuf.inner(outer, each, "partition"), budget, limits))
    if block_size not in (1 << bits for bits in range(9, 17)):
        raise FormatError(f"{WHAT}: blocks of {block_size} bytes")
    names = [partition.name for partition in partitions]
    if len(set(names)) != len(names):
        raise FormatError(f"{WHAT}: a partition is there twice")
    return Payload(head, block_size, minor, tuple(partitions))


class _Budget:
    """Operations and extents of a whole payload are bounded together."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise LimitError(f"{WHAT}: more than {self._most} operations and extents (limits.chunks)")


def _partition(outer: Message, budget: _Budget, limits: Limits) -> Partition:
    found = Partition()
    for each in protobuf.fields(outer):
        if each[0] == 1:
            found.name = protobuf.text(outer, each)
        elif each[0] == 6:
            found.old_size, found.old = _info(protobuf.inner(outer, each, "old"), limits)
        elif each[0] == 7:
            found.new_size, found.new = _info(protobuf.inner(outer, each, "new"), limits)
        elif each[0] == 8:
            budget.spend()
            found.operations.append(_operation(protobuf.inner(outer, each, "operation"), budget))
        elif each[0] in (11, 15):
            found.computed = True
    if not found.name or len(found.name) > limits.name_length or not found.name.isprintable():
        raise outer.fail("a partition without a name, or with one that cannot be printed", 0)
    return found


def _info(outer: Message, limits: Limits) -> tuple[int, Digest | None]:
    size, digest = 0, None
    for each in protobuf.fields(outer):
        if each[0] == 1:
            size = protobuf.number(outer, each, 64)
        elif each[0] == 2:
            digest = Digest(Algorithm.SHA256, _sha256(outer, each))
    if size > limits.image_size:
        raise LimitError(f"{outer.what}: {size} bytes, more than {limits.image_size} (image_size)")
    return size, digest


def _sha256(outer: Message, each: Field) -> bytes:
    value = bytes(protobuf.content(outer, each))
    if len(value) != 32:
        raise outer.fail(f"a SHA-256 of {len(value)} bytes", each[3])
    return value


def _operation(outer: Message, budget: _Budget) -> Operation:
    found = Operation()
    for each in protobuf.fields(outer):
        if each[0] == 1:
            found.kind = protobuf.number(outer, each, 32)
        elif each[0] == 2:
            found.data_offset = protobuf.number(outer, each, 64)
        elif each[0] == 3:
            found.data_length = protobuf.number(outer, each, 64)
        elif each[0] in (4, 6):
            budget.spend()
            extents = found.source if each[0] == 4 else found.target
            extents.append(_extent(protobuf.inner(outer, each, "extent")))
        elif each[0] == 8:
            found.data_digest = _sha256(outer, each)
        elif each[0] == 9:
            found.source_digest = _sha256(outer, each)
    return found


def _extent(outer: Message) -> Extent:
    start = count = 0
    for each in protobuf.fields(outer):
        if each[0] == 1:
            start = protobuf.number(outer, each, 64)
        elif each[0] == 2:
            count = protobuf.number(outer, each, 64)
    return start, count
