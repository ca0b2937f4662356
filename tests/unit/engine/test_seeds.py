# SPDX-License-Identifier: Apache-2.0
"""Indexing seeds: what is in them, and what a bad sector or a short file costs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from images import Pair, pack

from regraft import kernels
from regraft.engine import chunkers
from regraft.engine.files import open_source
from regraft.engine.seeds import index_medium, open_seed, still_true
from regraft.engine.state import state_of
from regraft.errors import SourceError
from regraft.formats import zchunk
from regraft.model import Algorithm
from regraft.testing.memory import MemoryMedium

SHA256 = Algorithm.SHA256


def test_a_seed_has_the_chunks_of_its_artifact(pair: Pair) -> None:
    index, header = index_medium(MemoryMedium(pair.old), SHA256), pack(pair.old).header
    assert index.chunker == zchunk.CHUNKER
    assert index.digests.data == header.digests.data[32:]
    assert list(index.bounds)[-1] == len(pair.old)
    assert [b - a for a, b in zip(index.bounds, index.bounds[1:], strict=False)] == list(header.lengths[1:])


@pytest.mark.parametrize("batch", [131_072, 200_001, 1 << 20])
def test_the_size_of_batches_does_not_matter(batch: int, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = index_medium(MemoryMedium(pair.old), SHA256)
    monkeypatch.setattr(chunkers, "BATCH", batch)
    assert index_medium(MemoryMedium(pair.old), SHA256) == whole


@pytest.mark.parametrize("algorithm", zchunk.ALGORITHMS)
def test_every_algorithm(algorithm: Algorithm) -> None:
    data = random.Random(2).randbytes(300_000)
    index = index_medium(MemoryMedium(data), algorithm)
    for chunk, digest in enumerate(index.digests):
        assert algorithm.of(data[index.bounds[chunk] : index.bounds[chunk + 1]]) == digest


def test_only_the_beginning_may_be_wanted(pair: Pair) -> None:
    assert index_medium(MemoryMedium(pair.old), SHA256, size=500_000).size == 500_000
    assert index_medium(MemoryMedium(pair.old), SHA256, size=1 << 40).size == len(pair.old)
    assert len(index_medium(MemoryMedium(b""), SHA256)) == 0


def test_a_bad_sector_costs_its_chunk(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunkers, "BATCH", 1 << 20)
    whole = index_medium(MemoryMedium(pair.old), SHA256)
    medium = MemoryMedium(pair.old)
    medium.bad.append((1_500_000, 1_500_512))
    found = index_medium(medium, SHA256)
    assert found.size == whole.size
    lost = set(whole.digests) - set(found.digests)
    assert 1 <= len(lost) <= 3  # the zeros read in its place may move the cuts beside it


def test_a_seed_that_becomes_shorter_is_an_error() -> None:
    class Shrinking(MemoryMedium):
        @property
        def size(self) -> int:
            return len(self.content) + 5000

    with pytest.raises(SourceError, match="became shorter"):
        index_medium(Shrinking(bytes(100_000)), SHA256)


def test_the_kept_index_saves_indexing(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "slot"
    path.write_bytes(pair.old)
    state = state_of(str(path))
    assert state is not None
    state.keep_index(index_medium(MemoryMedium(pair.old), SHA256))
    calls: list[int] = []

    def counted(*arguments: object, **settings: object) -> object:
        calls.append(1)
        return original(*arguments, **settings)  # type: ignore[arg-type]

    original = kernels.zck_index
    monkeypatch.setattr(kernels, "zck_index", counted)
    seed = open_seed(str(path), SHA256)
    assert not calls
    assert seed.index.size == len(pair.old)
    seed.medium.close()
    other = open_seed(str(path), Algorithm.SHA512)  # its digests are of no use here
    assert calls
    other.medium.close()


@pytest.mark.parametrize("change", ["other", "shorter", "longer"])
def test_an_index_of_something_else_is_found_out(change: str, pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "slot"
    index = index_medium(MemoryMedium(pair.old), SHA256)
    path.write_bytes({"other": pair.new, "shorter": pair.old[:-1], "longer": pair.old + b"x"}[change])
    state = state_of(str(path))
    assert state is not None
    state.keep_index(index)
    medium = open_source(str(path))
    assert still_true(medium, index) is (change == "longer")
    medium.close()
    seed = open_seed(str(path), SHA256)
    assert seed.index.size == (len(pair.old) if change == "longer" else path.stat().st_size)
    seed.medium.close()


def test_an_unreadable_chunk_does_not_make_an_index_untrue(pair: Pair) -> None:
    medium = MemoryMedium(pair.old)
    index = index_medium(medium, SHA256)
    medium.bad.append((0, 10))
    assert still_true(medium, index)


def test_a_seed_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        open_seed(str(tmp_path / "missing"), SHA256)
