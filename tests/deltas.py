# SPDX-License-Identifier: Apache-2.0
"""Pairwise deltas for tests: image pairs, files made of them, and a reader of dm-update diffs that shares no code."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

import brotli
import lz4.block
import zstandard

from regraft.build import android_cow as cow_maker
from regraft.build import dm_update as maker
from regraft.build.ordering import Order, simple_order
from regraft.engine.apply import apply
from regraft.engine.blobs import LocalBlob
from regraft.engine.deltas import open_delta
from regraft.engine.match import match
from regraft.engine.seeds import Seed, base_seed
from regraft.engine.stream import Streamer
from regraft.formats.sidecar import Sidecar
from regraft.testing.memory import MemoryMedium


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
    return base_seed(MemoryMedium(image, name="base"))


def applied(update: Update, *, content: bytes | None = None, sidecar: bool = True, base: bytes | None = None) -> bytes:
    """The new image, by `apply`."""
    blob = MemoryMedium(update.content if content is None else content, name="delta")
    seed = base_of(update.old if base is None else base)
    delta = open_delta(blob, seed.medium.size, update.sidecar if sidecar else None)
    target = MemoryMedium()
    apply(delta.recipe, [seed], [LocalBlob(blob)], target, workers=2, digest=None if sidecar else update.sidecar.target)
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


def cow(old: bytes, new: bytes, options: cow_maker.Options | None = None, order: Order = simple_order) -> Update:
    out = MemoryMedium()
    made = cow_maker.make(MemoryMedium(old), MemoryMedium(new), out, options or cow_maker.Options(level=1), order=order)
    assert made.size == len(out.content)
    return Update(old, new, bytes(out.content), made.sidecar)


@dataclass
class CowOp:
    """An operation as the layout has it; data decoded."""

    kind: int
    block: int
    source: int
    data: bytes = b""


def read_cow(content: bytes) -> tuple[int, list[CowOp], list[int]]:
    """(bytes of a block, operations, sequence) of a version 2 or 3, straight from the layout."""

    def number(at: int, count: int) -> int:
        return int.from_bytes(content[at : at + count], "little")

    def decoded(name: int, stored: bytes, length: int, always: bool) -> bytes:
        if name == 0 or (len(stored) == length and not always):
            assert len(stored) == length
            return stored
        if name == 1:
            return zlib.decompress(stored)
        if name == 2:
            return bytes(brotli.decompress(stored))
        if name == 3:
            return bytes(lz4.block.decompress(stored, uncompressed_size=length))
        return zstandard.ZstdDecompressor().decompress(stored)

    assert content[:8] == b"!!WOcwoC"
    version, block, slots = number(8, 2), number(18, 4), number(22, 4)
    position = number(12, 2) + number(34, 4)
    ops: list[CowOp] = []
    sequence: list[int] = []
    if version == 3:
        sequence = [number(position + 4 * i, 4) for i in range(number(38, 8))]
        position += 4 * len(sequence) + 16 * number(50, 4)
        data = position + 16 * number(62, 8)
        for at in range(position, position + 16 * number(54, 8), 16):
            stored, info = number(at, 4), number(at + 8, 8)
            kind, factor, source = info >> 60, info >> 57 & 7, info & (1 << 48) - 1
            length = block << factor
            content_of = decoded(number(70, 4), content[data : data + stored], length, False) if stored else b""
            assert kind != 2 or source == data
            if kind == 2:
                for part in range(1 << factor):
                    piece = content_of[part * block : (part + 1) * block]
                    ops.append(CowOp(2, number(at + 4, 4) + part, 0, piece))
            else:
                ops.append(CowOp(kind, number(at + 4, 4), source, content_of))
            data += stored
        assert data == len(content)
        return block, ops, sequence
    data = position + (slots or 1) * 20
    count = 0
    while content[position] != 255:
        kind, name, stored, where, source = (
            number(position + a, b) for a, b in ((0, 1), (1, 1), (2, 2), (4, 8), (12, 8))
        )
        count += 1
        if kind == 7:
            sequence += [number(at, 4) for at in range(source, source + stored, 4)]
        elif kind in (1, 2, 3, 6):
            assert kind != 2 or source == data
            plain = decoded(name, content[data : data + stored], block, name in (1, 2)) if stored else b""
            ops.append(CowOp(kind, where, source, plain))
        data += stored
        if slots:
            position += 20 + (source if kind == 5 else 0)
            data += slots * 20 if kind == 5 else 0
        else:
            position += 20 + stored
            data += 20
    footer = [number(position + a, b) for a, b in ((1, 1), (2, 2), (4, 8), (12, 8))]
    assert footer == [0, 64, 20 * count, count]
    assert len(content) == position + 84
    return block, ops, sequence


def merged(content: bytes, base: bytes, size: int) -> bytes:
    """The base after a merge in place, in the order in which Android's daemon merges, one block at a time."""
    block, ops, sequence = read_cow(content)
    by_block = {op.block: op for op in ops}
    assert len(by_block) == len(ops)
    first = [by_block[number] for number in sequence] or [op for op in ops if op.kind in (1, 6)]
    assert {op.block for op in first} == {op.block for op in ops if op.kind in (1, 6)}
    taken = {op.block for op in first}
    image = bytearray(base.ljust(-(-max(size, len(base)) // block) * block, b"\0"))
    written: set[int] = set()
    for op in first + sorted((op for op in ops if op.block not in taken), key=lambda op: op.block):
        at = op.block * block
        if op.kind == 1:
            assert op.source not in written, "a source was overwritten before it was read"
            image[at : at + block] = image[op.source * block : (op.source + 1) * block]
        elif op.kind == 2:
            image[at : at + block] = op.data
        elif op.kind == 3:
            image[at : at + block] = bytes(block)
        else:
            assert not written & {op.source // block, (op.source + block - 1) // block} - {op.block}
            image[at : at + block] = bytes(
                a ^ b for a, b in zip(image[op.source : op.source + block], op.data, strict=True)
            )
        written.add(op.block)
    return bytes(image[:size])
