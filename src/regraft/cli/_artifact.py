# SPDX-License-Identifier: Apache-2.0
"""Opening chunked artifacts, wherever they lie."""

from __future__ import annotations

from regraft.engine.medium import Medium
from regraft.errors import FormatError
from regraft.formats import zchunk
from regraft.limits import DEFAULT, Limits


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
