# SPDX-License-Identifier: Apache-2.0
"""casync indexes and stores are written so that they give back the image, and a store only grows, by whole chunks."""

from __future__ import annotations

import gzip
import lzma
import random
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from casync_stores import SMALL, MemoryFolders, chunk_file, pack, packed, source
from hypothesis import given, settings
from hypothesis import strategies as st
from images import Pair, seed_of

from regraft.build.caibx import LEVELS, Options, Store, sizes_of
from regraft.build.caibx import pack as write
from regraft.engine.apply import apply
from regraft.engine.chunkstores import LocalStore
from regraft.engine.progress import Origin
from regraft.engine.state import State
from regraft.errors import ChangedError, LimitError, MediumError, UsageError
from regraft.formats import caibx
from regraft.formats.caibx import Sizes
from regraft.limits import DEFAULT
from regraft.model import Algorithm
from regraft.testing.crash import Log, MemoryDirectory, World
from regraft.testing.memory import MemoryMedium

IMAGE = random.Random(2).randbytes(40_000) + b"the same again. " * 4000 + bytes(20_000)


@pytest.mark.parametrize("digest", [Algorithm.SHA256, Algorithm.SHA512_256], ids=str)
@pytest.mark.parametrize("compression", list(LEVELS))
def test_every_kind_of_store_is_written_and_read(tmp_path: Path, compression: str, digest: Algorithm) -> None:
    made = pack(IMAGE, tmp_path / "store", replace(SMALL, compression=compression, digest=digest))
    target = MemoryMedium()
    apply(made.recipe, [], [source(made.header, tmp_path / "store")], target)
    assert target.content == IMAGE
    assert made.digest == digest.of(IMAGE)
    assert made.header.image_size == len(IMAGE)


def test_a_chunk_file_is_what_casync_makes_of_it() -> None:
    found = {}
    for compression in LEVELS:
        folders = MemoryFolders()
        made = packed(IMAGE, Store(LocalStore("memory", folders), replace(SMALL, compression=compression)), SMALL)
        found[compression] = folders.contents()
        assert set(found[compression]) == {caibx.paths(digest)[compression == "none"] for digest in made.header.digests}
    for name, content in found["none"].items():
        frame = found["zstd"][f"{name}.cacnk"]
        assert zstandard.frame_content_size(frame) == -1
        assert zstandard.ZstdDecompressor().decompressobj().decompress(frame) == content
        assert lzma.decompress(found["xz"][f"{name}.cacnk"], lzma.FORMAT_XZ) == content
        assert gzip.decompress(found["gzip"][f"{name}.cacnk"]) == content


def test_a_seed_is_cut_by_the_rule_of_the_index(pair: Pair, tmp_path: Path) -> None:
    made = pack(pair.new, tmp_path / "store", Options(sizes=Sizes(4096, 16384, 65536)))
    seed = seed_of(pair.old, Algorithm.SHA512_256, made.recipe.chunker)
    target, state = MemoryMedium(device=True, content=bytes(3_000_000)), State(MemoryDirectory(), "slot")
    outcome = apply(made.recipe, [seed], [source(made.header, tmp_path / "store")], target, state=state)
    assert target.content[: len(pair.new)] == pair.new
    assert outcome.bytes_from(Origin.FETCHED) < len(pair.new) // 5
    assert outcome.bytes_from(Origin.ZERO) > 100_000
    kept = state.load_index()
    assert kept is not None
    assert (kept.chunker, kept.digests) == (made.recipe.chunker, made.recipe.table.digests)


@pytest.mark.parametrize("compression", list(LEVELS))
def test_the_same_image_gives_the_same_bytes_with_any_number_of_threads(compression: str) -> None:
    found = []
    for workers in (1, 5):
        folders = MemoryFolders()
        made = packed(
            IMAGE,
            Store(LocalStore("memory", folders), replace(SMALL, compression=compression)),
            replace(SMALL, workers=workers),
        )
        found.append((made.content, folders.contents()))
    assert found[0] == found[1]


def test_a_store_only_grows(tmp_path: Path) -> None:
    first = pack(IMAGE, tmp_path / "store")
    assert first.store is not None
    assert first.store.written == len(set(first.header.digests))
    kept = {file: (file.stat().st_ino, file.read_bytes()) for file in (tmp_path / "store").rglob("*.cacnk")}
    other = pack(b"something new" * 500 + IMAGE, tmp_path / "store", replace(SMALL, compression="xz"))
    assert other.store is not None
    assert 0 < other.store.written < 20
    again = pack(IMAGE, tmp_path / "store", replace(SMALL, compression="none"))
    assert again.store is not None
    assert (again.store.written, again.store.written_bytes) == (0, 0)
    assert {file: (file.stat().st_ino, file.read_bytes()) for file in kept} == kept
    assert not list((tmp_path / "store").rglob("*.tmp"))


def test_without_a_store_only_the_index_is_made(tmp_path: Path) -> None:
    assert pack(IMAGE, None).content == pack(IMAGE, tmp_path / "store").content


def test_names_are_durable_before_the_index_is_written() -> None:
    folders = MemoryFolders()

    class Out(MemoryMedium):
        def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
            assert folders.synced == 1
            super().write(offset, data)

    out = Out()
    write(MemoryMedium(IMAGE), out, Store(LocalStore("memory", folders), SMALL), SMALL)
    assert out.content


def test_a_power_cut_leaves_whole_chunks_or_none() -> None:
    """One folder is enough: chunk files do not know of each other."""
    log = Log(World(MemoryMedium()))

    class OneFolder(MemoryFolders):
        def open(self, name: str):  # type: ignore[no-untyped-def]
            from contextlib import nullcontext

            return nullcontext(log.directory)

        def sync(self) -> None:
            log.directory.sync_directory()

    image = IMAGE[:1500]
    made = packed(image, Store(LocalStore("memory", OneFolder()), SMALL), replace(SMALL, workers=1))
    whole = {
        caibx.paths(digest)[0].partition("/")[2]: bytes(
            image[made.header.bounds[number] : made.header.bounds[number + 1]]
        )
        for number, digest in enumerate(made.header.digests)
    }
    seen = 0
    for state in log.states():
        for name, medium in state.directory.files.items():
            if not name.endswith(".tmp"):
                plain = zstandard.ZstdDecompressor().decompressobj().decompress(bytes(medium.content))
                assert plain == whole[name]
                seen += 1
    assert seen > len(whole)


def test_a_full_disk_leaves_no_half_chunk() -> None:
    class FullDirectory(MemoryDirectory):
        def create(self, name: str) -> MemoryMedium:
            super().create(name)

            class Full(MemoryMedium):
                def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
                    raise MediumError("no space left")

            medium = self.files[name] = Full()
            return medium

    folders = MemoryFolders()
    folders.open = lambda name: _opened(folders.folders.setdefault(name, FullDirectory()))  # type: ignore[method-assign]
    with pytest.raises(MediumError, match="no space"):
        packed(IMAGE, Store(LocalStore("memory", folders), SMALL))
    assert folders.contents() == {}


def _opened(directory: MemoryDirectory):  # type: ignore[no-untyped-def]
    from contextlib import nullcontext

    return nullcontext(directory)


@settings(max_examples=40)
@given(
    parts=st.lists(st.one_of(st.binary(max_size=400), st.integers(0, 3000).map(bytes)), max_size=6),
    sizes=st.tuples(st.integers(1, 200), st.integers(1, 200), st.integers(48, 900)).map(
        lambda three: Sizes(*sorted(three))
    ),
    compression=st.sampled_from(list(LEVELS)),
    digest=st.sampled_from([Algorithm.SHA256, Algorithm.SHA512_256]),
)
def test_any_image_comes_back(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], sizes: Sizes, compression: str, digest: Algorithm
) -> None:
    image, folder = b"".join(parts), tmp_path_factory.mktemp("store")
    made = pack(image, folder, Options(sizes, digest, compression, 1 if compression != "none" else None, 1))
    target = MemoryMedium()
    apply(made.recipe, [], [source(made.header, folder)], target)
    assert target.content == image
    assert caibx.parse_header(made.content) == made.header


def test_an_image_that_becomes_shorter_is_noticed() -> None:
    class Shrinking(MemoryMedium):
        @property
        def size(self) -> int:
            return 5000

    with pytest.raises(ChangedError):
        write(Shrinking(bytes(4000)), MemoryMedium(), None, SMALL)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("65536", Sizes(16384, 65536, 262144)),
        ("64K", Sizes(16384, 65536, 262144)),
        ("1:2:48", Sizes(1, 2, 48)),
        ("4K:16KiB:1M", Sizes(4096, 16384, 1 << 20)),
        ("30000", Sizes(7500, 30000, 120000)),
        ("300:300:300", Sizes(300, 300, 300)),
        ("3", Sizes(1, 3, 12)),
    ],
)
def test_chunk_sizes_are_told_as_to_casync(text: str, sizes: Sizes) -> None:
    assert sizes_of(text) == sizes


@pytest.mark.parametrize("text", ["", "x", "1:2", "1:2:3:4", ":4096:", "-1", "1.5", "9" * 30, "٣", "K"])
def test_other_words_are_no_chunk_size(text: str) -> None:
    with pytest.raises(UsageError, match="chunk size"):
        sizes_of(text)


@pytest.mark.parametrize(
    "options",
    [
        Options(sizes=Sizes(0, 1, 100)),
        Options(sizes=Sizes(5, 4, 100)),
        Options(sizes=Sizes(5, 104, 100)),
        Options(sizes=Sizes(10, 20, 40)),
        Options(sizes=Sizes(1, 2, (128 << 20) + 1)),
        Options(digest=Algorithm.SHA1),
        Options(compression="brotli"),
        Options(level=23),
        Options(level=0),
        Options(compression="xz", level=10),
        Options(compression="gzip", level=0),
        Options(compression="none", level=1),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options: Options) -> None:
    with pytest.raises(UsageError):
        options.check(DEFAULT)


def test_chunks_that_no_reader_takes_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="chunk_size"):
        Options(sizes=Sizes(1, 2, DEFAULT.chunk_size + 1)).check(DEFAULT)
    with pytest.raises(LimitError, match="chunks"):
        write(MemoryMedium(IMAGE), MemoryMedium(), None, SMALL, limits=replace(DEFAULT, chunks=3))
    with pytest.raises(LimitError, match="image_size"):
        write(MemoryMedium(IMAGE), MemoryMedium(), None, SMALL, limits=replace(DEFAULT, image_size=3))


def test_a_damaged_chunk_file_is_not_mended_by_packing_again(tmp_path: Path) -> None:
    """What is there under its name is taken for whole: only a reader looks into it, and tells."""
    made = pack(IMAGE, tmp_path / "store")
    file = chunk_file(tmp_path / "store", made.header, 0)
    file.write_bytes(b"damaged")
    pack(IMAGE, tmp_path / "store")
    assert file.read_bytes() == b"damaged"
