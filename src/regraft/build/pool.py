# SPDX-License-Identifier: Apache-2.0
"""Units compressed on all cores, given out in order, with a bounded number of bytes in flight."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import zstandard

from regraft.engine.verify import default_workers
from regraft.errors import UsageError
from regraft.formats.codecs import brotli, lz4
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

T = TypeVar("T")
Compress = Callable[[Buffer], bytes]

#: Levels of each codec: the lowest, the highest, the default.
LEVELS = {"zstd": (1, 22, 19), "deflate": (1, 9, 9), "zlib": (1, 9, 9), "brotli": (1, 11, 11), "lz4": (1, 12, 12)}


def checked_level(codec: str, level: int | None) -> int:
    """`level`, or the codec's default for None. Raises UsageError."""
    if codec not in LEVELS:
        return 0
    lowest, highest, default = LEVELS[codec]
    if level is None:
        return default
    if not lowest <= level <= highest:
        raise UsageError(f"compression level {level}: {codec} has {lowest} to {highest}")
    return level


def compressor(codec: str, level: int, *, window_log: int) -> Compress:
    """Compresses one unit, in any thread, always to the same bytes.

    window_log: 2 to this power bytes is the window of zstd frames and raw deflate streams at most. Raises MissingError
    without the package that lz4 or brotli need.
    """
    if codec == "zstd":
        return _zstd(level, window_log)
    if codec in ("deflate", "zlib"):
        import zlib

        bits = -min(window_log, 15) if codec == "deflate" else 15

        def deflate(data: Buffer) -> bytes:
            stream = zlib.compressobj(level, zlib.DEFLATED, bits, 9 if codec == "deflate" else 8)
            return stream.compress(data) + stream.flush()

        return deflate
    if codec == "lz4":
        module = lz4()
        return lambda data: bytes(
            module.compress(bytes(data), mode="high_compression", compression=level, store_size=False)
        )
    if codec == "brotli":
        other = brotli()
        return lambda data: bytes(other.compress(bytes(data), quality=level))
    return bytes


def _zstd(level: int, window_log: int) -> Compress:
    local = threading.local()  # a context is not to be shared between threads

    def compress(data: Buffer) -> bytes:
        contexts: dict[int, zstandard.ZstdCompressor] = local.__dict__.setdefault("contexts", {})
        size = len(data)
        if size not in contexts:
            contexts.clear()
            parameters = zstandard.ZstdCompressionParameters.from_level(
                level, window_log=window_log, source_size=size, write_content_size=1, write_checksum=0, write_dict_id=0
            )
            contexts[size] = zstandard.ZstdCompressor(compression_params=parameters)
        return contexts[size].compress(data)

    return compress


def in_order(
    units: Iterable[tuple[T, bytes]],
    compress: Callable[[bytes], bytes],
    *,
    workers: int = 0,
    limits: Limits = DEFAULT,
) -> Iterator[tuple[T, bytes, bytes]]:
    """(what came with the unit, its bytes, the same compressed), in the order of `units`."""
    ahead: deque[tuple[T, bytes, Future[bytes]]] = deque()
    count, waiting = workers or default_workers(), 0
    with ThreadPoolExecutor(count, "compress") as pool:
        for about, data in units:
            ahead.append((about, data, pool.submit(compress, data)))
            waiting += len(data)
            while waiting > limits.buffer and len(ahead) > count:
                about, data, future = ahead.popleft()
                waiting -= len(data)
                yield about, data, future.result()
        while ahead:
            about, data, future = ahead.popleft()
            yield about, data, future.result()
