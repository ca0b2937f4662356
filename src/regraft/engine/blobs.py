# SPDX-License-Identifier: Apache-2.0
"""Stored bytes in local files, as a RangeSource."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from regraft.engine.medium import Medium
from regraft.engine.ranges import Range
from regraft.errors import SourceError
from regraft.model.buffers import Buffer


class LocalBlob:
    """An artifact that is here already."""

    def __init__(self, medium: Medium) -> None:
        self._medium = medium

    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
        """As `RangeSource.fetch`; always in order."""
        for position, (offset, length) in enumerate(ranges):
            data = bytearray(length)
            count = self._medium.read_into(offset, memoryview(data))
            if count < length:
                raise SourceError(f"{self._medium.name} ends at {offset + count}, {offset + length} is needed")
            yield position, data
