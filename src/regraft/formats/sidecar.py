# SPDX-License-Identifier: Apache-2.0
"""The sidecar of a pairwise delta: what formats like dm-update and Android's COW do not tell.

    magic 8 · size of the base u64 · its SHA-256 32 · size of the target u64 · its SHA-256 32
    · SHA-256 of the delta's description 32 · rows u32 · units u32
    · SHA-256 of each row's bytes · SHA-256 of each unit's stored bytes · SHA-256 of all before 32

Little-endian. It lies beside the delta, as `NAME.sidecar`. Rows are those of the recipe that the delta gives with these
sizes, units its runs of stored bytes. What a description is, each format says: all that its reader goes by.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, replace

from regraft.errors import DigestError, FormatError, LimitError
from regraft.formats.cursor import Cursor
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, Base, Digest, DigestColumn, Recipe
from regraft.model.buffers import Buffer

MAGIC = b"RGSIDE\0\x01"
SUFFIX = ".sidecar"

_LAYOUT = struct.Struct("<8sQ32sQ32s32sII")
_CURE = "give the sidecar that was made with this delta"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Sizes in bytes; digests are SHA-256."""

    base_size: int
    base: Digest
    target_size: int
    target: Digest
    identity: bytes  #: of the delta's description: `Recipe.identity`
    rows: DigestColumn  #: of the decoded bytes of each row
    units: DigestColumn  #: of the stored bytes of each unit


def build(sidecar: Sidecar) -> bytes:
    head = _LAYOUT.pack(
        MAGIC,
        sidecar.base_size,
        sidecar.base.value,
        sidecar.target_size,
        sidecar.target.value,
        sidecar.identity,
        len(sidecar.rows),
        len(sidecar.units),
    )
    body = head + sidecar.rows.data + sidecar.units.data
    return body + hashlib.sha256(body).digest()


def parse(data: Buffer, *, limits: Limits = DEFAULT) -> Sidecar:
    """Raises FormatError, LimitError, or DigestError when its own checksum is wrong."""
    cursor = Cursor(data, "sidecar")
    magic, base_size, base, target_size, target, identity, rows, units = cursor.unpack(_LAYOUT.format)
    if magic != MAGIC:
        raise FormatError(f"not a sidecar: it starts with {magic.hex(' ')}", offset=0, cure=_CURE)
    if max(rows, units) > limits.chunks:
        raise LimitError(f"sidecar: {rows} rows and {units} units, more than {limits.chunks} (chunks)")
    if max(base_size, target_size) > limits.image_size:
        raise LimitError(f"sidecar: images of {base_size} and {target_size} bytes, more than {limits.image_size}")
    size = Algorithm.SHA256.size
    row_digests, unit_digests = cursor.take(rows * size), cursor.take(units * size)
    end = cursor.position
    checksum = cursor.take(size)
    cursor.finish()
    if not hmac.compare_digest(hashlib.sha256(memoryview(data).cast("B")[:end]).digest(), checksum):
        raise DigestError("sidecar: its bytes differ from its own checksum", cure=_CURE)
    return Sidecar(
        base_size,
        Digest(Algorithm.SHA256, base),
        target_size,
        Digest(Algorithm.SHA256, target),
        identity,
        DigestColumn(Algorithm.SHA256, row_digests),
        DigestColumn(Algorithm.SHA256, unit_digests),
    )


def bind(recipe: Recipe, sidecar: Sidecar) -> Recipe:
    """`recipe`, made with the sidecar's sizes, with its digests. The tables are taken over, not copied.

    Raises DigestError if the sidecar belongs to another delta.
    """
    if recipe.identity != sidecar.identity:
        raise DigestError("the sidecar belongs to another delta", cure=_CURE)
    sizes = recipe.size, len(recipe.table), len(recipe.units)
    if sizes != (sidecar.target_size, len(sidecar.rows), len(sidecar.units)):
        raise FormatError(f"sidecar: it does not describe an image of {sizes[0]} bytes in {sizes[1]} rows", cure=_CURE)
    recipe.table.digests = sidecar.rows
    recipe.units.digests = sidecar.units
    return replace(recipe, digest=sidecar.target, base=Base(sidecar.base_size, sidecar.base))
