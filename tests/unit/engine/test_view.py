# SPDX-License-Identifier: Apache-2.0
"""The way out `view`: parts of an image at any time, verified, each unit fetched once, and no reader held for ever."""

from __future__ import annotations

import random
import threading
import time
import tracemalloc
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import zstandard
from images import CountingSource, Pair, pack, seed_of, small_recipe, small_seed

from regraft.build.zchunk import Options
from regraft.engine.cache import Cache, Entry
from regraft.engine.match import match
from regraft.engine.ranges import Range, RangeSource
from regraft.engine.seeds import Seed
from regraft.engine.view import Run, View, Whence
from regraft.errors import DigestError, SourceError, StallError, TransportError, UnsupportedError
from regraft.limits import Limits
from regraft.model import Algorithm, Blob, Codec, Kind, Op, OpTable, Plan, Recipe, Units
from regraft.model.buffers import Buffer
from regraft.testing.memory import MemoryMedium
from regraft.transports.faults import ErrorAfter

CHUNK = 1000


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def view_of(recipe: Recipe, source: RangeSource, seeds: Sequence[Seed] = (), **more) -> View:  # type: ignore[no-untyped-def]
    plan = match(recipe, [(seed.medium.name, seed.index) for seed in seeds])
    return View(plan, [seed.medium for seed in seeds], [source], **more)


def read(view: View, offset: int, length: int) -> bytes:
    buffer = bytearray(b"\xee" * length)
    view.read_into(offset, memoryview(buffer))
    return bytes(buffer)


@dataclass
class Gate:
    """A source that hands nothing over until it is opened; counts the calls."""

    content: bytes
    open: threading.Event = field(default_factory=threading.Event)
    calls: list[list[Range]] = field(default_factory=list)

    def fetch(self, ranges: Sequence[Range], *, ordered: bool = False) -> Generator[tuple[int, Buffer], None, None]:
        self.calls.append(list(ranges))
        assert self.open.wait(20)
        for position, (offset, length) in enumerate(ranges):
            yield position, self.content[offset : offset + length]


@pytest.mark.parametrize("options", [Options(), Options(uncompressed_source=False), Options(dictionary=b"word" * 99)])
def test_any_part_reads_like_the_image(pair: Pair, options: Options) -> None:
    artifact = pack(pair.new, options)
    view = view_of(artifact.recipe, CountingSource(artifact.content), [seed_of(pair.old)])
    chance = random.Random(5)
    for _ in range(60):
        length = chance.choice((0, 1, 512, 4096, 300_000))
        offset = chance.randrange(len(pair.new) - length + 1)
        assert read(view, offset, length) == pair.new[offset : offset + length]
    assert read(view, 0, len(pair.new)) == pair.new


def test_only_what_is_read_is_fetched_and_only_once() -> None:
    image = noise(20 * CHUNK)
    source = CountingSource(image)
    view = view_of(small_recipe(image, CHUNK), source)
    assert read(view, 2500, 1) == image[2500:2501]
    assert read(view, 2900, 200) == image[2900:3100]
    assert read(view, 2000, 2000) == image[2000:4000]
    assert source.fetched == [Range(2000, CHUNK), Range(3000, CHUNK)]
    assert view.fetched == 2 * CHUNK


def test_neighbours_are_fetched_together() -> None:
    image = noise(20 * CHUNK)
    gate = Gate(image)
    gate.open.set()
    view = view_of(small_recipe(image, CHUNK), gate)
    read(view, 3000, CHUNK)
    read(view, 1500, 5000)
    assert gate.calls[1] == [Range(start * CHUNK, CHUNK) for start in (1, 2, 4, 5, 6)]


def test_readers_of_one_missing_unit_fetch_it_once() -> None:
    image = noise(4 * CHUNK)
    gate = Gate(image)
    view = view_of(small_recipe(image, CHUNK), gate)
    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read, view, 1000 + 10 * row, 50) for row in range(8)]
        while not gate.calls:
            time.sleep(0.01)
        gate.open.set()
        assert [reader.result() for reader in readers] == [image[1000 + 10 * r : 1050 + 10 * r] for r in range(8)]
    assert gate.calls == [[Range(1000, CHUNK)]]


def test_a_silent_peer_costs_its_readers_an_error_after_the_deadline_and_nothing_else() -> None:
    image = noise(4 * CHUNK)
    gate = Gate(image)
    view = view_of(small_recipe(image, CHUNK), gate, limits=Limits(view_deadline=0.2))
    began = time.monotonic()
    with pytest.raises(StallError, match=r"0\.2 s"):
        read(view, 500, 1000)
    assert time.monotonic() - began < 5
    gate.open.set()
    assert read(view, 500, 1000) == image[500:1500]


def test_local_readers_do_not_wait_for_those_of_a_silent_peer() -> None:
    image = noise(8 * CHUNK)
    gate = Gate(image)
    view = view_of(small_recipe(image, CHUNK), gate, [small_seed(image[: 4 * CHUNK], CHUNK)])
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(read, view, 5000, 100)
        assert read(view, 1234, 2000) == image[1234:3234]
        assert not view.ready(5000, 100)
        gate.open.set()
        assert stuck.result() == image[5000:5100]
    assert view.ready(5000, 100)


def test_a_broken_link_is_an_error_of_that_read_and_the_next_one_tries_again() -> None:
    image = noise(8 * CHUNK)
    source = ErrorAfter(CountingSource(image), 1)
    view = view_of(small_recipe(image, CHUNK), source)
    with pytest.raises(TransportError):
        read(view, 0, 4000)
    assert read(view, 0, 4000) == image[:4000]


def test_a_wrong_or_unreadable_seed_chunk_becomes_a_fetch() -> None:
    image = noise(10 * CHUNK)
    source = CountingSource(image)
    seed = small_seed(image, CHUNK)
    assert isinstance(seed.medium, MemoryMedium)
    seed.medium.content[2100] ^= 1
    seed.medium.bad.append((5100, 5101))
    view = view_of(small_recipe(image, CHUNK), source, [seed])
    assert read(view, 0, len(image)) == image
    assert sorted(source.fetched) == [Range(2000, CHUNK), Range(5000, CHUNK)]
    assert read(view, 2000, 4000) == image[2000:6000]
    assert len(source.fetched) == 2


def test_a_seed_that_changes_later_is_noticed_when_its_row_is_obtained_again() -> None:
    image = noise(10 * CHUNK)
    seed = small_seed(image, CHUNK)
    assert isinstance(seed.medium, MemoryMedium)
    view = view_of(small_recipe(image, CHUNK), CountingSource(image), [seed], limits=Limits(view_cache=CHUNK))
    assert read(view, 0, 3000) == image[:3000]
    seed.medium.content[100] ^= 1
    assert read(view, 0, 3000) == image[:3000]


def test_stored_bytes_that_come_wrong_are_fetched_once_more_and_then_an_error_until_they_are_right() -> None:
    image = noise(4 * CHUNK)
    source = CountingSource(image, spoil={1000: 1, 2000: 3})
    view = view_of(small_recipe(image, CHUNK), source)
    assert read(view, 1000, 10) == image[1000:1010]
    with pytest.raises(DigestError):
        read(view, 1900, 200)
    assert read(view, 1900, 100) == image[1900:2000]
    assert read(view, 1900, 200) == image[1900:2100]


def test_a_unit_of_several_rows_is_fetched_once_and_each_row_is_verified() -> None:
    image = noise(4 * CHUNK)
    table, units = OpTable(Algorithm.SHA256), Units(None)
    unit = units.add(blob=0, codec=0, offset=0, stored=len(image), length=len(image), digest=None)
    for start in range(0, len(image), CHUNK):
        digest = Algorithm.SHA256.of(image[start : start + CHUNK])
        table.add(CHUNK, bytes(32) if start == 2000 else digest, Op(Kind.DATA, unit=unit, within=start))
    recipe = Recipe(table, units, (Blob("memory"),), (Codec("none"),))
    source = CountingSource(image)
    view = View(Plan(recipe, table, ()), [], [source])
    assert read(view, 0, 2000) == image[:2000]
    with pytest.raises(DigestError):
        read(view, 1999, 2)
    assert read(view, 3000, 1000) == image[3000:]
    assert len(source.fetched) == 1


def test_the_cache_is_bounded_and_what_was_dropped_is_fetched_again() -> None:
    image = noise(20 * CHUNK)
    source = CountingSource(image)
    view = view_of(small_recipe(image, CHUNK), source, limits=Limits(view_cache=5 * CHUNK))
    for _ in range(2):
        assert read(view, 0, len(image)) == image
    assert source.total == 2 * len(image)
    assert view._cache.used <= 5 * CHUNK


def test_a_row_larger_than_the_cache_is_served_in_parts_without_obtaining_it_each_time() -> None:
    image = noise(10 * CHUNK)
    source = CountingSource(image)
    view = view_of(small_recipe(image, 8 * CHUNK), source, limits=Limits(view_cache=CHUNK))
    for offset in range(0, 7000, 500):
        assert read(view, offset, 500) == image[offset : offset + 500]
    assert source.fetched == [Range(0, 8 * CHUNK)]


def test_a_seed_row_too_long_for_memory_is_hashed_as_it_passes() -> None:
    image = noise(3 << 20)
    table = OpTable(Algorithm.SHA256)
    table.add(len(image), Algorithm.SHA256.of(image), Op(Kind.COPY, at=5))
    recipe = Recipe(table, Units(None), (), ())
    seed = MemoryMedium(b"front" + image, name="seed")
    view = View(Plan(recipe, table, ("seed",)), [seed], [], limits=Limits(view_cache=1000, chunk_size=1000))
    assert read(view, (1 << 20) - 7, 1_100_000) == image[(1 << 20) - 7 :][:1_100_000]
    seed.content[-1] ^= 1
    with pytest.raises(DigestError):
        read(view, 10, 10)


def test_without_digests_only_the_bytes_asked_for_are_read() -> None:
    seed = MemoryMedium(noise(10_000), name="seed")
    seed.bad.append((9000, 9001))
    table = OpTable(None)
    table.add(10_000, None, Op(Kind.COPY))
    view = View(Plan(Recipe(table, Units(None), (), ()), table, ("seed",)), [seed], [])
    assert read(view, 100, 8900) == bytes(seed.content[100:9000])
    with pytest.raises(SourceError):
        read(view, 9000, 1)


def patched(*alternatives: Op, patch: str = "") -> tuple[Plan, bytes, bytes]:
    base, change = noise(CHUNK, 2), noise(CHUNK, 3)
    target = bytes(a ^ b for a, b in zip(base, change, strict=True))
    table, units = OpTable(Algorithm.SHA256), Units(None)
    units.add(blob=0, codec=0, offset=0, stored=CHUNK, length=CHUNK, digest=None)
    units.add(blob=0, codec=0, offset=CHUNK, stored=CHUNK, length=CHUNK, digest=None)
    table.add(CHUNK, Algorithm.SHA256.of(target), Op(Kind.PATCH), *alternatives)
    recipe = Recipe(table, units, (Blob("memory"),), (Codec("none", patch=patch),))
    return Plan(recipe, table, ("base",)), base, change + target


def test_a_patch_is_executed() -> None:
    plan, base, stored = patched(patch="xor")
    view = View(plan, [MemoryMedium(base)], [CountingSource(stored)])
    assert read(view, 100, 50) == stored[CHUNK + 100 : CHUNK + 150]


def test_a_patch_nobody_can_execute_is_told_or_replaced_by_what_else_there_is() -> None:
    plan, base, stored = patched()
    with pytest.raises(UnsupportedError, match="PATCH"):
        read(View(plan, [MemoryMedium(base)], [CountingSource(stored)]), 0, 1)
    plan, base, stored = patched(Op(Kind.DATA, unit=1))
    view = View(plan, [MemoryMedium(base)], [CountingSource(stored)])
    assert read(view, 100, 50) == stored[CHUNK + 100 : CHUNK + 150]


def test_what_ranges_consist_of() -> None:
    image = noise(4 * CHUNK) + bytes(9 * CHUNK) + noise(2 * CHUNK, 9)
    source = CountingSource(image)
    view = view_of(small_recipe(image, CHUNK), source, [small_seed(image[: 2 * CHUNK], CHUNK)])
    assert list(view.runs(500, 14_000)) == [
        Run(1500, Whence.COPY),
        Run(2000, Whence.REMOTE),
        Run(9000, Whence.ZERO),
        Run(1500, Whence.REMOTE),
    ]
    local = view_of(small_recipe(image, CHUNK), source, local=(0,))
    assert list(local.runs(3999, 2)) == [Run(1, Whence.LOCAL), Run(1, Whence.ZERO)]
    assert local.ready(0, len(image))
    assert not source.fetched


def test_reads_outside_of_the_image_are_a_callers_mistake() -> None:
    view = view_of(small_recipe(noise(1500), CHUNK), CountingSource(noise(1500)))
    for offset, length in ((-1, 1), (1500, 1), (0, 1501)):
        with pytest.raises(ValueError):
            read(view, offset, length)
    assert read(view, 1500, 0) == b""


def test_many_readers_at_once(pair: Pair) -> None:
    artifact = pack(pair.new)
    seeds = [seed_of(pair.old)]
    view = view_of(artifact.recipe, CountingSource(artifact.content), seeds, limits=Limits(view_cache=200_000))

    def reader(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            offset = chance.randrange(len(pair.new) - 10_000)
            assert read(view, offset, 10_000) == pair.new[offset : offset + 10_000]

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(reader, range(6)))


def test_overlapping_units_are_fetched_all_the_same() -> None:
    image = noise(2000)
    table, units = OpTable(Algorithm.SHA256), Units(None)
    for start in (0, 500, 1000):
        unit = units.add(blob=0, codec=0, offset=start, stored=CHUNK, length=CHUNK, digest=None)
        table.add(CHUNK, Algorithm.SHA256.of(image[start : start + CHUNK]), Op(Kind.DATA, unit=unit))
    recipe = Recipe(table, units, (Blob("memory"),), (Codec("none"),))
    view = View(Plan(recipe, table, ()), [], [CountingSource(image)])
    assert read(view, 0, 3000) == image[:1000] + image[500:1500] + image[1000:]


def test_the_cache_drops_what_was_used_least_recently() -> None:
    cache = Cache(100)
    for key in range(4):
        cache.put(key, Entry(memoryview(bytes(30))))
    assert [cache.get(key) is not None for key in range(4)] == [False, True, True, True]
    cache.get(1)
    cache.put(4, Entry(memoryview(bytes(40))))
    assert [cache.get(key) is not None for key in (1, 2, 3, 4)] == [True, False, True, True]
    cache.put(5, Entry(memoryview(bytes(1000))))
    assert cache.used == 1000
    cache.make_room(10)
    assert cache.used == 0


def test_a_read_of_a_little_of_many_long_units_does_not_hold_them_all() -> None:
    unit, rows = 1 << 18, 200
    stored = zstandard.compress(bytes(unit))
    table, units = OpTable(None), Units(None)
    for row in range(rows):
        offset = row * len(stored)
        number = units.add(blob=0, codec=0, offset=offset, stored=len(stored), length=unit, digest=None)
        table.add(512, None, Op(Kind.DATA, unit=number))
    content = stored * rows
    plan = Plan(Recipe(table, units, (Blob("memory", len(content)),), (Codec("zstd"),)), table, ())
    view = View(plan, [], [CountingSource(content)], local=(0,), limits=Limits(view_cache=4 * unit))
    tracemalloc.start()
    try:
        assert read(view, 0, 512 * rows) == bytes(512 * rows)
        assert tracemalloc.get_traced_memory()[1] < 24 * unit
    finally:
        tracemalloc.stop()
