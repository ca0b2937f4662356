# SPDX-License-Identifier: Apache-2.0
"""The way out `stream`: strict order, verified, with the same fall-backs."""

from __future__ import annotations

import random
from concurrent.futures import Future

import pytest
from images import CountingSource, Pair, pack, seed_of, small_recipe

from regraft.build.zchunk import Options
from regraft.engine.match import match
from regraft.engine.progress import Origin
from regraft.engine.seeds import Seed
from regraft.engine.stream import Streamer, _Kept
from regraft.errors import DigestError
from regraft.limits import Limits
from regraft.model import Digest
from regraft.testing.memory import MemoryMedium


def run(artifact, seeds: list[Seed], source: CountingSource, **more) -> tuple[bytes, Streamer]:  # type: ignore[no-untyped-def]
    plan = match(artifact.recipe, [(seed.medium.name, seed.index) for seed in seeds])
    streamer = Streamer(plan, [seed.medium for seed in seeds], [source], **more)
    return b"".join(streamer.pieces()), streamer


@pytest.mark.parametrize("options", [Options(), Options(uncompressed_source=False), Options(dictionary=b"word" * 99)])
def test_the_image_passes_in_order(pair: Pair, options: Options) -> None:
    artifact = pack(pair.new, options)
    source = CountingSource(artifact.content)
    out, streamer = run(artifact, [seed_of(pair.old)], source, digest=Digest.of(pair.new))
    assert out == pair.new
    assert streamer.fetched == source.total
    assert Origin.NONE not in streamer.origins


def test_memory_in_flight_is_bounded(pair: Pair) -> None:
    artifact = pack(pair.new)
    out, _ = run(artifact, [], CountingSource(artifact.content), limits=Limits(buffer=300_000))
    assert out == pair.new


def test_a_wrong_seed_chunk_becomes_a_fetch(pair: Pair) -> None:
    artifact = pack(pair.new)
    seed = seed_of(pair.old)
    assert isinstance(seed.medium, MemoryMedium)
    seed.medium.content[100_000] ^= 1
    seed.medium.bad.append((520_000, 520_001))
    out, streamer = run(artifact, [seed], CountingSource(artifact.content))
    assert out == pair.new
    assert streamer.replaced == 2


def test_a_chunk_that_arrives_wrong_is_fetched_once_more(pair: Pair) -> None:
    artifact = pack(pair.new)
    offset = artifact.recipe.units.offset[4]
    out, _ = run(artifact, [], CountingSource(artifact.content, spoil={offset: 1}))
    assert out == pair.new
    with pytest.raises(DigestError):
        run(artifact, [], CountingSource(artifact.content, spoil={offset: 2}))


def test_another_image_digest_is_an_error_at_the_end(pair: Pair) -> None:
    artifact = pack(pair.new)
    with pytest.raises(DigestError):
        run(artifact, [], CountingSource(artifact.content), digest=Digest.of(b""))


class Decoded:
    """The largest number of decoded bytes that a stream held for later rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = 0
        original = _Kept.offer

        def offer(kept: _Kept, row: int, unit: int, decoding: Future[memoryview]) -> None:
            original(kept, row, unit, decoding)
            self.most = max(self.most, sum(kept._lengths[unit] for unit in kept._units))

        monkeypatch.setattr(_Kept, "offer", offer)


def test_chunks_that_come_again_are_fetched_once_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    half = random.Random(5).randbytes(400_000)
    recipe, source, held = small_recipe(half + half), CountingSource(half + half), Decoded(monkeypatch)
    streamer = Streamer(match(recipe, []), [], [source])
    assert b"".join(streamer.pieces()) == half + half
    assert streamer.fetched == source.total == len(half)
    assert held.most == len(half)


def test_chunks_that_come_again_too_late_are_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    half = random.Random(5).randbytes(400_000)
    recipe, source, held = small_recipe(half + half), CountingSource(half + half), Decoded(monkeypatch)
    streamer = Streamer(match(recipe, []), [], [source], limits=Limits(buffer=400_000))
    assert b"".join(streamer.pieces()) == half + half
    assert streamer.fetched == source.total
    assert len(half) < source.total <= 2 * len(half) - 90_000
    assert 90_000 < held.most <= 101_000
