# SPDX-License-Identifier: Apache-2.0
"""Opening chunked artifacts, wherever they lie: a file or a URL. What they are is known by their magic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from regraft.cli._network import Network
from regraft.engine.blobs import LocalBlob
from regraft.engine.files import open_source
from regraft.engine.medium import Medium
from regraft.engine.ranges import Range, RangeSource
from regraft.errors import FormatError
from regraft.formats import cba, zchunk
from regraft.limits import DEFAULT, Limits
from regraft.model import Recipe

if TYPE_CHECKING:
    from regraft.transports.source import UrlSource

Header: TypeAlias = "zchunk.Header | cba.Header"

#: As many bytes of the file as are asked for, from its start; fewer where it ends.
Head: TypeAlias = Callable[[int], bytes]

#: What every artifact has at least, and what tells how long its header is.
_FIRST = zchunk.SHORTEST


@dataclass(frozen=True, slots=True)
class Artifact:
    """An open chunked artifact: what it says, and where its stored bytes are."""

    header: Header
    recipe: Recipe
    blob: RangeSource
    remote: UrlSource | None = None


def is_url(location: str) -> bool:
    """Whether `location` is a URL and not a path."""
    return "://" in location


def is_cba(head: bytes) -> bool:
    """Whether these are the first bytes of a bita archive."""
    return head.startswith((cba.MAGIC, cba.MAGIC_LEGACY))


def is_artifact(location: str) -> bool:
    """Whether `location` is a chunked artifact and not an image: a URL, or a file that begins like one.

    Raises SourceError.
    """
    if is_url(location):
        return True
    medium = open_source(location)
    try:
        head = _read(medium, min(_FIRST, medium.size))
    finally:
        medium.close()
    return is_cba(head) or head.startswith((zchunk.MAGIC, zchunk.MAGIC_DETACHED))


def read_header(medium: Medium, *, limits: Limits = DEFAULT) -> tuple[zchunk.Header, bytes]:
    """The header of a local zchunk file, parsed and as it is. Reads nothing else."""
    lead = zchunk.parse_lead(_read(medium, min(medium.size, zchunk.LEAD_SIZE)), limits=limits)
    if medium.size < lead.total:
        raise FormatError(f"{medium.name}: a header of {lead.total} bytes, but the file has {medium.size}")
    content = _read(medium, lead.total)
    return zchunk.parse_header(content, limits=limits), content


def read_any_header(medium: Medium, *, limits: Limits = DEFAULT) -> Header:
    """The header of a local artifact. Reads nothing else."""
    return _header(lambda count: _read(medium, min(count, medium.size)), limits)


def _read(medium: Medium, count: int) -> bytes:
    data = bytearray(count)
    return bytes(data[: medium.read_into(0, memoryview(data))])


def _header(head: Head, limits: Limits) -> Header:
    """The header, by two reads: of its start, which tells how much the rest is, and of the rest."""
    first = head(_FIRST)
    if len(first) < _FIRST:
        raise FormatError(f"{len(first)} bytes are too few for any artifact", offset=len(first))
    if is_cba(first):
        return cba.parse_header(head(cba.parse_lead(first, limits=limits)), limits=limits)
    lead = zchunk.parse_lead(first + bytes(zchunk.LEAD_SIZE), limits=limits)
    return zchunk.parse_header(head(lead.total), limits=limits)


def _remote_head(source: RangeSource, limits: Limits) -> Head:
    """The start of a file behind a URL; what was fetched once is not fetched again."""
    content = b""

    def head(count: int) -> bytes:
        nonlocal content
        step = limits.buffer // 4
        ranges = [Range(start, min(step, count - start)) for start in range(len(content), count, step)]
        content += b"".join(bytes(data) for _, data in source.fetch(ranges, ordered=True))
        return content[:count]

    return head


def _recipe(header: Header, location: str, size: int | None) -> Recipe:
    if isinstance(header, cba.Header):
        return cba.recipe(header, location, size=size)
    return zchunk.recipe(header, location, size=size)


@contextmanager
def open_artifact(location: str, network: Network, *, limits: Limits = DEFAULT) -> Iterator[Artifact]:
    """Open the zchunk file or bita archive at a path or URL. Raises FormatError, TransportError, SourceError."""
    if is_url(location):
        with network.connect(limits) as fetcher:
            remote = fetcher.open(location)
            header = _header(_remote_head(remote, limits), limits)
            size = remote.size if isinstance(header, cba.Header) else None
            yield Artifact(header, _recipe(header, location, size), remote, remote)
        return
    medium = open_source(location)
    try:
        header = read_any_header(medium, limits=limits)
        if isinstance(header, zchunk.Header) and (
            header.detached or medium.size == header.size < header.size + header.body_size
        ):
            raise FormatError(f"{location} is only a header", cure="give the whole file, or its URL")
        yield Artifact(header, _recipe(header, location, medium.size), LocalBlob(medium))
    finally:
        medium.close()
