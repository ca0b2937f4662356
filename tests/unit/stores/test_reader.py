# SPDX-License-Identifier: Apache-2.0
"""Random reads of an image in a store: verified when first read, then straight from the packs."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path

import pytest
from chunk_stores import CHUNK, image, new_store, put

from regraft.cli._store_export import StoreExport
from regraft.engine.files import FileMedium
from regraft.errors import BusyError, DigestError, MissingError, SourceError, StateError, UsageError
from regraft.limits import Limits
from regraft.stores import names
from regraft.stores.places import open_stored, stored
from regraft.stores.reader import Reader
from regraft.stores.store import Store, open_store
from regraft.testing.memory import MemoryMedium

WANTED = image(1, 2, 0, 0, 3, 1, 4, 0, 5, tail=123)


def read(reader: Reader | StoreExport, offset: int, length: int) -> bytes:
    data = bytearray(length)
    reader.read_into(offset, memoryview(data))
    return bytes(data)


def test_any_range_is_what_the_image_has() -> None:
    store, chance = new_store(), random.Random(1)
    put(store, "v", WANTED)
    with store.image("v") as opened:
        reader = Reader(opened)
        for _ in range(400):
            offset = chance.randrange(reader.size + 1)
            length = chance.randrange(reader.size - offset + 1)
            assert read(reader, offset, length) == WANTED.content[offset : offset + length]


def test_each_chunk_is_hashed_once() -> None:
    store = new_store()
    put(store, "v", WANTED)
    with store.image("v") as opened:
        reader = Reader(opened)
        read(reader, 10, 5)
        assert reader.verified == CHUNK
        read(reader, 5 * CHUNK, CHUNK)  # the same chunk at another place
        assert reader.verified == CHUNK
        for _ in range(2):
            read(reader, 0, reader.size)
            assert reader.verified == 5 * CHUNK + 123


@pytest.mark.parametrize("length", [CHUNK, 10])
def test_a_damaged_chunk_is_an_error_each_time_and_the_others_are_read(length: int) -> None:
    store = new_store()
    put(store, "v", WANTED)
    with store.image("v") as opened:
        place = opened.at(1)
        assert place is not None
        pack = opened.packs[place[0]]
        assert isinstance(pack, MemoryMedium)
        pack.content[place[1] + 333] ^= 4
        reader = Reader(opened)
        for _ in range(2):
            with pytest.raises(DigestError, match="chunk of 700 bytes at 700"):
                read(reader, CHUNK, length)
            assert reader.lies(CHUNK, 10) is None
        assert read(reader, 0, CHUNK) == WANTED.content[:CHUNK]
        pack.content[place[1] + 333] ^= 4
        assert read(reader, CHUNK, length) == WANTED.content[CHUNK : CHUNK + length]


def test_a_pack_that_is_cut_while_it_is_read_gives_no_zeros() -> None:
    store = new_store()
    put(store, "v", WANTED)
    with store.image("v") as opened:
        reader = Reader(opened)
        read(reader, 0, reader.size)
        for pack in opened.packs:
            assert isinstance(pack, MemoryMedium)
            del pack.content[100:]
        with pytest.raises(SourceError, match="cut while it was served"):
            read(reader, 0, reader.size)


def test_an_image_that_lacks_chunks_is_not_served() -> None:
    store = new_store()
    put(store, "v", WANTED)
    store.directory.remove(names.index(1))
    with store.image("v") as opened, pytest.raises(StateError, match="not in the store"):
        Reader(opened)


@pytest.fixture
def on_disk(tmp_path: Path) -> Store:
    """A store of chunks of one block, so that neighbours lie together."""
    from images import small_recipe

    from regraft.engine.blobs import LocalBlob
    from regraft.stores.clone import clone

    store = open_store(str(tmp_path / "s"), create=True, limits=Limits(pack_size=8 * 4096))
    content = random.Random(3).randbytes(6 * 4096) + bytes(4096) + random.Random(4).randbytes(6 * 4096 + 99)
    (tmp_path / "image").write_bytes(content)
    clone(store, "v", small_recipe(content, 4096), [LocalBlob(MemoryMedium(content))], limits=store.limits)
    return store


def test_what_was_verified_lies_in_packs_with_its_neighbours(on_disk: Store, tmp_path: Path) -> None:
    content = (tmp_path / "image").read_bytes()
    with on_disk.image("v") as opened:
        export = StoreExport(opened)
        assert export.direct(0, 4096) is None
        read(export, 0, 3 * 4096)
        piece = export.direct(100, 6 * 4096)
        assert piece is not None
        assert piece.length == 3 * 4096 - 100  # the fourth is not verified
        read(export, 0, export.size)
        assert export.direct(6 * 4096, 10) is None  # zeros
        offset = found = 0
        while offset < export.size:
            piece = export.direct(offset, export.size - offset)
            if piece is None:
                offset += 4096
                continue
            with open(f"/proc/self/fd/{piece.descriptor}", "rb") as file:
                file.seek(piece.offset)
                assert file.read(piece.length) == content[offset : offset + piece.length]
            found, offset = found + 1, offset + piece.length
        assert found == 3  # two runs of data, one of which goes on in the next pack
        assert [(each.length, each.hole) for each in export.extents(4000, 4 * 4096)] == [(4 * 4096, False)]
        assert [(each.length, each.hole) for each in export.extents(5 * 4096, 3 * 4096)] == [
            (4096, False), (4096, True), (4096, False)
        ]  # fmt: skip
        assert all(isinstance(pack, FileMedium) for pack in opened.packs)


def test_a_place_in_a_store_is_told_from_a_file(on_disk: Store, tmp_path: Path) -> None:
    folder = str(tmp_path / "s")
    assert stored(f"{folder}/v") == (folder, "v")
    assert stored(f"{folder}/other") == (folder, "other")
    for other in (f"{folder}/00000001.pack", folder, f"{tmp_path}/image", f"{tmp_path}/nothing", f"http:/{folder}/v"):
        assert stored(other) is None
    with pytest.raises(MissingError, match="no image other"), open_stored((folder, "other")):
        pass
    with pytest.raises(UsageError), open_stored((folder, "-x")):
        pass


def test_an_open_image_cannot_be_removed(on_disk: Store, tmp_path: Path) -> None:
    with ExitStack() as held:
        held.enter_context(open_stored((str(tmp_path / "s"), "v")))
        with pytest.raises(BusyError, match="in use"):
            on_disk.remove("v")
    on_disk.remove("v")


def test_a_clone_that_is_not_finished_is_not_opened(on_disk: Store, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    (folder / "v.image").rename(folder / "v.partial")
    with pytest.raises(StateError, match="not complete yet"), open_stored((str(folder), "v")):
        pass
