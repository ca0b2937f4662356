# SPDX-License-Identifier: Apache-2.0
"""bita archives are written so that they give back the image, and the same bytes each time."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from archives import SMALL, pack
from hypothesis import given, settings
from hypothesis import strategies as st
from images import CountingSource, Pair, seed_of

from regraft.build.cba import Options
from regraft.build.chunks import Chunk, Cutter
from regraft.engine.apply import apply
from regraft.engine.match import match
from regraft.engine.progress import Origin
from regraft.engine.state import State
from regraft.engine.stream import Streamer
from regraft.errors import ChangedError, LimitError, UsageError
from regraft.kernels import Rolling, rolling_index
from regraft.limits import DEFAULT
from regraft.model import Algorithm
from regraft.testing.crash import MemoryDirectory
from regraft.testing.memory import MemoryMedium


@pytest.mark.parametrize("compression", ["brotli", "zstd", "lzma", "none"])
@pytest.mark.parametrize("chunker", ["rollsum", "buzhash", "fixed"])
def test_every_kind_of_archive_is_written_and_read(pair: Pair, compression: str, chunker: str) -> None:
    image = pair.new[1_000_000:]
    archive = pack(image, Options(chunker=chunker, compression=compression, level=2, maximum=1 << 18))
    target = MemoryMedium()
    apply(archive.recipe, [], [CountingSource(archive.content)], target)
    assert target.content == image
    streamer = Streamer(match(archive.recipe, []), [], [CountingSource(archive.content)])
    assert b"".join(streamer.pieces()) == image


def test_a_seed_is_cut_by_the_rule_of_the_archive(pair: Pair) -> None:
    options = Options(average=16384, minimum=4096, maximum=65536, compression="none")
    archive = pack(pair.new, options)
    source, target, state = (
        CountingSource(archive.content),
        MemoryMedium(device=True, content=bytes(3_000_000)),
        State(MemoryDirectory(), "slot"),
    )
    seed = seed_of(pair.old, Algorithm.BLAKE2B, archive.recipe.chunker)
    outcome = apply(archive.recipe, [seed], [source], target, state=state)
    assert target.content[: len(pair.new)] == pair.new
    assert source.total < len(pair.new) // 5
    assert outcome.bytes_from(Origin.ZERO) > 100_000
    kept = state.load_index()
    assert kept is not None
    assert (kept.chunker, kept.digests) == (archive.recipe.chunker, archive.recipe.table.digests)


def test_the_same_image_gives_the_same_bytes_with_any_number_of_threads(pair: Pair) -> None:
    assert pack(pair.new, Options(workers=1)).content == pack(pair.new, Options(workers=5)).content


def test_each_different_chunk_is_stored_once_and_raw_if_that_is_shorter() -> None:
    noise = random.Random(1).randbytes(512)
    archive = pack((noise + bytes(512)) * 9, replace(SMALL, chunker="fixed"))
    header = archive.header
    assert (list(header.order), len(header)) == ([0, 1] * 9, 2)
    assert list(header.lengths) == [512, 512]
    assert header.stored[0] == 512 > header.stored[1]


def test_the_chunks_are_those_of_the_kernel(pair: Pair) -> None:
    header = pack(pair.old, Options(chunker="buzhash", maximum=1 << 18)).header
    found, _, _ = rolling_index(
        pair.old, Rolling("buzhash", 15, 16384, 1 << 18, 16), final=True, algorithm="blake2b512"
    )
    assert [header.lengths[number] for number in header.order] == list(found)


@settings(max_examples=40)
@given(
    parts=st.lists(st.one_of(st.binary(max_size=400), st.integers(0, 3000).map(bytes)), max_size=6),
    chunker=st.sampled_from(["rollsum", "buzhash", "fixed"]),
    compression=st.sampled_from(["brotli", "zstd", "lzma", "none"]),
    hash_length=st.sampled_from([16, 20, 64]),
    legacy_window=st.sampled_from([0, 1, 16, 64]),
)
def test_any_image_comes_back(
    parts: list[bytes], chunker: str, compression: str, hash_length: int, legacy_window: int
) -> None:
    image = b"".join(parts)
    options = replace(SMALL, chunker=chunker, compression=compression, hash_length=hash_length, window=legacy_window)
    archive = pack(image, replace(options, level=1, workers=1))
    target = MemoryMedium()
    apply(archive.recipe, [], [CountingSource(archive.content)], target)
    assert target.content == image
    assert archive.header.digest is not None
    assert archive.header.digest.matches(image)


def test_two_chunks_with_one_hash_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among 2^32 hashes of 4 bytes two of some 100,000 chunks agree soon; here by force."""
    chunks = [Chunk(b"one", b"same" + bytes(60)), Chunk(b"two", b"same" + b"\1" * 60)]
    monkeypatch.setattr(Cutter, "chunks", lambda *_: iter(chunks))
    with pytest.raises(UsageError, match="same hash of 4 bytes"):
        pack(b"onetwo", replace(SMALL, hash_length=4))


def test_an_image_that_becomes_shorter_is_noticed() -> None:
    class Shrinking(MemoryMedium):
        @property
        def size(self) -> int:
            return 5000

    from regraft.build.cba import pack as write

    with pytest.raises(ChangedError):
        write(Shrinking(bytes(4000)), MemoryMedium(), SMALL)


@pytest.mark.parametrize(
    "options",
    [
        Options(chunker="rabin"),
        Options(compression="gzip"),
        Options(level=12),
        Options(level=0),
        Options(compression="lzma", level=10),
        Options(compression="zstd", level=23),
        Options(hash_length=3),
        Options(hash_length=65),
        Options(minimum=100_000),
        Options(maximum=1000),
        Options(average=3, minimum=1),
        Options(chunker="fixed", average=0),
        Options(window=5000),
        Options(window=-1),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options: Options) -> None:
    with pytest.raises(UsageError):
        options.check(DEFAULT)


def test_chunks_that_no_reader_takes_are_not_written() -> None:
    with pytest.raises(LimitError, match="chunk_size"):
        Options(maximum=DEFAULT.chunk_size + 1).check(DEFAULT)
    with pytest.raises(LimitError, match="metadata"):
        Options(metadata={str(number): b"" for number in range(DEFAULT.metadata + 1)}).check(DEFAULT)


def test_what_stock_devices_refuse_is_said() -> None:
    assert Options().warnings() == Options(compression="none").warnings() == []
    for compression in ("lzma", "zstd"):
        assert compression in Options(compression=compression).warnings()[0]
    assert "8 bytes" in Options(hash_length=8).warnings()[0]
