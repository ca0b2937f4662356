# SPDX-License-Identifier: Apache-2.0
"""Decorators of stores that are read: a cache in between, a second try."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from regraft.engine.chunkstores import ReadStore, WriteStore
from regraft.errors import FormatError, LimitError, RegraftError, SourceError
from regraft.formats.codecs import Decoder
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm
from regraft.model.buffers import Buffer


class Check:
    """Tells whether bytes are the file of a chunk, by the digest that its name is made of. Thread-safe.

    digest_of: the digest that a path stands for, None for other paths. codec: of the files, see `formats.codecs`.
    """

    def __init__(
        self, algorithm: Algorithm, codec: str, digest_of: Callable[[str], bytes | None], *, limits: Limits = DEFAULT
    ) -> None:
        self._algorithm, self._digest_of = algorithm, digest_of
        self._decoder = Decoder(codec, limits=limits)

    def path_of(self, paths: Sequence[str], content: Buffer, maximum: int) -> str | None:
        """Which of a chunk's names the file with this content has: that for compressed ones, which is the first, or
        that for the chunk as it is, the last. None if it is not that chunk. Decodes at most `maximum` bytes.
        """
        digest = self._digest_of(paths[0])
        if digest is None:
            return None
        try:
            plain = self._decoder.decode_all(content, maximum)
        except (FormatError, LimitError):
            plain = b""
        if self._is(digest, plain):
            return paths[-1] if plain == content else paths[0]
        # A plain chunk may begin as a compressed one does.
        return paths[-1] if self._is(digest, content) else None

    def _is(self, digest: bytes, data: Buffer) -> bool:
        return hmac.compare_digest(self._algorithm.of(data), digest)


class Cached:
    """`origin` through a cache: what is read once is found there the next time. The cache is a store as any other.

    A file enters only if it is the chunk that its name says, and counts only if it still is: else it is read from
    `origin` again and replaced. A cache that cannot be read or written is done without; `report` is told, once.
    """

    def __init__(
        self, origin: ReadStore, cache: WriteStore, check: Check, *, report: Callable[[str], None] = lambda _: None
    ) -> None:
        self.location = origin.location
        self._origin, self._cache, self._check, self._report = origin, cache, check, report
        self._writable = True

    def read(self, paths: Sequence[str], maximum: int) -> Buffer | None:
        content = self._kept(paths, maximum)
        if content is None:
            content = self._origin.read(paths, maximum)
            if content is not None and self._writable:
                self._keep(paths, content, maximum)
        return content

    def absent(self, paths: Sequence[str]) -> RegraftError:
        return self._origin.absent(paths)

    def abort(self) -> None:
        self._origin.abort()

    def _kept(self, paths: Sequence[str], maximum: int) -> Buffer | None:
        for path in paths:  # one by one: behind a damaged one there may be another
            try:
                content = self._cache.read([path], maximum)
            except (SourceError, LimitError):
                continue
            if content is not None and self._check.path_of(paths, content, maximum) == path:
                return content
        return None

    def _keep(self, paths: Sequence[str], content: Buffer, maximum: int) -> None:
        path = self._check.path_of(paths, content, maximum)
        if path is None:
            return  # whoever asked for it finds that out, too
        try:
            self._cache.put(path, content, replace=True)
        except RegraftError as error:
            if self._writable:
                self._writable = False
                self._report(f"nothing more is cached: {error}")


class Retrying:
    """`origin` with a second try for each file that could not be read: old cards and disks often can after all.

    For local stores: the network has its own ladder of retries.
    """

    def __init__(self, origin: ReadStore) -> None:
        self.location = origin.location
        self._origin = origin

    def read(self, paths: Sequence[str], maximum: int) -> Buffer | None:
        try:
            return self._origin.read(paths, maximum)
        except SourceError:
            return self._origin.read(paths, maximum)

    def absent(self, paths: Sequence[str]) -> RegraftError:
        return self._origin.absent(paths)

    def abort(self) -> None:
        self._origin.abort()
