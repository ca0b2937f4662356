# SPDX-License-Identifier: Apache-2.0
"""Any bytes as a journal, behind a header that fits and without one."""

from __future__ import annotations

import zlib

from regraft.errors import RegraftError
from regraft.formats import journal

_IDENTITY, _ROWS = bytes(32), 1000


def target(data: bytes) -> None:
    header = journal.build_header(_IDENTITY, _ROWS)
    sealed = data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")
    for content in (data, header + data, header + sealed):
        try:
            finished, valid = journal.parse(content, _IDENTITY, _ROWS)
        except RegraftError:
            continue
        if len(finished) != _ROWS or set(finished) - {0, 1} or not len(header) <= valid <= len(content):
            raise AssertionError(f"{len(finished)} flags, {valid} of {len(content)} bytes valid")
        if journal.parse(content[:valid], _IDENTITY, _ROWS) != (finished, valid):
            raise AssertionError("the valid part alone says something else")


def seeds() -> list[bytes]:
    records = [journal.build_record(runs) for runs in ([(0, 1)], [(5, 20), (990, 10)], [])]
    return [b"", *records, b"".join(records), journal.build_header(_IDENTITY, _ROWS) + records[1]]
