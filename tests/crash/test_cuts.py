# SPDX-License-Identifier: Apache-2.0
"""The crash laboratory itself: which states it visits, and that it finds what is wrong."""

from __future__ import annotations

import zlib

import pytest

from regraft.engine.medium import save
from regraft.testing.crash import Log, World
from regraft.testing.cuts import CutError, Rules, cuts, survey
from regraft.testing.memory import MemoryMedium

SECTOR = 512


def contents(log: Log, rules: Rules | None = None) -> list[bytes]:
    return [bytes(cut.world.target.content) for cut in cuts(log, rules)]


def device(size: int = 4 * SECTOR) -> World:
    return World(MemoryMedium(bytes(size), device=True))


def test_every_subset_of_few_pending_writes_is_visited() -> None:
    log = Log(device())
    for sector in range(4):
        log.target.write(sector * SECTOR, b"x" * SECTOR)
    found = {tuple(content[sector * SECTOR] == 120 for sector in range(4)) for content in contents(log)}
    assert len(found) == 16


def test_a_sync_makes_what_was_written_stay() -> None:
    log = Log(device())
    log.target.write(0, b"a" * SECTOR)
    log.target.sync()
    log.target.write(SECTOR, b"b" * SECTOR)
    assert {(content[0], content[SECTOR]) for content in contents(log)} == {(0, 0), (97, 0), (97, 98)}


def test_a_write_is_torn_at_sectors_only() -> None:
    log = Log(device())
    log.target.write(100, b"x" * (3 * SECTOR))
    for content in contents(log):
        for sector in range(4):
            piece = content[sector * SECTOR : (sector + 1) * SECTOR]
            written = piece[100:] if sector == 0 else piece[:100] if sector == 3 else piece
            assert len(set(written)) == 1
    assert len(set(contents(log))) >= 5


def test_zeros_are_a_write() -> None:
    log = Log(World(MemoryMedium(b"x" * 2 * SECTOR, device=True)))
    log.target.zero(0, 2 * SECTOR)
    assert {(content[0], content[SECTOR]) for content in contents(log)} >= {(120, 120), (0, 120), (120, 0), (0, 0)}


def test_where_many_writes_are_pending_some_subsets_are_visited_always_the_same() -> None:
    log = Log(device(40 * SECTOR))
    for sector in range(40):
        log.target.write(sector * SECTOR, b"x" * SECTOR)
    found = contents(log, Rules(seed=5))
    assert 2000 < len(found) < 20_000
    assert found == contents(log, Rules(seed=5))
    assert found != contents(log, Rules(seed=6))


def test_a_name_without_its_content_and_content_without_its_name() -> None:
    log = Log(device())
    save(log.directory, "state", b"content")
    found = {
        tuple(sorted((name, bytes(medium.content)) for name, medium in cut.world.directory.files.items()))
        for cut in cuts(log)
    }
    assert found == {(), (("state.new", b""),), (("state.new", b"content"),), (("state", b"content"),)}


# A toy: two slots of a sector with a sequence number and a checksum, the older one overwritten each time.


def toy_read(target: MemoryMedium) -> int:
    found = [0]
    for slot in range(2):
        data = bytearray(8)
        target.read_into(slot * SECTOR, memoryview(data))
        if int.from_bytes(data[4:], "little") == zlib.crc32(data[:4]):
            found.append(int.from_bytes(data[:4], "little"))
    return max(found)


def toy_run(target, _directory, *, count: int = 5, alternate: bool = True) -> None:  # type: ignore[no-untyped-def]
    for number in range(toy_read(target) + 1, count + 1):
        target.write(2 * SECTOR, number.to_bytes(2, "little") * 200)  # the work, before its record
        target.sync()
        record = number.to_bytes(4, "little")
        record += zlib.crc32(record).to_bytes(4, "little")
        target.write(SECTOR * (number % 2 if alternate else 0), record)
        target.sync()


def toy_check(world: World) -> None:
    assert toy_read(world.target) == 5
    assert world.target.content[2 * SECTOR] == 5


def test_what_is_right_passes_with_cuts_in_the_restarts_too() -> None:
    report = survey(device(), toy_run, toy_check, again=4)
    assert report.states > report.cuts_in_restarts > 0


def test_what_is_wrong_is_told_with_the_cut_that_shows_it() -> None:
    def forgets(target, directory) -> None:  # type: ignore[no-untyped-def]
        done = toy_read(target)
        for number in range(done + 1, 6):
            record = number.to_bytes(4, "little")
            target.write(SECTOR * (number % 2), record + zlib.crc32(record).to_bytes(4, "little"))
            target.write(2 * SECTOR, number.to_bytes(2, "little") * 200)
            target.sync()

    with pytest.raises(CutError, match="pending writes lost: AssertionError") as caught:
        survey(device(), forgets, toy_check)
    assert caught.value.cut.event > 0


def test_a_survey_ends_where_it_is_told_to() -> None:
    assert survey(device(), toy_run, toy_check, most=7).states == 7
