# SPDX-License-Identifier: Apache-2.0
"""Cloning: what is fetched, what is written, what is proved."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

import archives
import images
import pytest
from chunk_stores import CHUNK, SMALL, Image, content_of, files, image, new_store, put
from images import CountingSource, Pair, seed_of

from regraft.build import cba as cba_packer
from regraft.build.zchunk import Options
from regraft.engine.ranges import Range
from regraft.engine.seeds import Seed
from regraft.errors import (
    BusyError,
    DigestError,
    MediumError,
    SourceError,
    SpaceError,
    StateError,
    TransportError,
    VerificationError,
)
from regraft.limits import DEFAULT
from regraft.model import Algorithm, Digest, DigestColumn, Recipe
from regraft.model.buffers import Buffer
from regraft.stores.clone import clone, plan
from regraft.stores.store import Store, open_store
from regraft.stores.verify import verify
from regraft.testing.memory import MemoryDirectory, MemoryMedium

OLD, NEW = image(1, 2, 3, 0, 4), image(1, 5, 0, 3, 6, 5, tail=9)


def test_only_missing_chunks_are_fetched_and_each_once() -> None:
    store = new_store()
    assert put(store, "old", OLD).written == 4 * CHUNK
    source = NEW.source()
    outcome = clone(store, "new", NEW.recipe, [source], limits=SMALL)
    assert sorted(source.fetched) == [(CHUNK, CHUNK), (4 * CHUNK, CHUNK), (6 * CHUNK, 9)]
    assert (outcome.written, outcome.present, outcome.fetched) == (2 * CHUNK + 9, 2 * CHUNK, 2 * CHUNK + 9)
    assert content_of(store, "new") == NEW.content
    assert content_of(store, "old") == OLD.content


def test_a_clone_begins_packs_of_its_own_and_they_have_a_size() -> None:
    store = new_store()
    put(store, "old", image(*range(1, 12)))
    put(store, "new", image(20))
    sizes = {name: len(content) for name, content in files(store).items() if name.endswith(".pack")}
    full = 4 * 4096 + CHUNK
    assert sizes == {"00000001.pack": full, "00000002.pack": full, "00000003.pack": CHUNK, "00000004.pack": CHUNK}


def test_a_chunk_larger_than_a_pack_has_one_of_its_own() -> None:
    store = new_store(replace(SMALL, pack_size=4096))
    large = Image(bytes(range(256)) * 40, images.small_recipe(bytes(range(256)) * 40, 9000))
    put(store, "large", large)
    assert content_of(store, "large") == large.content


def test_the_same_input_makes_the_same_store() -> None:
    first, second = new_store(), new_store()
    for store in (first, second):
        put(store, "old", OLD)
        put(store, "new", NEW)
    assert files(first) == files(second)


def test_a_second_clone_writes_nothing() -> None:
    store = new_store()
    put(store, "new", NEW)
    before = files(store)
    source = NEW.source()
    outcome = clone(store, "new", NEW.recipe, [source], limits=SMALL)
    assert outcome.unchanged
    assert source.fetched == []
    assert files(store) == before


def test_a_second_clone_reads_no_chunk() -> None:
    """The index's promise counts: ihop read the whole shared part of the store each time."""

    class Unreadable(MemoryMedium):
        def read_into(self, offset: int, view: memoryview) -> int:
            raise AssertionError("a chunk was read")

    store = new_store()
    put(store, "new", NEW)
    assert isinstance(store.directory, MemoryDirectory)
    for name, medium in store.directory.files.items():
        if name.endswith(".pack"):
            store.directory.files[name] = Unreadable(medium.content, name=name)
    assert put(store, "new", NEW).unchanged
    assert put(store, "again", NEW).written == 0


def test_another_image_needs_another_name_or_a_word() -> None:
    store = new_store()
    put(store, "v", OLD)
    with pytest.raises(StateError, match="another image already"):
        put(store, "v", NEW)
    assert content_of(store, "v") == OLD.content
    put(store, "v", NEW, replace=True)
    assert content_of(store, "v") == NEW.content


def test_seeds_come_before_the_network() -> None:
    store = new_store()
    put(store, "old", OLD)
    other = image(6, 7, 5, 8)
    seed = images.small_seed(other.content, CHUNK)
    source = NEW.source()
    outcome = clone(store, "new", NEW.recipe, [source], seeds=[seed], limits=SMALL)
    assert source.fetched == [(6 * CHUNK, 9)]
    assert outcome.written == 2 * CHUNK + 9
    assert content_of(store, "new") == NEW.content


def test_an_image_of_another_store_is_a_seed() -> None:
    other, store = new_store(), new_store()
    put(other, "old", OLD)
    with other.image("old") as opened:
        source = NEW.source()
        clone(store, "new", NEW.recipe, [source], seeds=[opened.seed()], limits=SMALL)
    assert source.total == 2 * CHUNK + 9
    assert content_of(store, "new") == NEW.content


def test_a_seed_that_lies_costs_a_fetch() -> None:
    store, seed = new_store(), images.small_seed(OLD.content, CHUNK)
    lying = Seed(MemoryMedium(bytes(len(OLD.content))), seed.index)
    outcome = clone(store, "new", NEW.recipe, [NEW.source()], seeds=[lying], limits=SMALL)
    assert outcome.replaced == 2
    assert content_of(store, "new") == NEW.content


def every_kind(pair: Pair) -> list[tuple[str, Recipe, bytes]]:
    found = []
    for options in (
        Options(),
        Options(chunk_digest=Algorithm.SHA512_128),
        Options(uncompressed_source=False),
        Options(compression="none"),
        Options(dictionary=bytes(range(256)) * 16, uncompressed_source=False),
    ):
        artifact = images.pack(pair.new, options)
        found.append((str(options), artifact.recipe, artifact.content))
    for choice in (
        cba_packer.Options(),
        cba_packer.Options(hash_length=16),
        cba_packer.Options(hash_length=8),
        cba_packer.Options(chunker="fixed", average=10_000, hash_length=4, compression="none"),
    ):
        archive = archives.pack(pair.new, choice)
        found.append((str(choice), archive.recipe, archive.content))
    return found


def test_every_chunked_format_is_cloned(pair: Pair) -> None:
    for kind, recipe, content in every_kind(pair):
        store = new_store(DEFAULT)
        first, second = CountingSource(content), CountingSource(content)
        clone(store, "a", recipe, [first])
        assert content_of(store, "a") == pair.new, kind
        outcome = clone(store, "b", recipe, [second])
        assert second.fetched == [], kind
        assert (outcome.written, outcome.unchanged) == (0, False)
        assert verify(store, full=True).sound, kind


def test_zeros_take_no_space() -> None:
    content = bytes(3_000_000)
    for recipe, stored in (
        (images.pack(content).recipe, images.pack(content).content),
        (images.pack(content, Options(uncompressed_source=False)).recipe,
         images.pack(content, Options(uncompressed_source=False)).content),
    ):  # fmt: skip
        store = new_store(DEFAULT)
        clone(store, "zeros", recipe, [CountingSource(stored)])
        assert content_of(store, "zeros") == content
        assert not any(content for name, content in files(store).items() if name.endswith(".pack"))


def test_an_empty_image_is_an_image() -> None:
    store = new_store()
    put(store, "empty", image())
    assert content_of(store, "empty") == b""
    assert verify(store, full=True).sound


def test_what_arrives_wrong_is_not_stored() -> None:
    store = new_store()
    source = CountingSource(NEW.content, spoil={CHUNK: 99})
    with pytest.raises(DigestError):
        clone(store, "new", NEW.recipe, [source], workers=1, limits=SMALL)
    assert store.images() == []
    assert store.partials() == ["new"]
    assert verify(store, full=True).bad == 0
    assert put(store, "new", NEW).resumed
    assert content_of(store, "new") == NEW.content


def test_what_was_recorded_before_the_link_died_is_not_fetched_again() -> None:
    class Dying(CountingSource):
        def fetch(self, ranges, *, ordered=False):  # type: ignore[no-untyped-def]
            for position, data in super().fetch(ranges, ordered=ordered):
                if position == 3:
                    raise TransportError("the link is down")
                yield position, data

    store = new_store()
    with pytest.raises(TransportError):
        clone(store, "new", NEW.recipe, [Dying(NEW.content)], limits=SMALL)
    source = NEW.source()
    outcome = clone(store, "new", NEW.recipe, [source], limits=SMALL)
    assert outcome.resumed
    assert source.fetched == [(4 * CHUNK, CHUNK), (6 * CHUNK, 9)]


def test_a_failure_at_the_start_leaves_an_intent_and_no_packs() -> None:
    store = new_store()
    with pytest.raises(SourceError):
        clone(store, "new", NEW.recipe, [CountingSource(b"")], limits=SMALL)
    assert sorted(files(store)) == ["lock", "new.partial", "store"]
    store.remove("new")
    assert sorted(files(store)) == ["lock", "store"]


def test_a_medium_that_lies_is_found_out_and_leaves_no_promise() -> None:
    class Lying(MemoryMedium):
        def write(self, offset: int, data: object) -> None:
            super().write(offset, bytes(len(data)) if offset == 4096 else data)  # type: ignore[arg-type]

    class Folder(MemoryDirectory):
        def create(self, name: str) -> MemoryMedium:
            self.files[name] = Lying(name=name) if name.endswith(".pack") else MemoryMedium(name=name)
            return self.files[name]

    store = open_store(Folder(), create=True, limits=SMALL)
    with pytest.raises(MediumError, match="twice"):
        put(store, "new", image(1, 2))
    assert store.images() == []
    report = verify(store, full=True)
    assert (report.bad, report.chunks) == (0, 1)


def test_a_write_that_went_wrong_once_is_found_and_mended() -> None:
    class Hiccup(MemoryMedium):
        spoilt = False
        durable = b""

        def sync(self) -> None:
            self.durable = bytes(self.content)

        def write(self, offset: int, data: object) -> None:
            if not self.spoilt and offset == 4096:
                self.spoilt, data = True, bytes(len(data))  # type: ignore[arg-type]
            super().write(offset, data)  # type: ignore[arg-type]

    class Folder(MemoryDirectory):
        def create(self, name: str) -> MemoryMedium:
            self.files[name] = Hiccup(name=name) if name.endswith(".pack") else MemoryMedium(name=name)
            return self.files[name]

    store = open_store(Folder(), create=True, limits=SMALL)
    put(store, "new", NEW)
    assert content_of(store, "new") == NEW.content
    assert verify(store, full=True).bad == 0
    assert isinstance(store.directory, Folder)
    packs = [medium for medium in store.directory.files.values() if isinstance(medium, Hiccup)]
    assert [pack.durable for pack in packs] == [pack.content for pack in packs]


def test_a_chunk_that_proves_damaged_meanwhile_is_not_counted_on() -> None:
    store = new_store()
    put(store, "old", OLD)
    assert isinstance(store.directory, MemoryDirectory)
    store.directory.files["00000001.pack"].content[0] ^= 1

    class Meanwhile(CountingSource):
        def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
            verify(store, full=True, limits=SMALL)
            yield from super().fetch(ranges, ordered=ordered)

    with pytest.raises(StateError, match="proved damaged"):
        clone(store, "new", NEW.recipe, [Meanwhile(NEW.content)], workers=1, limits=SMALL)
    assert "new" not in store.images()
    put(store, "new", NEW)
    assert content_of(store, "new") == NEW.content


def test_short_digests_prove_nothing_so_the_whole_image_is_checked(pair: Pair) -> None:
    archive = archives.pack(pair.new, cba_packer.Options(hash_length=4))
    wrong = replace(archive.recipe, digest=Digest.of(b"else", Algorithm.BLAKE2B))
    store = new_store(DEFAULT)
    with pytest.raises(DigestError, match="differs from the digest"):
        clone(store, "new", wrong, [CountingSource(archive.content)])
    assert store.images() == []


def test_what_nothing_covers_is_refused(pair: Pair) -> None:
    short = archives.pack(pair.new, cba_packer.Options(hash_length=4)).recipe
    bare = images.pack(pair.new, Options(uncompressed_source=False)).recipe
    bare.units.digests = DigestColumn(None)
    for recipe in (replace(short, digest=None), bare):
        store = new_store()
        with pytest.raises(VerificationError):
            clone(store, "new", recipe, [CountingSource(b"")])
        assert sorted(files(store)) == ["lock", "store"]


def test_space_is_counted_before_anything_is_written() -> None:
    store = new_store()
    looked = plan(store, "new", NEW.recipe)
    assert isinstance(store.directory, MemoryDirectory)
    store.directory.space = looked.disk - 1
    before = files(store)
    with pytest.raises(SpaceError, match=f"{looked.disk} bytes are needed"):
        put(store, "new", NEW)
    assert files(store) == before
    store.directory.space = looked.disk
    put(store, "new", NEW)
    used = sum(-(-len(content) // 4096) * 4096 for name, content in files(store).items() if name not in before)
    assert used <= looked.disk <= used + 4096 * 4


def test_space_is_needed_only_for_what_is_missing(pair: Pair) -> None:
    old, new = images.pack(pair.old), images.pack(pair.new)
    store = new_store(DEFAULT)
    clone(store, "old", old.recipe, [CountingSource(old.content)])
    looked = plan(store, "new", new.recipe)
    assert 0 < looked.missing < looked.disk < len(pair.new) / 2
    assert looked.missing + looked.present < len(pair.new)  # the rest is zeros
    assert sum(looked.pack_sizes) >= looked.missing


def test_a_plan_writes_nothing() -> None:
    store = new_store()
    before = files(store)
    assert plan(store, "new", NEW.recipe).missing == 4 * CHUNK + 9
    assert files(store) == before


def test_one_clone_of_a_name_at_a_time() -> None:
    store = new_store()

    class Nested(CountingSource):
        def fetch(self, ranges, *, ordered=False):  # type: ignore[no-untyped-def]
            with pytest.raises(BusyError, match="being cloned"):
                put(store, "new", NEW)
            with pytest.raises(BusyError, match="being cloned"):
                store.remove("new")
            put(store, "other", NEW)
            yield from super().fetch(ranges, ordered=ordered)

    clone(store, "new", NEW.recipe, [Nested(NEW.content)], limits=SMALL)
    assert content_of(store, "new") == content_of(store, "other") == NEW.content


def test_metadata_and_source_are_kept(pair: Pair) -> None:
    store = new_store(DEFAULT)
    artifact = images.pack(pair.new)
    clone(store, "new", artifact.recipe, [CountingSource(artifact.content)], source="there", metadata={"k": b"v"})
    description = store.description("new")
    assert (description.source, description.metadata) == ("there", {"k": b"v"})
    assert description.chunker == artifact.recipe.chunker


def test_a_missing_chunk_is_fetched_when_the_image_is_cloned_again() -> None:
    store = damaged(NEW)
    source = NEW.source()
    outcome = clone(store, "new", NEW.recipe, [source], limits=SMALL)
    assert not outcome.unchanged
    assert source.fetched == [(CHUNK, CHUNK)]
    assert content_of(store, "new") == NEW.content


def damaged(wanted: Image) -> Store:
    """A store in which a chunk of image `new` was found damaged."""
    store = new_store()
    put(store, "new", wanted)
    assert isinstance(store.directory, MemoryDirectory)
    store.directory.files["00000001.pack"].content[4096] ^= 1
    assert verify(store, full=True).bad == 1
    return store


def test_a_real_folder_holds_a_store(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> None:
    folder = tmp_path_factory.mktemp("images")
    artifact = images.pack(pair.new)
    with open_store(str(folder), create=True) as store:
        clone(store, "new", artifact.recipe, [CountingSource(artifact.content)], seeds=[seed_of(pair.old)])
        assert content_of(store, "new") == pair.new
        with store.image("new") as opened:
            assert all(pack.fileno() >= 0 for pack in opened.packs)  # type: ignore[attr-defined]
    assert sorted(path.name for path in folder.iterdir()) == [
        "00000001.index", "00000001.pack", "lock", "new.image", "store",
    ]  # fmt: skip
