# SPDX-License-Identifier: Apache-2.0
"""The chunks of an image that is being packed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from regraft.engine.chunkers import Chunker, cut_stream
from regraft.engine.medium import Medium
from regraft.engine.progress import Origin, Progress
from regraft.errors import ChangedError
from regraft.model import Algorithm


def chunks_of(
    image: Medium,
    chunker: Chunker,
    algorithm: Algorithm,
    whole: Callable[[memoryview], None],
    *,
    threads: int,
    progress: Progress,
) -> Iterator[tuple[memoryview, bytes]]:
    """Each chunk, good until the next step, and its digest; all bytes pass through `whole`, in order.

    Raises ChangedError if the image becomes shorter meanwhile.
    """

    def read(offset: int, view: memoryview) -> None:
        if image.read_into(offset, view) < len(view):
            raise ChangedError(f"{image.name} became shorter while it was packed", cure="pack a file at rest")

    with ThreadPoolExecutor(1, "hash") as pool:
        for run, lengths, digests in cut_stream(read, image.size, chunker, algorithm, threads=threads):
            hashing = pool.submit(whole, run)
            offset = 0
            for number, length in enumerate(lengths):
                yield run[offset : offset + length], digests[number * algorithm.size : (number + 1) * algorithm.size]
                offset += length
                progress.advance(length, Origin.SEED)
            hashing.result()
