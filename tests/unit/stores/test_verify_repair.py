# SPDX-License-Identifier: Apache-2.0
"""Finding damage, and mending it: chunks that are flipped, short, long, missing, swapped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import archives
import images
import pytest
from chunk_stores import CHUNK, SMALL, content_of, image, new_store, put
from images import CountingSource, Pair

from regraft.build import cba as cba_packer
from regraft.engine.medium import Medium
from regraft.errors import DigestError, RegraftError, SourceError, StateError
from regraft.formats.pack_index import build_header
from regraft.limits import DEFAULT
from regraft.model import Algorithm, Digest
from regraft.stores.clone import clone
from regraft.stores.gc import collect
from regraft.stores.repair import chunks_in, missing_chunks, repair
from regraft.stores.store import Store, open_store
from regraft.stores.verify import verify
from regraft.testing.memory import MemoryDirectory, MemoryMedium

#: Two full packs and a part of one, and a second image that shares chunks with it.
IMAGE, OTHER = image(1, 2, 3, 4, 5, 6, 7, 0, 8, 9, 10, 11), image(2, 20, 9)

Folder = dict[str, MemoryMedium]


def two_images() -> Store:
    store = new_store()
    put(store, "v1", IMAGE)
    put(store, "v2", OTHER)
    return store


def folder(store: Store) -> Folder:
    assert isinstance(store.directory, MemoryDirectory)
    return store.directory.files


def flip(files: Folder) -> None:
    files["00000001.pack"].content[2 * 4096 + 100] ^= 1


def shorten(files: Folder) -> None:
    files["00000002.pack"].resize(4096 + 10)


def empty(files: Folder) -> None:
    files["00000002.pack"].resize(0)


def remove_pack(files: Folder) -> None:
    del files["00000001.pack"]


def remove_index(files: Folder) -> None:
    del files["00000003.index"]


def remove_both(files: Folder) -> None:
    del files["00000001.index"], files["00000001.pack"]


def swap_packs(files: Folder) -> None:
    files["00000001.pack"], files["00000002.pack"] = files["00000002.pack"], files["00000001.pack"]


def swap_indexes(files: Folder) -> None:
    files["00000001.index"], files["00000002.index"] = files["00000002.index"], files["00000001.index"]


def swap_chunks(files: Folder) -> None:
    content = files["00000001.pack"].content
    content[:CHUNK], content[4096 : 4096 + CHUNK] = content[4096 : 4096 + CHUNK], content[:CHUNK]


def cut_index(files: Folder) -> None:
    files["00000001.index"].resize(100)


def header_of_another_digest(files: Folder) -> None:
    files["00000001.index"].write(0, build_header(1, Algorithm.SHA1))


def bad_sector(files: Folder) -> None:
    files["00000001.pack"].bad.append((4096, 4608))


DAMAGES = [
    flip, shorten, empty, remove_pack, remove_index, remove_both, swap_packs, swap_indexes, swap_chunks, cut_index,
    header_of_another_digest, bad_sector,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_any_damage_is_found_and_mended(damage: Callable[[Folder], None]) -> None:
    store = two_images()
    assert verify(store, full=True).sound
    damage(folder(store))
    found = verify(store, full=True, limits=SMALL)
    assert "v1" in found.damage
    for name, wanted in (("v1", IMAGE), ("v2", OTHER)):
        repair(store, name, wanted.recipe, [wanted.source()], workers=1, limits=SMALL)
    report = verify(store, full=True, limits=SMALL)
    assert report.sound
    assert report.bad == 0
    assert content_of(store, "v1") == IMAGE.content
    assert content_of(store, "v2") == OTHER.content
    collect(store, limits=SMALL)
    assert verify(store, full=True, limits=SMALL).notes == []
    assert content_of(store, "v1") == IMAGE.content


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_no_damage_makes_a_read_lie(damage: Callable[[Folder], None]) -> None:
    """Verified reads (all ways out do so) give the right bytes or an error."""
    from regraft.engine.apply import apply

    store = two_images()
    damage(folder(store))
    with store.image("v1") as opened:
        target = MemoryMedium()
        with pytest.raises((DigestError, SourceError, StateError)):
            apply(opened.recipe(), [], opened.blobs, target)


def test_bytes_behind_the_last_chunk_do_no_harm() -> None:
    store = two_images()
    for name in ("00000003.pack", "00000003.index"):
        medium = folder(store)[name]
        medium.write(medium.size, b"more")
    report = verify(store, full=True)
    assert report.sound
    assert report.notes == ["00000003.index: 4 bytes do not count"]
    assert content_of(store, "v1") == IMAGE.content


def test_a_quick_look_finds_what_is_missing_and_not_what_is_wrong() -> None:
    for damage, found in ((flip, False), (swap_chunks, False), (shorten, True), (remove_pack, True), (cut_index, True)):
        store = two_images()
        damage(folder(store))
        assert verify(store).sound != found, damage


def test_what_is_found_is_recorded_only_if_asked_for() -> None:
    store = two_images()
    flip(folder(store))
    assert verify(store, full=True, record=False).bad == 1
    assert verify(store).sound
    assert verify(store, full=True).bad == 1
    assert list(verify(store).damage) == ["v1"]


def test_the_whole_image_is_compared_with_its_digest(pair: Pair) -> None:
    archive, other = archives.pack(pair.new, cba_packer.Options()), archives.pack(pair.old)
    lying = replace(archive.recipe, digest=other.recipe.digest)
    store = new_store(DEFAULT)
    clone(store, "v", lying, [CountingSource(archive.content)])
    assert verify(store).sound
    assert verify(store, full=True).damage == {"v": "the image differs from its digest"}


def test_images_are_hashed_one_at_a_time_for_each_has_many_descriptors() -> None:
    class Counting(MemoryDirectory):
        media = most = 0

        def open(self, name: str) -> Medium:
            outer = self
            outer.media += 1
            outer.most = max(outer.most, outer.media)

            class Opened(MemoryMedium):
                def close(self) -> None:
                    outer.media -= 1

            medium = Opened(name=name)
            medium.content = self.files[name].content
            return medium

    inner = MemoryDirectory()
    store = open_store(inner, create=True, limits=SMALL)
    for number in range(1, 20):
        wanted = image(*range(1, number + 1))
        recipe = replace(wanted.recipe, digest=Digest.of(wanted.content))
        put(store, f"v{number}", replace(wanted, recipe=recipe))
    counting = Counting(inner.files)
    assert verify(open_store(counting, limits=SMALL), full=True, limits=SMALL).sound
    assert counting.media == 0
    assert counting.most < 30


def test_an_index_damaged_anywhere_costs_chunks_and_nothing_else() -> None:
    """Truncated at each byte, each bit flipped: verify tells, the same clone mends."""
    original = two_images()
    files = {name: bytes(medium.content) for name, medium in folder(original).items()}
    content = files["00000003.index"]
    damaged = [content[:end] for end in range(len(content))]
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        damaged.append(bytes(flipped))
    for each in damaged:
        store = open_store(MemoryDirectory({name: MemoryMedium(data, name=name) for name, data in files.items()}))
        folder(store)["00000003.index"].content = bytearray(each)
        assert list(verify(store, limits=SMALL).damage) == ["v1"]
        assert len(missing_chunks(store, "v1")) == 1
        with store.image("v1") as opened, pytest.raises(RegraftError):
            opened.recipe()


def test_a_description_damaged_anywhere_is_found() -> None:
    store = two_images()
    content = bytes(folder(store)["v2.image"].content)
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        folder(store)["v2.image"].content = flipped
        assert list(verify(store, limits=SMALL).damage) == ["v2"]


def test_a_damaged_intent_is_found_and_the_clone_begins_anew() -> None:
    store = two_images()
    folder(store)["v3.partial"] = MemoryMedium(b"damaged", name="v3.partial")
    assert list(verify(store).damage) == ["v3"]
    with pytest.raises(StateError, match="own digest"):
        collect(store, limits=SMALL)
    assert not put(store, "v3", image(77)).resumed
    assert verify(store).sound
    collect(store, limits=SMALL)


def test_a_repair_fetches_what_is_missing_and_nothing_else() -> None:
    store = two_images()
    flip(folder(store))
    verify(store, full=True)
    source = IMAGE.source()
    outcome = repair(store, "v1", IMAGE.recipe, [source], limits=SMALL)
    assert (outcome.missing, outcome.repaired) == (1, 1)
    assert source.fetched == [(2 * CHUNK, CHUNK)]
    again = IMAGE.source()
    assert repair(store, "v1", IMAGE.recipe, [again], limits=SMALL).missing == 0
    assert again.fetched == []


def test_a_repair_takes_any_image_that_has_the_chunks() -> None:
    store = two_images()
    flip(folder(store))
    shorten(folder(store))
    verify(store, full=True)
    before = len(missing_chunks(store, "v1"))
    neighbour = image(3, 80, 90)
    outcome = repair(store, "v1", neighbour.recipe, [neighbour.source()], limits=SMALL)
    assert (outcome.missing, outcome.repaired) == (before, 1)
    assert len(missing_chunks(store, "v1")) == before - 1 > 0


def test_a_repair_takes_another_store() -> None:
    store, other = two_images(), new_store()
    put(other, "x", image(3, 30))
    put(other, "y", image(31, 1))
    remove_both(folder(store))
    wanted = missing_chunks(store, "v1")
    with chunks_in(other, wanted) as (recipe, blobs):
        outcome = repair(store, "v1", recipe, blobs, limits=SMALL)
    assert (outcome.missing, outcome.repaired) == (5, 2)


def test_a_damaged_source_repairs_nothing_wrongly() -> None:
    store, other = two_images(), two_images()
    flip(folder(store))
    verify(store, full=True)
    flip(folder(other))
    with chunks_in(other, missing_chunks(store, "v1")) as (recipe, blobs), pytest.raises(DigestError):
        repair(store, "v1", recipe, blobs, limits=SMALL)
    assert len(missing_chunks(store, "v1")) == 1
    assert verify(store, full=True).bad == 0


def test_chunks_known_by_our_own_digest_need_the_same_artifact(pair: Pair) -> None:
    """With digests of 8 bytes in the archive, the store knows the chunks by SHA-256."""
    new = archives.pack(pair.new, cba_packer.Options(average=16384, minimum=4096, maximum=65536, hash_length=8))
    old = archives.pack(pair.old, cba_packer.Options(average=16384, minimum=4096, maximum=65536, hash_length=8))
    store = new_store(DEFAULT)
    clone(store, "v", new.recipe, [CountingSource(new.content)])
    folder(store)["00000001.pack"].content[0] ^= 1
    assert verify(store, full=True).bad == 1
    with pytest.raises(StateError, match="knows its chunks by sha256"):
        repair(store, "v", old.recipe, [CountingSource(old.content)])
    source = CountingSource(new.content)
    assert repair(store, "v", new.recipe, [source]).repaired == 1
    assert len(source.fetched) == 1
    assert content_of(store, "v") == pair.new


def test_a_store_of_another_kind_of_digest_has_nothing(pair: Pair) -> None:
    artifact = images.pack(pair.new)
    store, other = new_store(DEFAULT), new_store(DEFAULT)
    clone(store, "v", artifact.recipe, [CountingSource(artifact.content)])
    archive = archives.pack(pair.new, cba_packer.Options())
    clone(other, "v", archive.recipe, [CountingSource(archive.content)])
    folder(store)["00000001.pack"].content[0] ^= 1
    verify(store, full=True)
    with chunks_in(other, missing_chunks(store, "v")) as (recipe, blobs):
        assert repair(store, "v", recipe, blobs).repaired == 0
