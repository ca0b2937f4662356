# SPDX-License-Identifier: Apache-2.0
"""The rungs of a local store, and the decorators of those that are read."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from casync_stores import SMALL, MemoryFolders, MemoryStore, Packed, chunk_file, pack, packed

from regraft.build.caibx import Store
from regraft.engine.apply import apply
from regraft.engine.chunkcache import Cached, Check, Retrying
from regraft.engine.chunkfiles import ChunkSource
from regraft.engine.chunkstores import LocalStore, ReadStore, StoredFile
from regraft.errors import BusyError, MediumError, RegraftError, SourceError, SpaceError
from regraft.formats import caibx, ihop
from regraft.model import Algorithm
from regraft.testing.crash import Log, World
from regraft.testing.faulty import Faults, Faulty
from regraft.testing.memory import MemoryMedium

IMAGE = random.Random(5).randbytes(25_000) + b"the same again. " * 2000
CHECK = Check(Algorithm.SHA512_256, caibx.CODEC, caibx.digest_of)
PATH = "ab12/ab12" + "0" * 60


@pytest.fixture
def made(tmp_path: Path) -> Packed:
    return pack(IMAGE, tmp_path / "store")


def rebuilt(made: Packed, *stores: ReadStore) -> bytes:
    target = MemoryMedium()
    header = made.header
    apply(made.recipe, [], [ChunkSource(stores, header.digests, caibx.paths, header.lengths, threads=3)], target)
    return bytes(target.content)


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def right(path: str, content: bytes) -> bool:
    """Whether a file decodes to its chunk. Not every bit of a zstd frame matters."""
    return CHECK.path_of(caibx.paths(caibx.digest_of(path) or b""), content, 10_000) == path


# -- rungs -------------------------------------------------------------------------------------------------------------


def test_who_only_reads_makes_nothing(tmp_path: Path) -> None:
    assert LocalStore(str(tmp_path / "none")).read((PATH,), 10) is None
    assert not (tmp_path / "none").exists()


def test_what_was_put_is_there_and_is_kept(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "store"))
    assert not store.has((PATH,))
    store.put(PATH, b"first")
    store.put(PATH, b"second")
    store.sync()
    assert store.has(("0000/x", PATH))
    assert store.read((PATH,), 10) == b"first"
    store.put(PATH, b"third", replace=True)
    assert store.read((PATH,), 10) == b"third"
    assert list(content_of(tmp_path / "store")) == [PATH]


def test_files_are_listed_without_what_is_none(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "store"))
    store.put(PATH, b"12345")
    os.utime(tmp_path / "store" / PATH, (7, 7))
    (tmp_path / "store" / "ab12" / "missing").symlink_to("/dev/null")
    (tmp_path / "store" / "link").symlink_to("ab12")
    (tmp_path / "store" / "file").write_bytes(b"")
    assert list(store.files()) == [StoredFile(PATH, 5, 7.0)]
    store.remove(PATH)
    store.remove(PATH)
    assert list(store.files()) == []


def test_a_full_disk_leaves_nothing_behind() -> None:
    class Full(MemoryMedium):
        def write(self, offset: int, data: object) -> None:
            raise SpaceError("no space left")

    folders = MemoryFolders()
    with folders.open("ab12") as directory:
        directory.create = lambda name: directory.files.setdefault(name, Full())  # type: ignore[attr-defined,method-assign]
    with pytest.raises(SpaceError):
        LocalStore("memory", folders).put(PATH, b"content")
    assert folders.contents() == {}


def test_a_power_cut_while_a_chunk_is_replaced_leaves_the_old_or_the_new() -> None:
    name = PATH.partition("/")[2]
    world = World()
    world.directory.files[name] = MemoryMedium(b"old" * 500, name=name)
    log = Log(world)

    class OneFolder(MemoryFolders):
        def open(self, name: str):  # type: ignore[no-untyped-def]
            from contextlib import nullcontext

            return nullcontext(log.directory)

    store = LocalStore("memory", OneFolder())
    store.put(PATH, b"new" * 700, replace=True)
    found = {bytes(state.directory.files[name].content) for state in log.states()}
    assert found == {b"old" * 500, b"new" * 700}
    store.sync()
    *_, last = log.states()
    assert bytes(last.directory.files[name].content) == b"new" * 700


def test_adding_and_pruning_exclude_each_other(tmp_path: Path) -> None:
    one, other, third = (LocalStore(str(tmp_path / "store")) for _ in range(3))
    with one.adding(), other.adding(), pytest.raises(BusyError, match="right now"), third.pruning():
        pass
    with one.pruning(), pytest.raises(BusyError), other.pruning():
        pass
    with one.adding():
        pass


def test_where_no_lock_can_be_had_chunks_are_added_but_not_pruned() -> None:
    class Lockless(MemoryFolders):
        def lock(self, *, shared: bool = False, wait: bool = True):  # type: ignore[no-untyped-def]
            raise MediumError("lock: not supported")

    store = LocalStore("memory", Lockless())
    with store.adding():
        store.put(PATH, b"content")
    with pytest.raises(MediumError, match="not supported"), store.pruning():
        pass


# -- names and contents ------------------------------------------------------------------------------------------------


def test_a_path_tells_its_digest() -> None:
    digest = Algorithm.SHA256.of(b"x")
    assert [caibx.digest_of(path) for path in caibx.paths(digest)] == [digest, digest]
    assert ihop.digest_of(ihop.paths(digest)[0]) == digest
    path = caibx.paths(digest)[0]
    for other in (path.upper(), path[:-1], "x" + path, "0000" + path[4:], path + ".0011.tmp", f"chunks/{path}"):
        assert caibx.digest_of(other) is None
        assert ihop.digest_of(other) is None
    assert caibx.is_temporary(f"{path}.0011aabb.tmp")
    assert not any(caibx.is_temporary(other) for other in (path, path[:9] + ".aa.tmp", "x.tmp", f"{path}.0/1.tmp"))


@pytest.mark.parametrize("compression", ["zstd", "xz", "gzip", "none"])
def test_contents_are_told_by_their_digests(compression: str) -> None:
    folders = MemoryFolders()
    made = packed(IMAGE, Store(LocalStore("memory", folders), replace(SMALL, compression=compression)))
    for path, content in folders.contents().items():
        paths = caibx.paths(caibx.digest_of(path) or b"")
        assert CHECK.path_of(paths, content, 10_000) == path
        assert CHECK.path_of(paths, content[:-1], 10_000) is None
        assert CHECK.path_of(paths, bytes([content[0] ^ 1]) + content[1:], 10_000) is None
        assert CHECK.path_of(paths, b"", 10_000) is None
    assert len(folders.contents()) == len(set(made.header.digests))


def test_a_plain_chunk_that_begins_as_a_compressed_one_is_known() -> None:
    for content in (b"\x28\xb5\x2f\xfd and so on", b"\x1f\x8b" + bytes(100), b"\xfd7zXZ\0" + bytes(50)):
        paths = caibx.paths(Algorithm.SHA512_256.of(content))
        assert CHECK.path_of(paths, content, 1000) == paths[1]


# -- cache -------------------------------------------------------------------------------------------------------------


def test_what_was_read_once_is_read_from_the_cache(made: Packed, tmp_path: Path) -> None:
    origin, cache = Faulty(LocalStore(str(tmp_path / "store")), Faults()), LocalStore(str(tmp_path / "cache"))
    assert rebuilt(made, Cached(origin, cache, CHECK)) == IMAGE
    assert content_of(tmp_path / "cache") == content_of(tmp_path / "store")
    broken = Faulty(LocalStore(str(tmp_path / "store")), Faults(fail=1))
    assert rebuilt(made, Cached(broken, cache, CHECK)) == IMAGE
    assert not broken.done


@pytest.mark.parametrize("damage", [b"", b"damaged", b"\x28\xb5\x2f\xfd", bytes(1 << 20), None])
def test_a_bad_chunk_in_the_cache_is_fetched_again_and_replaced(
    made: Packed, tmp_path: Path, damage: bytes | None
) -> None:
    cached = Cached(LocalStore(str(tmp_path / "store")), LocalStore(str(tmp_path / "cache")), CHECK)
    rebuilt(made, cached)
    good = content_of(tmp_path / "cache")
    for number in (0, 3):
        file = chunk_file(tmp_path / "cache", made.header, number)
        if damage is None:
            file.unlink()
            file.symlink_to("/dev/null")
        else:
            file.write_bytes(damage)
    assert rebuilt(made, cached) == IMAGE
    assert content_of(tmp_path / "cache") == good


def test_nothing_unverified_enters_the_cache(made: Packed, tmp_path: Path) -> None:
    for seed in range(5):
        origin = Faulty(LocalStore(str(tmp_path / "store")), Faults(seed, truncate=0.5, flip=0.5))
        cached = Cached(origin, LocalStore(str(tmp_path / f"cache{seed}")), CHECK)
        for number, digest in enumerate(made.header.digests):
            cached.read(caibx.paths(digest), made.header.lengths[number] + 600)
        kept = content_of(tmp_path / f"cache{seed}")
        assert all(right(path, content) for path, content in kept.items())
        assert 0 < len(kept) < len(content_of(tmp_path / "store"))


def test_without_room_for_a_cache_all_goes_on(made: Packed, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    words: list[str] = []
    cache = LocalStore(str(tmp_path / "file" / "cache"))
    cached = Cached(LocalStore(str(tmp_path / "store")), cache, CHECK, report=words.append)
    assert rebuilt(made, cached) == IMAGE
    assert words
    assert all("nothing more is cached" in each for each in words)
    assert len(words) <= 3  # not one for each chunk


def test_a_cache_is_filled_from_several_stores(made: Packed, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    names = sorted(content_of(tmp_path / "store"))
    for name in names[::2]:
        (tmp_path / "other" / name).parent.mkdir()
        (tmp_path / "store" / name).rename(tmp_path / "other" / name)
    cache = LocalStore(str(tmp_path / "cache"))
    stores = [Cached(LocalStore(str(tmp_path / name)), cache, CHECK) for name in ("store", "other")]
    assert rebuilt(made, *stores) == IMAGE
    assert sorted(content_of(tmp_path / "cache")) == names


def test_a_plain_chunk_is_kept_under_the_plain_name() -> None:
    content = b"plain content" * 9
    paths = caibx.paths(Algorithm.SHA512_256.of(content))
    folders = MemoryFolders()
    cached = Cached(MemoryStore({paths[0]: content}), LocalStore("memory", folders), CHECK)
    assert cached.read(paths, 1000) == content
    assert folders.contents() == {paths[1]: content}


# -- second try, faults ------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_read_once_is_tried_again(made: Packed, tmp_path: Path) -> None:
    local = LocalStore(str(tmp_path / "store"))
    bad = Faulty(local, Faults(1, fail=0.5, reads=1))
    assert rebuilt(made, Retrying(bad)) == IMAGE
    assert bad.done["fail"] > 10
    with pytest.raises(SourceError, match="Input/output"):
        rebuilt(made, Retrying(Faulty(local, Faults(1, fail=0.5, reads=2))))


@pytest.mark.parametrize("kind", ["fail", "truncate", "flip", "delay", "all"])
@pytest.mark.parametrize("cache", [False, True])
def test_with_any_faults_the_image_is_right_or_the_error_typed(
    made: Packed, tmp_path: Path, kind: str, cache: bool
) -> None:
    rates = dict.fromkeys(("fail", "truncate", "flip", "delay"), 0.04) if kind == "all" else {kind: 0.04}
    done = 0
    for seed in range(6):
        store: ReadStore = Faulty(LocalStore(str(tmp_path / "store")), Faults(seed, **rates, reads=1 + seed % 3))  # type: ignore[arg-type]
        if cache:
            store = Cached(store, LocalStore(str(tmp_path / f"cache{seed}")), CHECK)
        try:
            assert rebuilt(made, Retrying(store)) == IMAGE
            done += 1
        except RegraftError:
            pass
        if cache:
            assert all(right(path, content) for path, content in content_of(tmp_path / f"cache{seed}").items())
    assert done >= (6 if kind == "delay" else 1 if kind == "fail" else 0)


def test_the_same_seed_makes_the_same_faults(made: Packed, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        store = Faulty(LocalStore(str(tmp_path / "store")), Faults(3, truncate=0.3, flip=0.3))
        found.append([store.read(caibx.paths(digest), 10_000) for digest in made.header.digests])
    assert found[0] == found[1]
