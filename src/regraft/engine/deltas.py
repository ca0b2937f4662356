# SPDX-License-Identifier: Apache-2.0
"""Opening pairwise deltas: from a medium, known by its first bytes, to the recipe of the new image."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from regraft.engine.files import open_source
from regraft.engine.medium import Medium, read_all
from regraft.errors import DigestError, FormatError, LimitError, MissingError
from regraft.formats import android_cow, cow_v2, cow_v3, dm_update
from regraft.formats import sidecar as sidecars
from regraft.formats.sidecar import Sidecar
from regraft.limits import DEFAULT, Limits
from regraft.model import Recipe

Parsed: TypeAlias = "dm_update.Diff | android_cow.Cow"

#: Bytes that tell what a file is.
HEAD = 8


def is_delta(head: bytes) -> bool:
    """Whether these are the first bytes of a delta that `parse` knows."""
    return _parser(head) is not None


def _parser(head: bytes) -> Callable[[Medium, Limits], Parsed] | None:
    if head.startswith(dm_update.MAGIC):
        return read_dm_update
    if head.startswith(android_cow.MAGIC):
        return read_cow
    return None


def parse(medium: Medium, *, limits: Limits = DEFAULT) -> Parsed:
    """The checked description of a delta, read from the file itself. Raises FormatError, LimitError, SourceError."""
    parser = _parser(read(medium, 0, min(HEAD, medium.size)))
    if parser is None:
        raise FormatError(f"{medium.name} is no delta that regraft knows", offset=0)
    return parser(medium, limits)


def read_dm_update(medium: Medium, limits: Limits = DEFAULT) -> dm_update.Diff:
    """A diff of dm-update."""
    superblock = dm_update.parse_superblock(read(medium, 0, min(dm_update.SUPERBLOCK_SIZE, medium.size)), limits=limits)
    end = superblock.directory_offset + superblock.directory_stored
    if end > medium.size:
        raise FormatError(f"{medium.name}: a directory up to byte {end}, the file has {medium.size}", offset=32)
    stored = read(medium, superblock.directory_offset, superblock.directory_stored)
    return dm_update.parse_directory(superblock, stored, file_size=medium.size, limits=limits)


def read_cow(medium: Medium, limits: Limits = DEFAULT, *, label: int | None = None) -> android_cow.Cow:
    """A COW file of Android. label: the last one that counts, for a file that was never finished."""
    head = read(medium, 0, min(android_cow.LONGEST_HEADER, medium.size))
    header = android_cow.parse_header(head, limits=limits)
    reader = cow_v3.parse if header.version == 3 else cow_v2.parse
    cow = reader(
        header, lambda offset, count: _up_to(medium, offset, count), size=medium.size, label=label, limits=limits
    )
    android_cow.check_ops(cow)
    return cow


def _up_to(medium: Medium, offset: int, count: int) -> bytes:
    data = bytearray(max(min(count, medium.size - offset), 0))
    return bytes(data[: medium.read_into(offset, memoryview(data))])


def read(medium: Medium, offset: int, count: int) -> bytes:
    """Exactly `count` bytes. Raises FormatError if the medium ends before."""
    data = bytearray(count)
    got = medium.read_into(offset, memoryview(data))
    if got < count:
        raise FormatError(f"{medium.name} ends at {offset + got}, {offset + count} is needed", offset=offset + got)
    return bytes(data)


def read_sidecar(medium: Medium, *, limits: Limits = DEFAULT) -> Sidecar:
    """Raises FormatError, LimitError, DigestError, SourceError."""
    try:
        return sidecars.parse(read_all(medium, limits.header_size), limits=limits)
    except ValueError as error:
        raise LimitError(f"{error} (limits.header_size)") from None


@dataclass(frozen=True, slots=True)
class Delta:
    """An open delta: what it says, and the recipe for its target, whose base is seed 0 and whose blob is the delta."""

    parsed: Parsed
    recipe: Recipe
    sidecar: Sidecar | None


def open_delta(medium: Medium, base_size: int, sidecar: Sidecar | None, *, limits: Limits = DEFAULT) -> Delta:
    """The delta in `medium` over a base of at least `base_size` bytes.

    With a sidecar the recipe has all digests, and the sizes of both images are what it says. Without one, the new image
    is taken to be as long as the base, and nothing tells whether base or result are right.

    Raises FormatError, LimitError, SourceError; DigestError if the base is too short or the sidecar of another delta.
    """
    parsed = parse(medium, limits=limits)
    target_size = None
    if sidecar is not None:
        if sidecar.base_size > base_size:
            raise DigestError(
                f"the base has {base_size} bytes, {sidecar.base_size} belong to this delta",
                cure="give the image from which the delta was made",
            )
        base_size, target_size = sidecar.base_size, sidecar.target_size
    recipe = _recipe(parsed, medium, base_size, target_size)
    return Delta(parsed, recipe if sidecar is None else sidecars.bind(recipe, sidecar), sidecar)


def _recipe(parsed: Parsed, medium: Medium, base_size: int, target_size: int | None) -> Recipe:
    name, size = medium.name, medium.size
    if isinstance(parsed, android_cow.Cow):
        return android_cow.recipe(parsed, name, base_size=base_size, target_size=target_size, size=size)
    return dm_update.recipe(parsed, name, base_size=base_size, target_size=target_size, size=size)


def find_sidecar(
    delta: str, given: str | None = None, *, needed: bool = True, limits: Limits = DEFAULT
) -> Sidecar | None:
    """The sidecar at `given`, else the one beside the file `delta`; None if there is none.

    Raises MissingError if there is none and it is `needed`: without it nobody can tell whether base and result are
    right. Also FormatError, LimitError, DigestError, SourceError.
    """
    path = given or delta + sidecars.SUFFIX
    if not os.path.exists(path):
        if needed or given:
            raise MissingError(
                f"{path}: there is no sidecar, and {delta} tells neither its base nor its target",
                cure="put the sidecar beside the delta, or give the digest of the new image",
            )
        return None
    medium = open_source(path)
    try:
        return read_sidecar(medium, limits=limits)
    finally:
        medium.close()
