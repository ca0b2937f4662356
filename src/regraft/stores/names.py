# SPDX-License-Identifier: Apache-2.0
"""The names of a store's files. An image's name is its user's; nothing of a peer becomes part of a path.

store               says that this folder is a store, and of which version
lock                held while roots or packs come and go, never for long; lock on `store` itself: one gc at a time
NAME.image          the description of an image
NAME.partial        what a clone that runs, or was interrupted, is going to need
NAME.pin            keeps `rm` and `clone --replace` from the image
NNNNNNNN.pack       chunks
NNNNNNNN.index      which chunks those are
*.new               not finished, of no meaning
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from regraft.errors import UsageError

MARKER, LOCK = "store", "lock"
IMAGE, PARTIAL, PIN, PACK, INDEX, NEW = ".image", ".partial", ".pin", ".pack", ".index", ".new"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_NUMBER = re.compile(r"[0-9]{8}")
LAST_NUMBER = 99_999_999


def check_name(name: str) -> str:
    """The name of an image, if it is one. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of an image in a store",
            cure="use letters, digits, and . _ - after the first of them, 201 at most",
        )
    return name


def split(place: str) -> tuple[str, str]:
    """STORE/NAME -> (path of the store, name of the image). Raises UsageError."""
    folder, name = os.path.split(place)
    if not name:
        raise UsageError(f"{place!r} is not STORE/NAME", cure="name the image behind the store's folder")
    return folder or ".", check_name(name)


def with_suffix(names: Iterable[str], suffix: str) -> list[str]:
    """The names of images that have a file with this suffix, in order."""
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return sorted(stem for stem in stems if _NAME.fullmatch(stem))


def numbers(names: Iterable[str], suffix: str) -> list[int]:
    """The numbers of packs that have a file with this suffix, in order."""
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return sorted(int(stem) for stem in stems if _NUMBER.fullmatch(stem))


def pack(number: int) -> str:
    return f"{number:08}{PACK}"


def index(number: int) -> str:
    return f"{number:08}{INDEX}"
