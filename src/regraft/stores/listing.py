# SPDX-License-Identifier: Apache-2.0
"""What is in a store, for people and programs."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from regraft.errors import BusyError, FormatError, LimitError, StateError
from regraft.formats.image_description import Description
from regraft.model import Algorithm
from regraft.stores import names
from regraft.stores.lookup import Lookup
from regraft.stores.store import Store


@dataclass(slots=True)
class Entry:
    """An image, or (`partial`) one whose clone runs or was interrupted. Sizes in bytes."""

    name: str
    size: int = 0
    unique: int = 0  #: in chunks that no other image needs
    shared: int = 0  #: in chunks that others need too
    zeros: int = 0  #: that take no space
    chunks: int = 0
    source: str = ""
    digest: str = ""  #: algorithm:hex, if the image's is known
    metadata: list[str] = field(default_factory=list)  #: keys
    partial: bool = False
    running: bool = False  #: whether it is being cloned now
    pinned: bool = False
    in_use: bool = False  #: mounted, served or read
    damaged: str = ""  #: why the description cannot be read

    @property
    def marks(self) -> list[str]:
        """What is special about it, in words."""
        words = {"pinned": self.pinned, "in use": self.in_use, "damaged": bool(self.damaged)}
        words["being cloned" if self.running else "not complete"] = self.partial
        return [word for word, true in words.items() if true]


@dataclass(frozen=True, slots=True)
class Listing:
    images: list[Entry]
    packs: int
    disk: int  #: bytes of all packs
    free: int  #: bytes that can still be written


def listing(store: Store) -> Listing:
    """Look at every description. Chunks are taken to be there: `verify` says whether they are."""
    with store.locked():
        there = store.directory.names()
        descriptions = []
        entries = []
        for suffix in (names.IMAGE, names.PARTIAL):
            for name in names.with_suffix(there, suffix):
                entry = Entry(name, partial=suffix == names.PARTIAL, pinned=store.pinned(name))
                entries.append(entry)
                if entry.partial:
                    entry.running = _held(store, name + suffix)
                else:
                    entry.in_use = store.in_use(name)
                try:
                    description = store.description(name, suffix)
                except (StateError, FormatError, LimitError) as error:
                    entry.damaged = str(error)
                    continue
                descriptions.append((entry, description))
        packs = names.numbers(there, names.PACK)
        disk = sum(_size(store, names.pack(number)) for number in packs)
        free = store.directory.free_space()
    _count(descriptions)
    return Listing(sorted(entries, key=lambda entry: (entry.name, entry.partial)), len(packs), disk, free)


def _held(store: Store, file: str) -> bool:
    try:
        with store.claimed(file):
            return False
    except BusyError:
        return True


def _size(store: Store, file: str) -> int:
    try:
        medium = store.directory.open(file)
    except FileNotFoundError:
        return 0
    try:
        return medium.size
    finally:
        medium.close()


def _count(found: list[tuple[Entry, Description]]) -> None:
    """Which chunks belong to one image alone. An image and the clone that is to replace it are two."""
    lookups: dict[Algorithm, Lookup] = {}
    owners: dict[Algorithm, array[int]] = {}  # of each chunk the only entry that has it, -1 for several
    numbered: list[array[int]] = []
    for position, (entry, description) in enumerate(found):
        entry.size, entry.chunks, entry.source = description.size, len(description), description.source
        entry.digest = str(description.digest) if description.digest else ""
        entry.metadata = sorted(description.metadata)
        entry.zeros = sum(description.length(row) for row, zero in enumerate(description.zero) if zero)
        numbered.append(array("I"))
        algorithm = description.digests.algorithm
        if algorithm is None:
            continue
        lookup, of = lookups.setdefault(algorithm, Lookup(algorithm)), owners.setdefault(algorithm, array("i"))
        for row, digest in enumerate(description.digests):
            if not description.zero[row]:
                chunk = lookup.add(digest, description.length(row))
                numbered[-1].append(chunk)
                if chunk == len(of):
                    of.append(position)
                elif of[chunk] != position:
                    of[chunk] = -1
    for position, (entry, description) in enumerate(found):
        algorithm = description.digests.algorithm
        if algorithm is not None:
            for chunk in set(numbered[position]):
                length = lookups[algorithm].lengths[chunk]
                if owners[algorithm][chunk] == position:
                    entry.unique += length
                else:
                    entry.shared += length
