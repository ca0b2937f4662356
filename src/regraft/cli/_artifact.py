# SPDX-License-Identifier: Apache-2.0
"""Opening chunked artifacts, wherever they lie: a file or a URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.cli._network import Network
from regraft.engine.blobs import LocalBlob
from regraft.engine.files import open_source
from regraft.engine.medium import Medium
from regraft.engine.ranges import Range, RangeSource
from regraft.errors import FormatError
from regraft.formats import zchunk
from regraft.limits import DEFAULT, Limits
from regraft.model import Recipe

if TYPE_CHECKING:
    from regraft.transports.source import UrlSource


@dataclass(frozen=True, slots=True)
class Artifact:
    """An open chunked artifact: what it says, and where its stored bytes are."""

    header: zchunk.Header
    recipe: Recipe
    blob: RangeSource
    remote: UrlSource | None = None


def is_url(location: str) -> bool:
    """Whether `location` is a URL and not a path."""
    return "://" in location


def read_header(medium: Medium, *, limits: Limits = DEFAULT) -> tuple[zchunk.Header, bytes]:
    """The header of a local zchunk file, parsed and as it is. Reads nothing else."""
    lead = zchunk.parse_lead(_read(medium, min(medium.size, zchunk.LEAD_SIZE)), limits=limits)
    if medium.size < lead.total:
        raise FormatError(f"{medium.name}: a header of {lead.total} bytes, but the file has {medium.size}")
    content = _read(medium, lead.total)
    return zchunk.parse_header(content, limits=limits), content


def _read(medium: Medium, count: int) -> bytes:
    data = bytearray(count)
    return bytes(data[: medium.read_into(0, memoryview(data))])


def _remote_header(source: RangeSource, limits: Limits) -> zchunk.Header:
    """The header of a zchunk file behind a URL: its lead first, which tells how much the rest is."""
    content = b""
    for wanted in (zchunk.SHORTEST, 0):
        more = wanted or zchunk.parse_lead(content + bytes(zchunk.LEAD_SIZE), limits=limits).total - len(content)
        if more > 0:
            ranges = [
                Range(start, min(limits.buffer // 4, len(content) + more - start))
                for start in range(len(content), len(content) + more, limits.buffer // 4)
            ]
            content += b"".join(bytes(data) for _, data in source.fetch(ranges, ordered=True))
    return zchunk.parse_header(content, limits=limits)


@contextmanager
def open_artifact(location: str, network: Network, *, limits: Limits = DEFAULT) -> Iterator[Artifact]:
    """Open the zchunk file at a path or URL. Raises FormatError, TransportError, SourceError."""
    if is_url(location):
        with network.connect(limits) as fetcher:
            remote = fetcher.open(location)
            header = _remote_header(remote, limits)
            yield Artifact(header, zchunk.recipe(header, location), remote, remote)
        return
    medium = open_source(location)
    try:
        header, _ = read_header(medium, limits=limits)
        if header.detached or medium.size == header.size < header.size + header.body_size:
            raise FormatError(f"{location} is only a header", cure="give the whole file, or its URL")
        yield Artifact(header, zchunk.recipe(header, location, size=medium.size), LocalBlob(medium))
    finally:
        medium.close()
