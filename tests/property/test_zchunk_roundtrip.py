# SPDX-License-Identifier: Apache-2.0
"""zchunk from end to end on any input: headers, packing, plans against a naive model, `stream` beside `write`."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images import CountingSource, pack, seed_of, small_recipe, small_seed

from regraft.build.zchunk import Options
from regraft.engine.apply import apply
from regraft.engine.match import match
from regraft.engine.seeds import Seed
from regraft.engine.stream import Streamer
from regraft.errors import RegraftError
from regraft.formats import kept_index, zchunk
from regraft.formats.codecs import Decoder
from regraft.formats.zchunk import ALGORITHMS, FLAG_OPTIONAL_ELEMENTS, FLAG_UNCOMPRESSED_SOURCE
from regraft.limits import DEFAULT
from regraft.model import Algorithm, DigestColumn, Index, Kind, Plan
from regraft.testing.memory import MemoryMedium

SLOWLY = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def headers(draw: st.DrawFn) -> zchunk.Header:
    full, chunk = draw(st.sampled_from(ALGORITHMS)), draw(st.sampled_from(ALGORITHMS))
    uncompressed = draw(st.booleans()) and chunk != Algorithm.SHA1
    elements = tuple(draw(st.lists(st.tuples(st.integers(0, 1 << 63), st.binary(max_size=20)), max_size=3)))
    compression = draw(st.sampled_from(["none", "zstd"]))
    count = draw(st.integers(1, 12))
    sizes = st.integers(1, DEFAULT.dictionary_size)
    lengths = [draw(st.one_of(st.just(0), sizes)) for _ in range(count)]
    stored = [length if compression == "none" or not length else draw(sizes) for length in lengths]
    digests = st.binary(min_size=chunk.size * count, max_size=chunk.size * count)
    return zchunk.Header(
        algorithm=full,
        chunk_algorithm=chunk,
        flags=uncompressed * FLAG_UNCOMPRESSED_SOURCE + bool(elements) * FLAG_OPTIONAL_ELEMENTS,
        compression=compression,
        data_digest=draw(st.binary(min_size=full.size, max_size=full.size)),
        stored_digests=DigestColumn(chunk, draw(digests)),
        digests=DigestColumn(chunk, draw(digests)) if uncompressed else DigestColumn(None),
        stored=array("I", stored),
        lengths=array("I", lengths),
        elements=elements,
        detached=draw(st.booleans()),
    )


@given(headers())
def test_a_header_survives(header: zchunk.Header) -> None:
    content = zchunk.build_header(header, detached=header.detached)
    assert zchunk.parse_header(content) == header
    assert zchunk.build_header(zchunk.parse_header(content), detached=header.detached) == content
    assert zchunk.parse_header(content).size == zchunk.parse_lead(content).total == len(content)
    assert zchunk.recipe(header, "x").size == header.image_size


@given(headers(), st.data())
def test_a_damaged_header_is_an_error(header: zchunk.Header, data: st.DataObject) -> None:
    content = bytearray(zchunk.build_header(header))
    at = data.draw(st.integers(5, len(content) - 1))  # the magic has a second meaning
    content[at] ^= data.draw(st.integers(1, 255))
    try:
        found = zchunk.parse_header(content)
    except RegraftError:
        return
    raise AssertionError(f"byte {at} was changed and {found} found")


@given(st.binary(max_size=200))
def test_anything_else_is_an_error(data: bytes) -> None:
    for start in (b"", b"\0ZCK1\x81", b"\0ZHR1\x80"):
        with suppress(RegraftError):
            zchunk.parse_header(start + data)
            raise AssertionError("a digest by chance")
        with suppress(RegraftError):
            kept_index.parse(start + data)
        with suppress(RegraftError):
            Decoder("zstd").decode(start + data, 100)


pieces = st.one_of(
    st.integers(0, 300_000).map(bytes),
    st.tuples(st.integers(0, 3), st.integers(0, 200_000)).map(lambda p: random.Random(p[0]).randbytes(p[1])),
    st.binary(max_size=100),
)
images = st.lists(pieces, max_size=4).map(b"".join)
options = st.builds(
    Options,
    digest=st.sampled_from(zchunk.ALGORITHMS),
    chunk_digest=st.sampled_from([Algorithm.SHA256, Algorithm.SHA512, Algorithm.SHA512_128]),
    uncompressed_source=st.booleans(),
    compression=st.just("zstd"),
    level=st.sampled_from([1, 3]),
    dictionary=st.one_of(st.just(b""), st.binary(min_size=8, max_size=300)),
) | st.builds(Options, compression=st.just("none"), uncompressed_source=st.booleans())


@SLOWLY
@given(images, options)
def test_what_is_packed_comes_out(image: bytes, how: Options) -> None:
    artifact = pack(image, how)
    target = MemoryMedium(b"something")
    apply(artifact.recipe, [], [CountingSource(artifact.content)], target)
    assert target.content == image
    assert pack(image, how).content == artifact.content


@SLOWLY
@given(images, images, options, st.integers(1, 200_000))
def test_stream_gives_what_write_writes(old: bytes, new: bytes, how: Options, cut: int) -> None:
    artifact = pack(new + old[cut:] + new, how)
    seeds = [seed_of(old, how.chunk_digest), seed_of(old[:cut] + new, how.chunk_digest)]
    target, source = MemoryMedium(), CountingSource(artifact.content)
    apply(artifact.recipe, seeds, [source], target)
    plan = match(artifact.recipe, [(seed.medium.name, seed.index) for seed in seeds])
    again = CountingSource(artifact.content)
    streamer = Streamer(plan, [seed.medium for seed in seeds], [again])
    assert b"".join(streamer.pieces()) == target.content == new + old[cut:] + new
    assert again.total == source.total


# plans against a naive model

CHUNKS = [bytes([n]) * 40 + random.Random(n).randbytes(60) for n in range(6)] + [bytes(100)]
sequences = st.lists(st.integers(0, len(CHUNKS) - 1), max_size=12)


def joined(sequence: Sequence[int]) -> bytes:
    return b"".join(CHUNKS[number] for number in sequence)


def executed(plan: Plan, seeds: list[bytes], blob: bytes, alternative: int) -> bytes:
    """The plan as it reads: one operation after the other, by the given alternative or the last one."""
    table, units, out = plan.table, plan.recipe.units, bytearray()
    for row in range(len(table)):
        ops = list(table.ops(row))
        op = ops[min(alternative, len(ops) - 1)]
        length = table.length(row)
        if op.kind is Kind.ZERO:
            out += bytes(length)
        elif op.kind is Kind.COPY:
            out += seeds[op.source][op.at : op.at + length]
        else:
            unit = blob[units.offset[op.unit] : units.offset[op.unit] + units.stored[op.unit]]
            out += unit[op.within : op.within + length]
    return bytes(out)


@given(st.lists(sequences, max_size=3), sequences)
def test_every_alternative_of_a_plan_gives_the_image(olds: list[list[int]], new: list[int]) -> None:
    image, seeds = joined(new), [small_seed(joined(old), 100) for old in olds]
    recipe = small_recipe(image, 100)
    plan = match(recipe, [("seed", seed.index) for seed in seeds])
    for alternative in range(4):
        assert executed(plan, [joined(old) for old in olds], image, alternative) == image
    check_first_operations(plan, olds, new)
    target = MemoryMedium()
    source = CountingSource(image)
    apply(recipe, seeds, [source], target)
    assert target.content == image
    missing = {number for number in new if not any(number in old for old in olds)}
    assert source.total <= 100 * len(missing)


def check_first_operations(plan: Plan, olds: list[list[int]], new: list[int]) -> None:
    """What some seed has is copied from the first that has it; the rest is fetched, each chunk once."""
    for row, number in enumerate(new):
        op = next(plan.table.ops(row))
        holders = [seed for seed, old in enumerate(olds) if number in old]
        if op.kind is Kind.ZERO:
            assert CHUNKS[number] == bytes(100)
        elif holders:
            assert (op.kind, op.source) == (Kind.COPY, holders[0])
            assert op.at == 100 * olds[holders[0]].index(number)
        else:
            assert (op.kind, op.unit) == (Kind.DATA, new.index(number))


@given(sequences, sequences, st.sets(st.integers(0, 11)))
def test_seeds_that_lie_cost_fetches_and_nothing_else(old: list[int], new: list[int], lies: set[int]) -> None:
    image, seed = joined(new), small_seed(joined(old), 100)
    spoiled = bytearray(joined(old))
    for lie in lies:
        spoiled[100 * lie : 100 * lie + 1] = b"?" if 100 * lie < len(spoiled) else b""
    index: Index = seed.index
    target = MemoryMedium(b"before")
    apply(small_recipe(image, 100), [Seed(MemoryMedium(spoiled), index)], [CountingSource(image)], target)
    assert target.content == image
