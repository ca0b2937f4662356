# SPDX-License-Identifier: Apache-2.0
"""Make casync indexes and fill stores: casync's cuts, a file for each different chunk, compressed on all cores.

A store grows: chunks that it has already are neither compressed nor written again.
"""

from __future__ import annotations

import lzma
import threading
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import zstandard

from regraft.build.chunks import Cutter, Source, ahead, counted
from regraft.engine.chunkers import named
from regraft.engine.chunkstores import WriteStore
from regraft.engine.medium import Medium
from regraft.engine.progress import QUIET, Progress
from regraft.engine.verify import default_workers
from regraft.errors import LimitError, UsageError
from regraft.formats import caibx
from regraft.formats.caibx import Header, Sizes
from regraft.limits import DEFAULT, KIB, Limits
from regraft.model import Algorithm, DigestColumn

#: casync's default sizes of chunks.
SIZES = Sizes(16 * KIB, 64 * KIB, 256 * KIB)

DIGESTS = {"sha512-256": Algorithm.SHA512_256, "sha256": Algorithm.SHA256}

#: By compression: the least and the greatest level, and the one that casync takes.
LEVELS = {"zstd": (1, 22, 3), "xz": (0, 9, 6), "gzip": (1, 9, 6), "none": (0, 0, 0)}


@dataclass(frozen=True, slots=True)
class Options:
    """What `casync make` can be told, with its defaults.

    level: None for casync's. compression "none" stores chunks as they are, which casync reads too.
    """

    sizes: Sizes = SIZES
    digest: Algorithm = Algorithm.SHA512_256
    compression: str = "zstd"
    level: int | None = None
    workers: int = 0

    def check(self, limits: Limits) -> None:
        """Raise UsageError, LimitError for what cannot be written, or what no reader takes."""
        if self.digest not in DIGESTS.values():
            raise UsageError(f"digest {self.digest.label}: casync has {', '.join(DIGESTS)}")
        if self.compression not in LEVELS:
            raise UsageError(f"compression {self.compression!r}: there are {', '.join(LEVELS)}")
        least, greatest, _ = LEVELS[self.compression]
        if self.level is not None and not least <= self.level <= greatest:
            raise UsageError(f"compression level {self.level}: {self.compression} has {least} to {greatest}")
        sizes = self.sizes
        if not sizes.sound or (sizes.maximum < caibx.WINDOW and not sizes.fixed):
            raise UsageError(
                f"chunk sizes {sizes.minimum}, {sizes.average}, {sizes.maximum}: they rise, the greatest has at least "
                f"{caibx.WINDOW} bytes unless all are the same, and at most {caibx.GREATEST_SIZE}"
            )
        named(sizes.label, limits=limits)

    @property
    def compress(self) -> Callable[[bytes], bytes]:
        """What makes the content of a chunk file; from any thread. Same input, same output."""
        level = LEVELS[self.compression][2] if self.level is None else self.level
        if self.compression == "zstd":
            return _zstd(level)
        if self.compression == "xz":
            return lambda data: lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC64, level)
        if self.compression == "gzip":
            return lambda data: _gzip(data, level)
        return lambda data: data


def sizes_of(text: str) -> Sizes:
    """What casync's --chunk-size says: an average, or MIN:AVG:MAX. Bytes, or with K, M, G for powers of 1024.

    Raises UsageError.
    """
    parts = text.split(":")
    values = [_bytes(part) for part in parts]
    if len(values) == 1:
        return Sizes(max(values[0] // 4, 1), values[0], values[0] * 4)
    if len(values) == 3:
        return Sizes(*values)
    raise UsageError(f"chunk size {text!r}: an average, or MIN:AVG:MAX")


def _bytes(text: str) -> int:
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    shift = {"K": 10, "M": 20, "G": 30}.get(number[-1:], 0)
    number = number[:-1] if shift else number
    if not (number.isascii() and number.isdecimal() and len(number) < 12):
        raise UsageError(f"chunk size {text!r}: a number of bytes, or with K, M or G")
    return int(number) << shift


def _zstd(level: int) -> Callable[[bytes], bytes]:
    local = threading.local()  # a context is not to be shared between threads

    def compress(data: bytes) -> bytes:
        context: zstandard.ZstdCompressor | None = getattr(local, "zstd", None)
        if context is None:  # without the content's size, as casync writes frames
            context = local.zstd = zstandard.ZstdCompressor(level=level, write_content_size=False)
        return context.compress(data)

    return compress


def _gzip(data: bytes, level: int) -> bytes:
    encoder = zlib.compressobj(level, wbits=31)  # no time in the header
    return encoder.compress(data) + encoder.flush()


class Store:
    """Adds chunks to a store, those that it does not have. Thread-safe."""

    def __init__(self, store: WriteStore, options: Options) -> None:
        self._store, self._compress = store, options.compress
        self._plain = options.compression == "none"
        self._lock = threading.Lock()
        self.written = 0  #: chunks that were not there
        self.written_bytes = 0  #: of their files

    def put(self, digest: bytes, data: bytes) -> None:
        """Have the chunk in the store, durably but for its name: see `sync`."""
        paths = caibx.paths(digest)
        if self._store.has(paths):
            return
        content = self._compress(data)
        self._store.put(paths[1 if self._plain else 0], content)
        with self._lock:
            self.written += 1
            self.written_bytes += len(content)

    def sync(self) -> None:
        """Make the names of all chunks durable: an index may now speak of them."""
        self._store.sync()


@dataclass(frozen=True, slots=True)
class Result:
    """What `pack` made. digest: of the whole image, which `casync make` prints."""

    header: Header
    digest: bytes


def pack(
    image: Medium,
    out: Medium,
    store: Store | None,
    options: Options = Options(),
    *,
    limits: Limits = DEFAULT,
    progress: Progress = QUIET,
) -> Result:
    """Write the index of `image` to the empty medium `out`, after its chunks to `store`; without one, only the index.

    Memory: the longest chunk for each thread, `limits.buffer`, and 100 bytes or so for each different chunk.

    Raises ChangedError if the image changes meanwhile; LimitError, UsageError for options that cannot be.
    """
    options.check(limits)
    return build(
        Cutter(image, options.sizes.label, threads=options.workers, progress=progress), out, store, options,
        limits=limits,
    )  # fmt: skip


def build(
    source: Source, out: Medium, store: Store | None, options: Options = Options(), *, limits: Limits = DEFAULT
) -> Result:
    """As `pack`, of chunks that come from anywhere.

    If casync's rule did not cut them, the index tells as sizes those that there are: casync reads it, and finds few of
    the chunks in seeds.
    """
    if source.size > limits.image_size:
        raise LimitError(f"an image of {source.size} bytes, more than limits.image_size = {limits.image_size}")
    bounds, digests = array("Q", [0]), DigestColumn(options.digest)
    whole, workers = options.digest.hasher(), options.workers or default_workers()

    def new_ones() -> Iterator[tuple[int, Callable[[], None]]]:
        known: set[bytes] = set()
        for chunk in counted(source.chunks(options.digest, whole.update), limits):
            bounds.append(bounds[-1] + len(chunk.data))
            digests.append(chunk.digest)
            if store is not None and chunk.digest not in known:
                known.add(chunk.digest)
                yield len(chunk.data), partial(store.put, chunk.digest, bytes(chunk.data))

    for _ in ahead(new_ones(), workers, limits.buffer):
        pass
    if store is not None:
        store.sync()
    content = caibx.build_header(Header(Sizes.of(source.label) or caibx.sizes_in(bounds), bounds, digests))
    header = caibx.parse_header(content, limits=limits)
    out.write(0, content)
    return Result(header, whole.digest())
