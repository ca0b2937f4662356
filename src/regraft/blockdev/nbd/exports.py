# SPDX-License-Identifier: Apache-2.0
"""The exports of a server by name, and what a client and the server agreed on about one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from regraft.blockdev.export import Export
from regraft.blockdev.nbd.protocol import ALLOCATION, NAME_SIZE, ORIGIN, Transmission
from regraft.errors import UsageError


class Exports:
    """Exports by name, in the order given; the empty name stands for the first.

    Raises UsageError for names that clash or cannot be sent.
    """

    def __init__(self, exports: Iterable[Export]) -> None:
        self._exports: dict[str, Export] = {}
        for export in exports:
            name = export.name
            try:
                size = len(name.encode())
            except UnicodeEncodeError:
                raise UsageError(f"{name!r} cannot be an export's name: not UTF-8", cure="give --name") from None
            if size > NAME_SIZE or "\0" in name:
                raise UsageError(
                    f"an export's name of {size} bytes: at most {NAME_SIZE}, without NUL", cure="give --name"
                )
            if name in self._exports:
                raise UsageError(f"two exports are named {name!r}", cure="give each its own --name")
            self._exports[name] = export
        if not self._exports:
            raise UsageError("nothing to serve")

    def __iter__(self) -> Iterator[Export]:
        return iter(self._exports.values())

    def find(self, name: str) -> Export | None:
        if not name and name not in self._exports:
            return next(iter(self._exports.values()))
        return self._exports.get(name)


#: The metadata contexts by name, with the ids by which replies refer to them.
CONTEXTS = {ALLOCATION: 1, ORIGIN: 2}


def contexts_of(export: Export) -> tuple[str, ...]:
    """The metadata contexts that an export offers."""
    return (ALLOCATION, ORIGIN) if export.has_origins else (ALLOCATION,)


@dataclass(frozen=True, slots=True)
class Session:
    """What transmission depends on, and all of it: a connection can go on from here in another process."""

    export: Export
    structured: bool = False
    contexts: tuple[str, ...] = ()  #: selected metadata contexts

    @property
    def flags(self) -> int:
        """The transmission flags. Read-only, so a flush covers all that was written, on any connection."""
        flags = Transmission.HAS_FLAGS | Transmission.READ_ONLY | Transmission.SEND_FLUSH | Transmission.SEND_FUA
        flags |= Transmission.CAN_MULTI_CONN
        return flags | Transmission.SEND_DF if self.structured else flags
