# SPDX-License-Identifier: Apache-2.0
"""Where the files of a file system begin and end in its image, so that chunks can be cut there.

ext2 to ext4, squashfs 4 and erofs. A hint: wrong or missing places cost reuse, never correctness. Pure but for `read`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from heapq import merge

from regraft.errors import FormatError, LimitError
from regraft.formats.filesystems import erofs, ext4, squashfs
from regraft.formats.filesystems.image import Image
from regraft.limits import DEFAULT, Limits

_HEAD = 4096
_RUN = 1 << 14
_KNOWN = {"ext4": ext4, "squashfs": squashfs, "erofs": erofs}


@dataclass(frozen=True, slots=True)
class Layout:
    """What was found. cuts: offsets in bytes, rising, within the image. note: why there are none, or not all."""

    kind: str  #: "ext4", "squashfs", "erofs", or "" for none of them
    cuts: array[int]
    note: str = ""


def layout(read: Callable[[int, memoryview], None], size: int, *, limits: Limits = DEFAULT) -> Layout:
    """The layout of the file system in an image of `size` bytes, given by `read(offset, view)`, which fills the view.

    Whatever a file system says, no error comes of it: what was found until then counts, and the note tells. What `read`
    raises passes through. At most `limits.layout_cuts` places are looked at.
    """
    none: array[int] = array("Q")
    if size < _HEAD:
        return Layout("", none, "too small for a file system")
    image = Image(read, size, limits)
    head = image.take(0, _HEAD)
    kind = next((name for name, module in _KNOWN.items() if module.recognised(head)), "")
    if not kind:
        return Layout("", none, "not an ext4, squashfs or erofs file system")
    found, note = array("Q"), ""
    try:
        for number, cut in enumerate(_KNOWN[kind].cuts(image)):
            if number >= limits.layout_cuts:
                note = f"{kind}: only the first {number} places were looked at (limits.layout_cuts)"
                break
            if 0 < cut < size and (not found or cut != found[-1]):
                found.append(cut)
    except (FormatError, LimitError) as error:
        note = str(error)
    return Layout(kind, _rising(found), note)


def _rising(found: array[int]) -> array[int]:
    """The different ones, sorted, a few at a time: numbers in a list take five times the memory."""
    parts = [array("Q", sorted(found[start : start + _RUN])) for start in range(0, len(found), _RUN)]
    rising = array("Q")
    for cut in merge(*parts):
        if not rising or cut != rising[-1]:
            rising.append(cut)
    return rising
