# SPDX-License-Identifier: Apache-2.0
"""Opening chunked artifacts, wherever they lie: a file or a URL. What they are is known by their magic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from regraft.cli._network import Network
from regraft.cli._options import USUAL, Places
from regraft.cli._stores import default_stores, folder_of, is_url, open_stores
from regraft.engine.blobs import LocalBlob
from regraft.engine.chunkcache import Check
from regraft.engine.chunkfiles import ChunkSource
from regraft.engine.files import open_source
from regraft.engine.medium import Medium
from regraft.engine.ranges import Range, RangeSource
from regraft.errors import FormatError, LimitError
from regraft.formats import caibx, cba, ihop, zchunk
from regraft.formats.image_description import Description
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, Recipe

if TYPE_CHECKING:
    from regraft.transports.fetcher import Fetcher

__all__ = ["Artifact", "Header", "is_url", "open_artifact", "open_header", "read_any_header", "read_header"]

Header: TypeAlias = "zchunk.Header | cba.Header | caibx.Header | ihop.Header"
#: What an opened artifact says of itself: its header, or the description of an image in a store.
Words: TypeAlias = "Header | Description"

#: What every artifact has at least, and what tells how long its header is, or that it is all of the file.
_FIRST = zchunk.SHORTEST


class _Head(NamedTuple):
    """The start of a file. start: as many bytes as are asked for, fewer where it ends. whole: all of it."""

    start: Callable[[int], bytes]
    whole: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Artifact:
    """An open chunked artifact: what it says, and where its stored bytes are.

    remote: whether any of them come over the network. wire: bytes that have come over it so far.
    """

    header: Words
    recipe: Recipe
    blob: RangeSource
    remote: bool = False
    wire: Callable[[], int] = lambda: 0


def is_cba(head: bytes) -> bool:
    """Whether these are the first bytes of a bita archive."""
    return head.startswith((cba.MAGIC, cba.MAGIC_LEGACY))


def is_artifact(location: str) -> bool:
    """Whether `location` is a chunked artifact and not an image: a URL, an image of a store, or a file that begins
    like one.

    Raises SourceError.
    """
    from regraft.stores.places import stored

    if is_url(location) or stored(location) is not None:
        return True
    medium = open_source(location)
    try:
        head = _read(medium, min(_FIRST, medium.size))
    finally:
        medium.close()
    return is_cba(head) or head.startswith((zchunk.MAGIC, zchunk.MAGIC_DETACHED, caibx.MAGIC, ihop.MAGIC))


def read_header(medium: Medium, *, limits: Limits = DEFAULT) -> tuple[zchunk.Header, bytes]:
    """The header of a local zchunk file, parsed and as it is. Reads nothing else."""
    lead = zchunk.parse_lead(_read(medium, min(medium.size, zchunk.LEAD_SIZE)), limits=limits)
    if medium.size < lead.total:
        raise FormatError(f"{medium.name}: a header of {lead.total} bytes, but the file has {medium.size}")
    content = _read(medium, lead.total)
    return zchunk.parse_header(content, limits=limits), content


def read_any_header(medium: Medium, *, limits: Limits = DEFAULT) -> Header:
    """The header of a local artifact. Reads nothing else."""
    return _header(_local_head(medium, limits), limits)[0]


def open_header(location: str, network: Network, *, limits: Limits = DEFAULT) -> tuple[Header, bytes]:
    """The header of the artifact at a path or URL, parsed and as it is."""
    if is_url(location):
        with network.connect(limits) as fetcher:
            return _header(_remote_head(fetcher, location, fetcher.open(location), limits), limits)
    medium = open_source(location)
    try:
        return _header(_local_head(medium, limits), limits)
    finally:
        medium.close()


def _read(medium: Medium, count: int) -> bytes:
    data = bytearray(count)
    return bytes(data[: medium.read_into(0, memoryview(data))])


def _local_head(medium: Medium, limits: Limits) -> _Head:
    def whole() -> bytes:
        if medium.size > limits.header_size:
            raise LimitError(f"{medium.name} has {medium.size} bytes, more than {limits.header_size} (header_size)")
        return _read(medium, medium.size)

    return _Head(lambda count: _read(medium, min(count, medium.size)), whole)


def _remote_head(fetcher: Fetcher, location: str, source: RangeSource, limits: Limits) -> _Head:
    """The start of a file behind a URL; what was fetched once is not fetched again."""
    content = b""

    def start(count: int) -> bytes:
        nonlocal content
        step = limits.buffer // 4
        ranges = [Range(start, min(step, count - start)) for start in range(len(content), count, step)]
        content += b"".join(bytes(data) for _, data in source.fetch(ranges, ordered=True))
        return content[:count]

    return _Head(start, lambda: fetcher.get(location, limits.header_size))


def _header(head: _Head, limits: Limits) -> tuple[Header, bytes]:
    """The header and its bytes, by two reads: of its start, which tells how much the rest is, and of the rest."""
    first = head.start(_FIRST)
    if len(first) < _FIRST:
        raise FormatError(f"{len(first)} bytes are too few for any artifact", offset=len(first))
    if first.startswith(caibx.MAGIC):
        content = head.whole()
        return caibx.parse_header(content, limits=limits), content
    if first.startswith(ihop.MAGIC):
        content = head.start(ihop.parse_lead(first, limits=limits))
        return ihop.parse_header(content, limits=limits), content
    if is_cba(first):
        content = head.start(cba.parse_lead(first, limits=limits))
        return cba.parse_header(content, limits=limits), content
    content = head.start(zchunk.parse_lead(first + bytes(zchunk.LEAD_SIZE), limits=limits).total)
    return zchunk.parse_header(content, limits=limits), content


@contextmanager
def open_artifact(
    location: str, network: Network, stores: Places = USUAL, *, limits: Limits = DEFAULT
) -> Iterator[Artifact]:
    """Open the artifact at a path or URL: a zchunk file, bita archive, casync index or ihop description; or an image of
    a chunk store, as STORE/NAME, whose `blob` is the image itself.

    stores: where chunk files are looked for, instead of the usual places beside the artifact, and kept.
    Raises FormatError, TransportError, SourceError, StateError.
    """
    from regraft.stores.places import open_stored, stored

    with ExitStack() as stack:
        if (place := stored(location)) is not None:
            image = stack.enter_context(open_stored(place, limits=limits))
            yield Artifact(image.description, image.as_one(), LocalBlob(image.medium))
            return
        if is_url(location):
            fetcher = stack.enter_context(network.connect(limits))
            remote = fetcher.open(location)
            header, _ = _header(_remote_head(fetcher, location, remote, limits), limits)
            if isinstance(header, caibx.Header | ihop.Header):
                yield _over_chunks(location, header, stores, network, stack, fetcher, limits)
            else:
                size = remote.size if isinstance(header, cba.Header) else None
                yield Artifact(header, _recipe(header, location, size), remote, True, lambda: remote.stats.bytes)
            return
        medium = open_source(location)
        stack.callback(medium.close)
        header = read_any_header(medium, limits=limits)
        if isinstance(header, caibx.Header | ihop.Header):
            yield _over_chunks(location, header, stores, network, stack, None, limits)
            return
        if isinstance(header, zchunk.Header) and (
            header.detached or medium.size == header.size < header.size + header.body_size
        ):
            raise FormatError(f"{location} is only a header", cure="give the whole file, or its URL")
        yield Artifact(header, _recipe(header, location, medium.size), LocalBlob(medium))


def _recipe(header: zchunk.Header | cba.Header, location: str, size: int | None) -> Recipe:
    if isinstance(header, cba.Header):
        return cba.recipe(header, location, size=size)
    return zchunk.recipe(header, location, size=size)


def _over_chunks(
    location: str,
    header: caibx.Header | ihop.Header,
    stores: Places,
    network: Network,
    stack: ExitStack,
    fetcher: Fetcher | None,
    limits: Limits,
) -> Artifact:
    """An artifact whose chunks are files of stores. `fetcher` is what its own bytes came by."""
    if isinstance(header, caibx.Header):
        check = Check(header.algorithm, caibx.CODEC, caibx.digest_of, limits=limits)
        opened = open_stores(stores, default_stores(location), check, network, stack, fetcher, limits)
        recipe, paths = caibx.recipe(header, opened.location), caibx.paths
    else:
        check = Check(header.digests.algorithm or Algorithm.SHA256, "none", ihop.digest_of, limits=limits)
        opened = open_stores(stores, [folder_of(location)], check, network, stack, fetcher, limits)
        recipe, paths = ihop.recipe(header, opened.location), ihop.paths
    source = ChunkSource(
        opened.stores, header.digests, paths, header.lengths, threads=opened.threads, limits=network.limits(limits)
    )
    return Artifact(header, recipe, source, opened.remote, opened.wire)
