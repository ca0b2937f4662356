# SPDX-License-Identifier: Apache-2.0
"""Make images and COW files from Android's update payloads, as update_engine does on the device."""

from __future__ import annotations

import hmac
import os
import tempfile

from regraft.build import android_cow
from regraft.build.android_cow import Options
from regraft.engine.bsdiff import bspatch
from regraft.engine.deltas import read
from regraft.engine.files import FileMedium
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.verify import digest_of
from regraft.errors import DigestError, FormatError, LimitError, UnsupportedError, UsageError
from regraft.formats import bsdiff
from regraft.formats import payload as form
from regraft.formats.codecs import Decoder
from regraft.formats.payload import HOLE, KNOWN, WHAT, Extent, Operation, Partition, Payload
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm

_CODECS = {form.REPLACE: "none", form.REPLACE_BZ: "bzip2", form.REPLACE_XZ: "xz"}
_COPY = 1 << 20


def read_payload(medium: Medium, *, limits: Limits = DEFAULT) -> Payload:
    """The manifest of a payload. Raises FormatError, UnsupportedError, LimitError, SourceError."""
    head = form.parse_head(read(medium, 0, min(form.HEADER_SIZE, medium.size)), limits=limits)
    return form.parse_manifest(head, read(medium, form.HEADER_SIZE, head.manifest_size), limits=limits)


def partition_of(payload: Payload, name: str) -> Partition:
    """The partition called `name`. Raises UsageError if there is none, UnsupportedError if it cannot be made."""
    names = [partition.name for partition in payload.partitions]
    if name not in names:
        raise UsageError(f"the payload has no partition {name!r}", cure=f"it has {', '.join(names) or 'none'}")
    partition = payload.partitions[names.index(name)]
    unknown = sorted({operation.name for operation in partition.operations if operation.kind not in KNOWN})
    if unknown:
        raise UnsupportedError(
            f"{WHAT}: {name} has {', '.join(unknown)} operations",
            cure="make the payload without them: delta_generator can be told the minor version, 4 has none of these",
        )
    if partition.computed:
        raise UnsupportedError(
            f"{WHAT}: a hash tree or error correction has to be computed into {name}",
            cure="make the payload with minor version 5 or below, or with --disable_verity_computation",
        )
    return partition


class Installer:
    """Executes the operations of one partition onto an image.

    blobs: the payload itself. old: the old image, needed by delta payloads. target: an empty file.
    """

    def __init__(
        self, payload: Payload, partition: Partition, blobs: Medium, old: Medium | None, target: Medium,
        *, limits: Limits = DEFAULT, progress: Progress = QUIET,
    ) -> None:  # fmt: skip
        self._payload, self._partition, self._blobs, self._old = payload, partition, blobs, old
        self._target, self._limits, self._progress = target, limits, progress
        self._block = payload.block_size

    def run(self) -> None:
        """Make the image. Raises DigestError unless old image, data and result are as the manifest has them."""
        partition = self._partition
        self._progress.phase("write", partition.new_size)
        if partition.old is not None and self._old is None:
            raise UsageError(f"{partition.name} is a delta: it needs the old image", cure="give it with --base")
        if partition.old is not None and self._old is not None:
            wrong = self._old.size < partition.old_size
            if wrong or not digest_of(self._old, partition.old_size, partition.old):
                raise DigestError(f"{self._old.name} is not the image that {partition.name} was made from")
        self._target.resize(partition.new_size)
        for number, operation in enumerate(partition.operations):
            try:
                self._one(operation)
            except FormatError as error:
                raise FormatError(f"{partition.name}, operation {number}, {operation.name}: {error}") from None
        if partition.new is not None and not digest_of(self._target, partition.new_size, partition.new):
            raise DigestError(f"{partition.name}: the image that was made differs from the manifest's digest")

    def _one(self, operation: Operation) -> None:
        count = self._count(operation.target)
        if operation.kind in (form.ZERO, form.DISCARD):
            for start, blocks in operation.target:
                if start != HOLE:
                    self._check(start, blocks, self._partition.new_size)
                    self._target.zero(start * self._block, blocks * self._block)
            self._progress.advance(count, Origin.ZERO)
            return
        if operation.kind == form.SOURCE_COPY:
            if self._count(operation.source) != count:
                raise FormatError(f"{self._count(operation.source)} bytes are copied to {count}")
            self._scatter(operation, self._source(operation))
            return
        if count > self._limits.patched_size:
            raise LimitError(f"{WHAT}: an operation of {count} bytes, more than limits.patched_size")
        data = self._data(operation)
        if operation.kind in _CODECS:
            new = bytearray(Decoder(_CODECS[operation.kind], limits=self._limits).decode_all(data, count))
        else:
            new = bspatch(self._source(operation), bsdiff.parse(data, limits=self._limits))
        if len(new) > count:
            raise FormatError(f"{len(new)} bytes for blocks of {count}")
        self._scatter(operation, bytes(new).ljust(count, b"\0"))

    def _count(self, extents: list[Extent]) -> int:
        return sum(blocks for _, blocks in extents) * self._block

    def _check(self, start: int, blocks: int, size: int) -> None:
        if (start + blocks) * self._block > -(-size // self._block) * self._block:
            raise FormatError(f"blocks {start} to {start + blocks} of an image of {size} bytes")

    def _data(self, operation: Operation) -> bytes:
        if operation.data_length > self._limits.patched_size:
            raise LimitError(f"{WHAT}: {operation.data_length} bytes of data, more than limits.patched_size")
        offset = self._payload.head.blobs + operation.data_offset
        if offset + operation.data_length > self._blobs.size:
            raise FormatError(f"data up to byte {offset + operation.data_length}, the file has {self._blobs.size}")
        data = read(self._blobs, offset, operation.data_length)
        if operation.data_digest and not hmac.compare_digest(Algorithm.SHA256.of(data), operation.data_digest):
            raise DigestError(f"{self._partition.name}: the {len(data)} bytes at {offset} differ from their digest")
        return data

    def _source(self, operation: Operation) -> bytes:
        """The blocks that an operation reads, end to end."""
        size = self._count(operation.source)
        if size > self._limits.patched_size:
            raise LimitError(f"{WHAT}: an operation that reads {size} bytes, more than limits.patched_size")
        if self._old is None:
            raise UsageError(f"{self._partition.name} is a delta: it needs the old image", cure="give it with --base")
        found = bytearray(size)
        at = 0
        for start, blocks in operation.source:
            length = blocks * self._block
            if start != HOLE:
                self._check(start, blocks, self._old.size)
                self._old.read_into(start * self._block, memoryview(found)[at : at + length])
            at += length
        if operation.source_digest and not hmac.compare_digest(Algorithm.SHA256.of(found), operation.source_digest):
            raise DigestError(f"{self._partition.name}: the old image differs where {operation.name} reads it")
        return bytes(found)

    def _scatter(self, operation: Operation, data: bytes) -> None:
        at = 0
        for start, blocks in operation.target:
            length = blocks * self._block
            if start != HOLE:
                self._check(start, blocks, self._partition.new_size)
                offset = start * self._block
                part = data[at : at + min(length, self._partition.new_size - offset)]
                self._target.write(offset, part)
            at += length
        self._progress.advance(len(data), Origin.FETCHED)


def to_cow(
    blobs: Medium, name: str, old: Medium, out: Medium, options: Options | None = None,
    *, limits: Limits = DEFAULT, progress: Progress = QUIET,
) -> android_cow.Made:  # fmt: skip
    """Write the COW file of one partition of a payload to the empty medium `out`.

    The new image is made in an unlinked temporary file first and compared with the manifest's digest, so what the file
    copies, differs from or stores is chosen from all of it. Raises what `Installer`, `partition_of` and
    `android_cow.make` raise.
    """
    payload = read_payload(blobs, limits=limits)
    partition = partition_of(payload, name)
    with tempfile.TemporaryFile(prefix="regraft-") as file:
        image = FileMedium(os.dup(file.fileno()), f"the new {name}")
        try:
            Installer(payload, partition, blobs, old, image, limits=limits, progress=progress).run()
            return android_cow.make(old, image, out, options or Options(), limits=limits, progress=progress)
        finally:
            image.close()
