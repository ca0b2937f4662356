# SPDX-License-Identifier: Apache-2.0
"""Make bita archives: bita's cuts, each different chunk once, compressed on all cores, in order, in bounded memory."""

from __future__ import annotations

import lzma
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import BinaryIO

import zstandard

import regraft
from regraft.build.chunks import Chunk, Cutter, Source, ahead, append, counted, placed
from regraft.build.chunks import body as temporary
from regraft.engine.chunkers import named
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Progress
from regraft.engine.verify import default_workers
from regraft.errors import LimitError, UsageError
from regraft.formats import cba, chunk_rules
from regraft.formats.cba import BUZHASH, FIXED, ROLLSUM, Header, Parameters
from regraft.formats.chunk_rules import UNMOVED, Placement
from regraft.formats.codecs import brotli
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, Digest, DigestColumn
from regraft.model.recipe import SHORTEST_IDENTITY

#: bita's defaults, in bytes.
AVERAGE, MINIMUM, MAXIMUM = 64 << 10, 16 << 10, 16 << 20
WINDOWS = {ROLLSUM: 64, BUZHASH: 16}
LEVEL = 6
_LEVELS = {"none": 0, "brotli": 11, "lzma": 9, "zstd": 22}  #: the highest


@dataclass(frozen=True, slots=True)
class Options:
    """What `bita compress` can be told, with its defaults. Sizes in bytes.

    chunker: "rollsum", "buzhash", or "fixed", which cuts every `average` bytes. window: 0 for bita's, 64 for RollSum
    and 16 for BuzHash. compression: "brotli", "lzma", "zstd" or "none". hash_length: bytes kept of a chunk's digest.
    placement: what moves the cuts.
    """

    chunker: str = ROLLSUM
    average: int = AVERAGE
    minimum: int = MINIMUM
    maximum: int = MAXIMUM
    window: int = 0
    compression: str = "brotli"
    level: int = LEVEL
    hash_length: int = 64
    metadata: dict[str, bytes] = field(default_factory=dict)
    workers: int = 0
    placement: Placement = UNMOVED

    @property
    def parameters(self) -> Parameters:
        """As the archive states them: for an average of 2 to the n, n - 1 bits."""
        if self.chunker == FIXED:
            return Parameters(FIXED, maximum=self.average, hash_length=self.hash_length)
        window = self.window or WINDOWS[self.chunker]
        bits = self.average.bit_length() - 2
        return Parameters(self.chunker, bits, self.minimum, self.maximum, window, self.hash_length)

    def check(self, limits: Limits) -> None:
        """Raise UsageError, LimitError, MissingError for what cannot be written, or what no reader takes."""
        if self.chunker not in cba.CHUNKERS:
            raise UsageError(f"chunker {self.chunker!r}: bita has {', '.join(cba.CHUNKERS)}")
        if self.compression not in cba.COMPRESSIONS:
            raise UsageError(f"compression {self.compression!r}: bita has {', '.join(cba.COMPRESSIONS)}")
        if self.compression != "none" and not 1 <= self.level <= _LEVELS[self.compression]:
            raise UsageError(f"compression level {self.level}: {self.compression} has 1 to {_LEVELS[self.compression]}")
        if not 4 <= self.hash_length <= 64:
            raise UsageError(f"a hash length of {self.hash_length}: bita has 4 to 64 bytes")
        if self.chunker == FIXED:
            if self.average < 1:
                raise UsageError("chunks of a fixed size have at least one byte")
        elif self.average < 4 or not 0 <= self.minimum <= self.average <= self.maximum:
            raise UsageError(
                f"chunk sizes {self.minimum}, {self.average}, {self.maximum}: the average lies between the others and "
                "is at least 4"
            )
        if not 0 <= self.window <= limits.chunker_window:
            raise UsageError(f"a window of {self.window} bytes: 1 to {limits.chunker_window} are possible")
        if len(self.metadata) > limits.metadata:
            raise LimitError(f"{len(self.metadata)} entries of metadata, more than limits.metadata = {limits.metadata}")
        if chunk_rules.KEY in self.metadata:
            raise UsageError(f"metadata with the key {chunk_rules.KEY} is regraft's own")
        named(self.placement.label(self.parameters.label), limits=limits)
        if self.compression == "brotli":
            brotli()

    def warnings(self) -> list[str]:
        """What a person should know who gives the archive to others."""
        found = []
        if self.compression not in cba.STOCK:
            found.append(
                f"bita reads {self.compression} only if it was built for it: for stock devices take brotli or none"
            )
        if self.hash_length < SHORTEST_IDENTITY:
            found.append(
                f"with hashes of {self.hash_length} bytes no seed is used: different chunks could be taken for equal"
            )
        if self.placement != UNMOVED:
            found.append("bita cuts seeds by the plain rule, and finds fewer of these chunks in them than regraft")
        return found


def _compressor(options: Options) -> Callable[[bytes], bytes]:
    """Compresses one chunk, in any thread."""
    if options.compression == "brotli":
        module, level = brotli(), options.level
        return lambda data: bytes(module.compress(data, quality=level))
    if options.compression == "lzma":
        return lambda data: lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC64, options.level)
    if options.compression == "zstd":
        local = threading.local()  # a context is not to be shared between threads

        def compress(data: bytes) -> bytes:
            context: zstandard.ZstdCompressor | None = getattr(local, "zstd", None)
            if context is None:
                context = local.zstd = zstandard.ZstdCompressor(level=options.level)
            return context.compress(data)

        return compress
    return lambda data: data


class _Body:
    """The chunk data and the columns that describe it."""

    def __init__(self, file: BinaryIO, hash_length: int) -> None:
        self._file, self._at = file, 0
        self.digests = DigestColumn(Algorithm.blake2b(hash_length))
        self.stored, self.offsets, self.lengths = array("I"), array("Q"), array("I")

    def add(self, stored: bytes, digest: bytes, plain: int) -> None:
        self._file.write(stored)
        self.digests.append(digest)
        self.stored.append(len(stored))
        self.offsets.append(self._at)
        self.lengths.append(plain)
        self._at += len(stored)


def pack(
    image: Medium, out: Medium, options: Options = Options(), *, limits: Limits = DEFAULT, progress: Progress = QUIET
) -> Header:
    """Write the bita archive of `image` to the empty medium `out`; return its header.

    Raises ChangedError if the image changes meanwhile; LimitError, UsageError for options that cannot be, also when two
    different chunks have the same hash of the length asked for; MissingError without the package that brotli needs.
    """
    options.check(limits)
    label = placed(image, options.parameters.label, options.placement, limits=limits)
    return build(Cutter(image, label, threads=options.workers, progress=progress), out, options, limits=limits)


def build(
    source: Source,
    out: Medium,
    options: Options = Options(),
    *,
    parameters: Parameters | None = None,
    limits: Limits = DEFAULT,
) -> Header:
    """Write a bita archive of the chunks that `source` gives to the empty medium `out`; return its header.

    parameters: what bita is to cut seeds by; those of the options if None.

    The chunk data goes to an unlinked temporary file first, since the header with its size stands before it. Memory:
    the longest chunk for each thread, `limits.buffer`, and 200 bytes or so for each different chunk. A rule that is not
    that of the parameters is named in the metadata. Raises what `pack` does, and what the source does.
    """
    options.check(limits)
    if source.size > limits.image_size:
        raise LimitError(f"an image of {source.size} bytes, more than limits.image_size = {limits.image_size}")
    order: array[int] = array("I")
    whole = Algorithm.BLAKE2B.hasher()
    metadata = dict(options.metadata)
    parameters = parameters or options.parameters
    if source.label != parameters.label:
        metadata[chunk_rules.KEY] = source.label.encode("ascii")
    with temporary() as file:
        body = _Body(file, options.hash_length)
        different = _different(counted(source.chunks(Algorithm.BLAKE2B, whole.update), limits), options, order)
        for stored, digest, plain in ahead(different, options.workers or default_workers(), limits.buffer):
            body.add(stored, digest, plain)
        header = Header(
            parameters=replace(parameters, hash_length=options.hash_length),
            digest=Digest(Algorithm.BLAKE2B, whole.digest()),
            image_size=source.size,
            compression=options.compression,
            level=options.level if options.compression != "none" else 0,
            order=order,
            digests=body.digests,
            stored=body.stored,
            offsets=body.offsets,
            lengths=body.lengths,
            metadata=tuple(sorted(metadata.items())),
            writer=f"regraft {regraft.__version__}",
        )
        content = cba.build_header(header)
        parsed = cba.parse_header(content, limits=limits)
        out.write(0, content)
        append(file, out, len(content))
    return parsed


def _different(
    chunks: Iterable[Chunk], options: Options, order: array[int]
) -> Iterator[tuple[int, Callable[[], tuple[bytes, bytes, int]]]]:
    """The work for each chunk that has not been there yet: (stored bytes, kept digest, plain length). Fills `order`."""
    compress = _compressor(options)
    known: dict[bytes, int] = {}
    short: set[bytes] = set()

    def finish(data: bytes, digest: bytes, stored: bytes | None) -> tuple[bytes, bytes, int]:
        found = compress(data) if stored is None else stored
        # What is stored of a chunk is itself if compression does not make it smaller.
        return found if len(found) < len(data) else data, digest, len(data)

    for chunk in chunks:
        number = known.get(chunk.digest)
        if number is None:
            kept = chunk.digest[: options.hash_length]
            if kept in short:
                raise UsageError(
                    f"two different chunks have the same hash of {options.hash_length} bytes",
                    cure="take a longer --hash-length",
                )
            short.add(kept)
            number = known[chunk.digest] = len(known)
            yield len(chunk.data), partial(finish, bytes(chunk.data), kept, chunk.stored)
        order.append(number)
