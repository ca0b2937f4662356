# SPDX-License-Identifier: Apache-2.0
"""Make zchunk files: libzck's cuts, one zstd frame per chunk, compressed on all cores, in order, in bounded memory."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import zstandard

from regraft.build.chunks import Cutter, Source, ahead, append, body, counted, placed
from regraft.build.libzstd import Library
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Progress
from regraft.engine.verify import default_workers
from regraft.errors import LimitError, UsageError
from regraft.formats import zchunk
from regraft.formats.chunk_rules import UNMOVED, Placement
from regraft.formats.zchunk import FLAG_OPTIONAL_ELEMENTS, FLAG_UNCOMPRESSED_SOURCE, Header
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, DigestColumn
from regraft.model.buffers import Buffer

#: libzck: ZSTD_c_compressionLevel 9, and ZSTD_c_strategy always ZSTD_btopt.
LEVEL = 9
_BTOPT = 7


@dataclass(frozen=True, slots=True)
class Options:
    """What `zck` can be told. The defaults are those that SWUpdate's delta handler needs:
    `zck -u --chunk-hash-type sha256`.

    libzstd: "" for the one that python-zstandard brings, "system", or a path: see `build.libzstd`. placement: what
    moves the cuts. metadata: goes into optional elements, which stock tools pass over.
    """

    digest: Algorithm = Algorithm.SHA256
    chunk_digest: Algorithm = Algorithm.SHA256
    uncompressed_source: bool = True
    compression: str = "zstd"
    level: int = LEVEL
    dictionary: bytes = b""
    libzstd: str = ""
    workers: int = 0
    placement: Placement = UNMOVED
    metadata: dict[str, bytes] = field(default_factory=dict)

    def check(self, limits: Limits) -> None:
        """Raise UsageError, LimitError for what no reader takes."""
        if self.compression not in zchunk.COMPRESSIONS.values():
            raise UsageError(f"compression {self.compression!r}: zchunk has none and zstd")
        if self.chunk_digest == Algorithm.SHA1 and self.uncompressed_source:
            raise UsageError("SHA-1 chunk digests cannot describe an uncompressed source", cure="take sha256")
        if not 1 <= self.level <= 22:
            raise UsageError(f"compression level {self.level}: zstd has 1 to 22")
        if len(self.dictionary) > limits.dictionary_size:
            raise LimitError(f"a dictionary of {len(self.dictionary)} bytes, more than {limits.dictionary_size}")
        if self.dictionary and self.compression == "none":
            raise UsageError("a dictionary without compression has no use")

    def warnings(self) -> list[str]:
        """What a person should know who gives the file to others."""
        if self.placement == UNMOVED:
            return []
        return [
            "stock SWUpdate and libzck cut a plain seed by zchunk's rule alone: they find fewer of these chunks in it"
        ]


class _Context(Protocol):
    def compress(self, data: Buffer, /) -> bytes: ...


class _Compressors:
    """A compression context for each thread, all with the same parameters."""

    def __init__(self, options: Options, dictionary: bytes) -> None:
        self._local = threading.local()
        if options.libzstd:
            library = Library(options.libzstd)
            self._make: Callable[[], _Context] = lambda: library.compressor(options.level, _BTOPT, dictionary or None)
        else:
            parameters = zstandard.ZstdCompressionParameters(
                compression_level=options.level, strategy=zstandard.STRATEGY_BTOPT, write_content_size=1
            )
            content = (
                zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_AUTO) if dictionary else None
            )
            self._make = lambda: zstandard.ZstdCompressor(dict_data=content, compression_params=parameters)

    def compress(self, data: Buffer) -> bytes:
        context: _Context | None = getattr(self._local, "context", None)
        try:
            if context is None:
                context = self._local.context = self._make()
            return context.compress(data)
        except zstandard.ZstdError as error:  # a file that begins as a trained dictionary and is none
            raise UsageError(f"zstd: {error}", cure="give another dictionary") from None


def pack(
    image: Medium, out: Medium, options: Options = Options(), *, limits: Limits = DEFAULT, progress: Progress = QUIET
) -> Header:
    """Write the zchunk file of `image` to the empty medium `out`; return its header.

    Raises ChangedError if the image changes meanwhile; LimitError, UsageError for options that cannot be.
    """
    options.check(limits)
    label = placed(image, zchunk.CHUNKER, options.placement, limits=limits)
    return build(Cutter(image, label, threads=options.workers, progress=progress), out, options, limits=limits)


def build(source: Source, out: Medium, options: Options = Options(), *, limits: Limits = DEFAULT) -> Header:
    """Write a zchunk file of the chunks that `source` gives to the empty medium `out`; return its header.

    The body goes to an unlinked temporary file first, as with `zck`, since the header with its size stands before it.
    Raises what `pack` does, and what the source does.
    """
    options.check(limits)
    if source.size > limits.image_size:
        raise LimitError(f"an image of {source.size} bytes, more than limits.image_size = {limits.image_size}")
    algorithm = options.chunk_digest
    stored_digests = DigestColumn(algorithm)
    digests = DigestColumn(algorithm if options.uncompressed_source else None)
    stored, lengths = array("I"), array("I")
    body_hasher = options.digest.hasher()
    elements = zchunk.rule_elements(source.label) + zchunk.metadata_elements(options.metadata, limits)
    with body() as file:

        def add(chunk: bytes, digest: bytes, plain_digest: bytes, length: int) -> None:
            file.write(chunk)
            body_hasher.update(chunk)
            stored_digests.append(digest)
            if options.uncompressed_source:
                digests.append(plain_digest)
            stored.append(len(chunk))
            lengths.append(length)

        if options.dictionary:
            first = _Compressors(options, b"").compress(options.dictionary)
            # libzck never feeds the dictionary to the hash of uncompressed bytes.
            add(first, algorithm.of(first), algorithm.of(b""), len(options.dictionary))
        else:
            add(b"", bytes(algorithm.size), bytes(algorithm.size), 0)
        for made in _stored(source, options, limits):
            add(*made)
        flags = FLAG_UNCOMPRESSED_SOURCE if options.uncompressed_source else 0
        header = Header(
            algorithm=options.digest,
            chunk_algorithm=algorithm,
            flags=flags | (FLAG_OPTIONAL_ELEMENTS if elements else 0),
            compression=options.compression,
            data_digest=bytes(options.digest.size) if options.uncompressed_source else body_hasher.digest(),
            stored_digests=stored_digests,
            digests=digests,
            stored=stored,
            lengths=lengths,
            elements=elements,
        )
        content = zchunk.build_header(header)
        out.write(0, content)
        append(file, out, len(content))
    return zchunk.parse_header(content, limits=limits)


def _stored(source: Source, options: Options, limits: Limits) -> Iterator[tuple[bytes, bytes, bytes, int]]:
    """(stored bytes, their digest, digest of the plain bytes, plain length) of each chunk, in order."""
    algorithm = options.chunk_digest
    compressors = _Compressors(options, options.dictionary)

    def finish(data: bytes, digest: bytes, stored: bytes | None) -> tuple[bytes, bytes, bytes, int]:
        if options.compression == "none":
            return data, digest, digest, len(data)
        chunk = compressors.compress(data) if stored is None else stored
        return chunk, algorithm.of(chunk), digest, len(data)

    tasks = (
        (len(chunk.data), partial(finish, bytes(chunk.data), chunk.digest, chunk.stored))
        for chunk in counted(source.chunks(algorithm), limits)
    )
    return ahead(tasks, options.workers or default_workers(), limits.buffer)
