# SPDX-License-Identifier: Apache-2.0
"""Make zchunk files: libzck's cuts, one zstd frame per chunk, compressed on all cores, in order, in bounded memory."""

from __future__ import annotations

import tempfile
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import zstandard

from regraft import kernels
from regraft.build.libzstd import Library
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Origin, Progress
from regraft.engine.verify import default_workers
from regraft.errors import ChangedError, LimitError, UsageError
from regraft.formats import zchunk
from regraft.formats.zchunk import FLAG_UNCOMPRESSED_SOURCE, Header
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, DigestColumn
from regraft.model.buffers import Buffer

#: libzck: ZSTD_c_compressionLevel 9, and ZSTD_c_strategy always ZSTD_btopt.
LEVEL = 9
_BTOPT = 7

_BATCH = 4 << 20
_COPY = 1 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """What `zck` can be told. The defaults are those that SWUpdate's delta handler needs:
    `zck -u --chunk-hash-type sha256`.

    libzstd: "" for the one that python-zstandard brings, "system", or a path: see `build.libzstd`.
    """

    digest: Algorithm = Algorithm.SHA256
    chunk_digest: Algorithm = Algorithm.SHA256
    uncompressed_source: bool = True
    compression: str = "zstd"
    level: int = LEVEL
    dictionary: bytes = b""
    libzstd: str = ""
    workers: int = 0

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

    The body goes to an unlinked temporary file first, as with `zck`, since the header with its size stands before it.
    Raises ChangedError if the image changes meanwhile; LimitError, UsageError for options that cannot be.
    """
    options.check(limits)
    if image.size > limits.image_size:
        raise LimitError(f"an image of {image.size} bytes, more than limits.image_size = {limits.image_size}")
    algorithm = options.chunk_digest
    stored_digests = DigestColumn(algorithm)
    digests = DigestColumn(algorithm if options.uncompressed_source else None)
    stored, lengths = array("I"), array("I")
    body_hasher = options.digest.hasher()
    progress.phase("pack", image.size)
    with tempfile.TemporaryFile(prefix="regraft-") as body:

        def add(chunk: bytes, digest: bytes, plain_digest: bytes, length: int) -> None:
            body.write(chunk)
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
        for chunk, digest, plain_digest, length in _chunks(image, options):
            add(chunk, digest, plain_digest, length)
            progress.advance(length, Origin.SEED)
            if len(stored) > limits.chunks:
                raise LimitError(f"more than limits.chunks = {limits.chunks} chunks")
        header = Header(
            algorithm=options.digest,
            chunk_algorithm=algorithm,
            flags=FLAG_UNCOMPRESSED_SOURCE if options.uncompressed_source else 0,
            compression=options.compression,
            data_digest=bytes(options.digest.size) if options.uncompressed_source else body_hasher.digest(),
            stored_digests=stored_digests,
            digests=digests,
            stored=stored,
            lengths=lengths,
        )
        content = zchunk.build_header(header)
        out.write(0, content)
        _append(body, out, len(content))
    return zchunk.parse_header(content, limits=limits)


def _append(body: BinaryIO, out: Medium, offset: int) -> None:
    body.seek(0)
    while piece := body.read(_COPY):
        out.write(offset, piece)
        offset += len(piece)


def _chunks(image: Medium, options: Options) -> Iterator[tuple[bytes, bytes, bytes, int]]:
    """(stored bytes, their digest, digest of the plain bytes, plain length) of each chunk, in order."""
    workers = options.workers or default_workers()
    algorithm = options.chunk_digest
    compressors = _Compressors(options, options.dictionary)

    def finish(data: Buffer, plain_digest: bytes) -> tuple[bytes, bytes, bytes, int]:
        if options.compression == "none":
            return bytes(data), plain_digest, plain_digest, len(data)
        chunk = compressors.compress(data)
        return chunk, algorithm.of(chunk), plain_digest, len(data)

    ahead: deque[Future[tuple[bytes, bytes, bytes, int]]] = deque()
    with ThreadPoolExecutor(workers, "compress") as pool:
        for data, plain_digest in _cut(image, algorithm):
            ahead.append(pool.submit(finish, data, plain_digest))
            while len(ahead) > 16 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _cut(image: Medium, algorithm: Algorithm) -> Iterator[tuple[memoryview, bytes]]:
    """The chunks of an image and their digests. A batch lives as long as one of its chunks is in use."""
    total = image.size
    open_chunk = b""
    for start in range(0, total, _BATCH):
        count = min(_BATCH, total - start)
        batch = memoryview(bytearray(len(open_chunk) + count))
        batch[: len(open_chunk)] = open_chunk
        if image.read_into(start, batch[len(open_chunk) :]) < count:
            raise ChangedError(f"{image.name} became shorter while it was packed", cure="pack a file at rest")
        found, digests = kernels.zck_index(batch, final=start + count == total, algorithm=algorithm.label)
        offset = 0
        for number, length in enumerate(found):
            digest = digests[number * algorithm.size : (number + 1) * algorithm.size]
            yield batch[offset : offset + length], digest
            offset += length
        open_chunk = bytes(batch[offset:])
