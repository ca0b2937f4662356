# SPDX-License-Identifier: Apache-2.0
"""Pairwise deltas for tests: image pairs, files made of them, and a reader of dm-update diffs that shares no code."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

import lz4.block
import zstandard

from regraft.build import dm_update as maker
from regraft.engine.apply import apply
from regraft.engine.blobs import LocalBlob
from regraft.engine.deltas import open_delta
from regraft.engine.match import match
from regraft.engine.seeds import Seed
from regraft.engine.stream import Streamer
from regraft.formats.sidecar import Sidecar
from regraft.model import Index
from regraft.model.digest import DigestColumn
from regraft.testing.memory import MemoryMedium
from array import array


@dataclass(frozen=True)
class Update:
    """A delta file and the images that belong to it."""

    old: bytes
    new: bytes
    content: bytes
    sidecar: Sidecar


def blocks_pair(chance: random.Random, blocks: int, block: int, tail: int = 0) -> tuple[bytes, bytes]:
    """Two images of blocks: equal, changed, moved, swapped, zero, repeated ones; the new one has `tail` bytes more."""
    kinds = [chance.randbytes(block) for _ in range(6)] + [bytes(block)] * 2
    old = [chance.choice(kinds) if chance.random() < 0.5 else chance.randbytes(block) for _ in range(blocks)]
    new = list(old)
    for _ in range(blocks // 3):
        one, other = chance.randrange(blocks), chance.randrange(blocks)
        match chance.randrange(5):
            case 0:
                new[one] = chance.choice(kinds)
            case 1:
                new[one], new[other] = new[other], new[one]
            case 2:
                new[one] = old[other]
            case 3:
                new[one] = new[one][:-1] + bytes([new[one][-1] ^ 0x55])
            case 4:
                new[one] = chance.randbytes(block)
    return b"".join(old), b"".join(new) + chance.randbytes(tail)


def dm_update(old: bytes, new: bytes, options: maker.Options | None = None) -> Update:
    out = MemoryMedium()
    made = maker.make(MemoryMedium(old), MemoryMedium(new), out, options or maker.Options(level=1))
    assert made.size == len(out.content)
    return Update(old, new, bytes(out.content), made.sidecar)


def base_of(image: bytes) -> Seed:
    return Seed(MemoryMedium(image, name="base"), Index(array("Q", [0]), DigestColumn(None), ""))


def applied(update: Update, *, content: bytes | None = None, sidecar: bool = True, base: bytes | None = None) -> bytes:
    """The new image, by `apply`."""
    blob = MemoryMedium(update.content if content is None else content, name="delta")
    seed = base_of(update.old if base is None else base)
    delta = open_delta(blob, seed.medium.size, update.sidecar if sidecar else None)
    target = MemoryMedium()
    apply(
        delta.recipe, [seed], [LocalBlob(blob)], target, workers=2, digest=None if sidecar else update.sidecar.target
    )
    return bytes(target.content)


def streamed(update: Update) -> bytes:
    """The new image, by `Streamer`."""
    blob = MemoryMedium(update.content, name="delta")
    seed = base_of(update.old)
    delta = open_delta(blob, seed.medium.size, update.sidecar)
    plan = match(delta.recipe, [("base", seed.index)])
    return b"".join(bytes(piece) for piece in Streamer(plan, [seed.medium], [LocalBlob(blob)], workers=2).pieces())


def read_dm_update(content: bytes, base: bytes, size: int) -> bytes:
    """The first `size` bytes of the new image, straight from the layout of the format."""

    def number(at: int, count: int) -> int:
        return int.from_bytes(content[at : at + count], "little")

    assert content[:8] == b"update\0\0"
    assert content[8] == 0
    block = 1 << content[9]
    capacity = number(12, 4) * block
    name = content[16:32].split(b"\0")[0].decode()

    def decoded(stored: bytes, room: int) -> bytes:
        if name == "none":
            return stored
        if name == "deflate":
            return zlib.decompress(stored, wbits=-11)
        if name == "lz4":
            return bytes(lz4.block.decompress(stored, uncompressed_size=room))
        window = zstandard.get_frame_parameters(stored)
        assert window.window_size <= 256 << 10 or window.content_size == room
        assert not window.has_checksum
        return zstandard.ZstdDecompressor().decompress(stored)

    at, stored, count = number(32, 8), number(40, 8), number(48, 8)
    directory = decoded(content[at : at + stored], 16 * count)
    assert len(directory) == 16 * count
    entries = []
    for start in range(0, len(directory), 16):
        entry = directory[start : start + 16]
        low, high, chunk_high, chunk_low, place = (
            int.from_bytes(entry[a:b], "little") for a, b in ((0, 4), (4, 6), (6, 8), (8, 12), (12, 16))
        )
        entries.append((low + (high << 32), chunk_low + (chunk_high << 32), place))
    assert [entry[0] for entry in entries] == sorted({entry[0] for entry in entries})
    image = bytearray(base.ljust(-(-size // block) * block, b"\0"))
    chunks = sorted({entry[1] for entry in entries})
    assert [entry[1] for entry in entries] == sorted(entry[1] for entry in entries)
    for index, (where, chunk, place) in enumerate(entries[:-1]):
        end = chunks[chunks.index(chunk) + 1]
        data = decoded(content[chunk:end], capacity)
        assert len(data) <= capacity
        part = data[place * block : (place + 1) * block]
        assert len(part) == block, index
        image[where * block : (where + 1) * block] = part
    return bytes(image[:size])
