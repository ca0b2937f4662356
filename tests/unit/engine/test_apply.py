# SPDX-License-Identifier: Apache-2.0
"""From a recipe and seeds to a verified target."""

from __future__ import annotations

import pytest
from images import CountingSource, Pair, pack, seed_of

from regraft.build.zchunk import Options
from regraft.engine.apply import apply
from regraft.engine.progress import Origin
from regraft.engine.state import State
from regraft.errors import DigestError, MediumError, SourceError, TooSmallError, TransportError, VerificationError
from regraft.model import Algorithm, Digest
from regraft.testing.crash import MemoryDirectory
from regraft.testing.memory import MemoryMedium


def device(size: int) -> MemoryMedium:
    return MemoryMedium(b"\xaa" * size, name="slot", device=True)


def test_the_target_becomes_the_image_and_only_missing_chunks_are_fetched(pair: Pair) -> None:
    artifact = pack(pair.new)
    source = CountingSource(artifact.content)
    target = device(len(pair.new) + 5000)
    outcome = apply(artifact.recipe, [seed_of(pair.old)], [source], target)
    assert target.content[: len(pair.new)] == pair.new
    assert target.content[len(pair.new) :] == b"\xaa" * 5000
    assert 0 < source.total == outcome.fetched < len(artifact.content) // 2
    assert outcome.bytes_from(Origin.SEED) > outcome.bytes_from(Origin.FETCHED)
    assert outcome.bytes_from(Origin.ZERO) >= 131072
    assert sum(outcome.bytes_from(origin) for origin in Origin) == len(pair.new)


@pytest.mark.parametrize(
    "options",
    [
        Options(chunk_digest=Algorithm.SHA512),
        Options(chunk_digest=Algorithm.SHA512_128),
        Options(uncompressed_source=False),
        Options(uncompressed_source=False, chunk_digest=Algorithm.SHA1, digest=Algorithm.SHA1),
        Options(compression="none"),
        Options(dictionary=bytes(range(256)) * 16),
        Options(dictionary=bytes(range(256)) * 16, uncompressed_source=False),
    ],
    ids=lambda o: f"{o.chunk_digest.label}-{o.compression}-u{o.uncompressed_source:d}-D{len(o.dictionary)}",
)
def test_every_kind_of_zchunk_file_is_written_and_read(pair: Pair, options: Options) -> None:
    artifact = pack(pair.new, options)
    target = MemoryMedium()
    apply(artifact.recipe, [], [CountingSource(artifact.content)], target)
    assert target.content == pair.new


def test_an_empty_image_is_an_image() -> None:
    artifact = pack(b"")
    target = MemoryMedium(b"left over")
    apply(artifact.recipe, [], [CountingSource(artifact.content)], target)
    assert target.content == b""


def test_equal_chunks_are_fetched_once() -> None:
    piece = bytes(range(256)) * 512  # of the maximum length, so that it is cut alike each time
    artifact = pack(piece * 5)
    source = CountingSource(artifact.content)
    target = MemoryMedium()
    apply(artifact.recipe, [], [source], target)
    assert target.content == piece * 5
    assert len(artifact.recipe.table) >= 5
    assert len(source.fetched) < len(artifact.recipe.table)


def test_a_bad_sector_of_the_seed_costs_one_chunk(pair: Pair) -> None:
    artifact = pack(pair.new)
    undisturbed = CountingSource(artifact.content)
    apply(artifact.recipe, [seed_of(pair.old)], [undisturbed], MemoryMedium())
    seed = seed_of(pair.old)
    assert isinstance(seed.medium, MemoryMedium)
    seed.medium.bad.append((100_000, 100_512))
    source = CountingSource(artifact.content)
    target = MemoryMedium()
    outcome = apply(artifact.recipe, [seed], [source], target)
    assert target.content == pair.new
    assert outcome.replaced == 1
    assert len(source.fetched) == len(undisturbed.fetched) + 1


def test_a_seed_that_changed_after_it_was_indexed_costs_what_changed(pair: Pair) -> None:
    artifact = pack(pair.new)
    seed = seed_of(pair.old)
    assert isinstance(seed.medium, MemoryMedium)
    seed.medium.content[100_000] ^= 1
    target = MemoryMedium()
    outcome = apply(artifact.recipe, [seed], [CountingSource(artifact.content)], target)
    assert target.content == pair.new
    assert outcome.replaced == 1


def test_a_chunk_that_arrives_wrong_is_fetched_again(pair: Pair) -> None:
    artifact = pack(pair.new)
    units = artifact.recipe.units
    source = CountingSource(artifact.content, spoil={units.offset[3]: 1})
    target = MemoryMedium()
    apply(artifact.recipe, [], [source], target)
    assert target.content == pair.new


def test_a_chunk_that_is_always_wrong_ends_it_and_the_rest_is_kept(pair: Pair) -> None:
    artifact = pack(pair.new)
    units = artifact.recipe.units
    source = CountingSource(artifact.content, spoil={units.offset[3]: 99})
    target, state = device(len(pair.new)), State(MemoryDirectory(), "slot")
    with pytest.raises(DigestError, match="differ from their signed digest"):
        apply(artifact.recipe, [], [source], target, state=state)
    again = CountingSource(artifact.content)
    outcome = apply(artifact.recipe, [], [again], target, state=state)
    assert target.content == pair.new
    assert outcome.resumed
    assert again.total < len(artifact.content) / 3


def test_a_dead_link_leaves_all_that_was_copied(pair: Pair) -> None:
    class Dead(CountingSource):
        def fetch(self, ranges, *, ordered=False):  # type: ignore[no-untyped-def]
            raise TransportError("the link is down")
            yield

    artifact = pack(pair.new)
    target, state = device(len(pair.new)), State(MemoryDirectory(), "slot")
    with pytest.raises(TransportError):
        apply(artifact.recipe, [seed_of(pair.old)], [Dead(b"")], target, state=state)
    outcome = apply(artifact.recipe, [], [CountingSource(artifact.content)], target, state=state)
    assert target.content == pair.new
    assert outcome.bytes_from(Origin.IN_PLACE) > len(pair.new) // 2


def test_a_target_that_is_too_small_is_not_touched(pair: Pair) -> None:
    artifact = pack(pair.new)
    target = device(len(pair.new) - 1)
    with pytest.raises(TooSmallError):
        apply(artifact.recipe, [], [CountingSource(artifact.content)], target)
    assert target.content == b"\xaa" * (len(pair.new) - 1)


def test_the_slot_is_refused_when_it_differs_from_the_signed_image_digest(pair: Pair) -> None:
    artifact = pack(pair.new)
    wrong = Digest.of(b"another image")
    with pytest.raises(DigestError, match="image"):
        apply(artifact.recipe, [], [CountingSource(artifact.content)], MemoryMedium(), digest=wrong)


def test_a_medium_that_forgets_writes_is_found_out(pair: Pair) -> None:
    class Forgetful(MemoryMedium):
        def write(self, offset: int, data: object) -> None:
            super().write(offset, bytes(len(data)) if offset == 0 else data)  # type: ignore[arg-type]

    artifact = pack(pair.new)
    with pytest.raises(MediumError, match="reads back"):
        apply(artifact.recipe, [], [CountingSource(artifact.content)], Forgetful(device=True, content=pair.old * 2))


@pytest.mark.parametrize("uncompressed", [True, False], ids=["row-digests", "stored-digests-only"])
def test_a_write_that_went_wrong_once_is_found_and_mended(pair: Pair, uncompressed: bool) -> None:
    class Hiccup(MemoryMedium):
        spoilt = False

        def write(self, offset: int, data: object) -> None:
            if not self.spoilt and offset:
                self.spoilt, data = True, bytes(len(data))  # type: ignore[arg-type]
            super().write(offset, data)  # type: ignore[arg-type]

    artifact = pack(pair.new, Options(uncompressed_source=uncompressed))
    target = Hiccup(bytes(len(pair.new)), device=True)
    source = CountingSource(artifact.content)
    apply(artifact.recipe, [], [source], target)
    assert target.spoilt
    assert target.content == pair.new
    assert source.total < len(artifact.content) * 1.2  # only what was wrong is fetched again


def test_without_any_digest_nothing_is_written(pair: Pair) -> None:
    artifact = pack(pair.new, Options(uncompressed_source=False))
    artifact.recipe.units.digests.algorithm = None
    artifact.recipe.units.digests.data.clear()
    target = MemoryMedium()
    with pytest.raises(VerificationError):
        apply(artifact.recipe, [], [CountingSource(artifact.content)], target)
    assert target.content == b""


def test_the_kept_index_of_a_slot_saves_rewriting_what_has_not_moved(pair: Pair) -> None:
    old, new = pack(pair.old), pack(pair.new)
    target, state = device(len(pair.new) + 100_000), State(MemoryDirectory(), "slot")
    apply(old.recipe, [], [CountingSource(old.content)], target, state=state)
    kept = state.load_index()
    assert kept is not None
    assert kept.digests == old.recipe.table.digests
    outcome = apply(new.recipe, [seed_of(pair.old)], [CountingSource(new.content)], target, state=state)
    assert target.content[: len(pair.new)] == pair.new
    assert outcome.bytes_from(Origin.IN_PLACE) > 500_000


def test_the_same_update_again_moves_nothing(pair: Pair) -> None:
    artifact = pack(pair.new)
    target, state = device(len(pair.new)), State(MemoryDirectory(), "slot")
    apply(artifact.recipe, [], [CountingSource(artifact.content)], target, state=state)
    source = CountingSource(artifact.content)
    outcome = apply(artifact.recipe, [], [source], target, state=state)
    assert source.total == 0
    assert outcome.bytes_from(Origin.IN_PLACE) == len(pair.new)


def test_the_journal_of_another_update_is_not_believed(pair: Pair) -> None:
    old, new = pack(pair.old), pack(pair.new)
    target, state = device(len(pair.new) + 100_000), State(MemoryDirectory(), "slot")
    broken = CountingSource(old.content, spoil={old.recipe.units.offset[5]: 99})
    with pytest.raises(DigestError):
        apply(old.recipe, [], [broken], target, state=state)
    outcome = apply(new.recipe, [], [CountingSource(new.content)], target, state=state)
    assert not outcome.resumed
    assert target.content[: len(pair.new)] == pair.new


def test_a_seed_is_needed_only_if_it_is_readable(pair: Pair) -> None:
    artifact = pack(pair.new)
    seed = seed_of(pair.old)
    assert isinstance(seed.medium, MemoryMedium)
    seed.medium.bad.append((0, len(pair.old)))
    target = MemoryMedium()
    apply(artifact.recipe, [seed], [CountingSource(artifact.content)], target)
    assert target.content == pair.new
    with pytest.raises(SourceError):
        apply(artifact.recipe, [seed], [CountingSource(b"")], MemoryMedium())
