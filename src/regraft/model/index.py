# SPDX-License-Identifier: Apache-2.0
"""The ordered chunks of an image or a seed."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from regraft.model.digest import DigestColumn


@dataclass(frozen=True, slots=True)
class Index:
    """Chunks that tile `[0, size)`.

    `bounds` has one entry more than there are chunks: chunk i is the range bounds[i]..bounds[i + 1], in bytes.
    `chunker` names the rule that made the cuts, with its parameters; chunks of different rules may still be equal.
    """

    bounds: array[int]
    digests: DigestColumn
    chunker: str

    def __post_init__(self) -> None:
        if len(self.bounds) != len(self.digests) + 1 or self.bounds[0] != 0:
            raise ValueError("an index has one bound more than chunks, and starts at 0")

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def size(self) -> int:
        return self.bounds[-1]
