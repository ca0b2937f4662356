# SPDX-License-Identifier: Apache-2.0
"""The labels of the rules by which chunks are cut. A seed is cut by the rule that the artifact names.

    zchunk/48/15/8192/131072                      zchunk's automatic chunker
    bita-rollsum/WINDOW/BITS/MINIMUM/MAXIMUM      bita's over RollSum; bita-buzhash/... over BuzHash
    fixed/SIZE                                    every so many bytes
    RULE+align/BYTES+layout/1                     any of them with what moves its cuts, either or both

`+align/BYTES` moves each cut up to the next multiple of so many bytes. `+layout/1` cuts where files begin and end in
the image of an ext2 to ext4, squashfs or erofs file system, and by the rule in each stretch between, as if it were a
stream of its own; where stretches shorter than 4096 bytes lie side by side, the places between them do not count.

A zchunk file has no field for a rule, and a bita archive one for bita's own. Any other is named under the key
`regraft.chunker`: in the metadata of a bita archive, with the label as its value; in a zchunk file by the optional
element 0x7267, which holds `regraft.chunker=` and the label. Stock tools pass over both; they read the artifact,
and search seeds by their own rules. A label that is not understood is taken for none. `regraft convert` keeps cuts
and label, and the other metadata between bita archives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The key under which an artifact names its rule, if its format has no field for it or another rule in it.
KEY = "regraft.chunker"

_RULE = re.compile(r"((?:zchunk|bita-rollsum|bita-buzhash|casync|fixed)(?:/[0-9]{1,19}){1,5})")
_PLACED = re.compile(r"(?:\+align/([1-9][0-9]{0,9}))?(\+layout/1)?")


@dataclass(frozen=True, slots=True)
class Placement:
    """What moves the cuts of a rule. align: bytes, 1 for not at all. files: whether files begin with a chunk."""

    align: int = 1
    files: bool = False

    def label(self, rule: str) -> str:
        """The label of `rule` with this."""
        return rule + (f"+align/{self.align}" if self.align > 1 else "") + ("+layout/1" if self.files else "")


#: The rule's own cuts.
UNMOVED = Placement()


def split(label: str) -> tuple[str, Placement] | None:
    """The rule in front, and what moves its cuts; None if this is no label that anything of ours has written."""
    rule = _RULE.match(label)
    placed = rule and _PLACED.fullmatch(label, rule.end())
    if not rule or not placed:
        return None
    return rule[1], Placement(int(placed[1] or 1), bool(placed[2]))


def stated(value: bytes | None, otherwise: str) -> str:
    """The label that an artifact states under KEY. What is no label is taken for none: it then costs reuse."""
    try:
        label = (value or b"").decode("ascii")
    except UnicodeDecodeError:
        return otherwise
    return label if split(label) and len(label) < 256 else otherwise
