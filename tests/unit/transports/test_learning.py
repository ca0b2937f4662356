# SPDX-License-Identifier: Apache-2.0
"""The ladder, the memory of hosts, the meter, the pieces of ranges."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from regraft.engine.ranges import Link, Range
from regraft.errors import StateError
from regraft.transports.hosts import FILE_SIZE, HOSTS, LIFETIME, HostMemory
from regraft.transports.ladder import Answer, Level, ranges_per_request, step
from regraft.transports.measure import ASSUMED, Meter
from regraft.transports.statuses import backoff
from regraft.transports.wants import Cutter, Want


def test_the_ladder_never_goes_up_and_ends() -> None:
    for level in Level:
        for answer in Answer:
            for spans in (1, 5):
                assert step(level, spans, answer) <= level
    for answer in set(Answer) - {Answer.GOOD, Answer.BROKEN}:
        level = Level.MANY
        for _ in range(4):
            level = step(level, min(2, ranges_per_request(level)), answer)
        assert level is Level.STREAM


def test_the_rungs() -> None:
    assert step(Level.MANY, 9, Answer.MALFORMED) is Level.FEW
    assert step(Level.MANY, 9, Answer.FIRST_ONLY) is Level.SINGLE
    assert step(Level.MANY, 1, Answer.WHOLE) is Level.STREAM
    assert step(Level.SINGLE, 1, Answer.BROKEN) is Level.SINGLE
    assert [ranges_per_request(level) for level in Level] == [1, 1, 16, 128]


def test_hosts_survive_a_round_trip_and_age() -> None:
    memory = HostMemory()
    memory.note("http://a:80", Level.SINGLE, Link(1e6, 0.05), 1000.0)
    memory.note("http://b:80", Level.MANY, None, 1001.0)
    again = HostMemory.parse(memory.dump())
    assert again.dump() == memory.dump()
    known = again.recall("http://a:80", 1500.0)
    assert known is not None
    assert (known.level, known.link) == (Level.SINGLE, Link(1e6, 0.05))
    assert again.recall("http://a:80", 1001.0 + LIFETIME) is None
    assert again.recall("http://a:80", 0.0) is None  # seen in the future: the clock was wrong


def test_hosts_are_bounded() -> None:
    memory = HostMemory()
    for number in range(HOSTS + 50):
        memory.note(f"http://{'h' * 200}{number}:80", Level.MANY, Link(1.0, 1.0), float(number))
    assert memory.recall("http://" + "h" * 200 + "0:80", 10.0) is None
    assert len(memory.dump()) <= FILE_SIZE


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"{}", b'{"version": 2, "hosts": []}', b"[" * 60_000, b" " * 70_000]
)
def test_a_damaged_file_of_hosts_is_said(content: bytes) -> None:
    with pytest.raises(StateError):
        HostMemory.parse(content)


def test_entries_that_make_no_sense_are_left_out() -> None:
    good = {"origin": "http://a:80", "level": "few", "seen": 5}
    bad: list[object] = [
        None,
        5,
        [],
        {},
        good | {"seen": "x"},
        good | {"seen": 10**400},
        good | {"level": "up"},
        good | {"origin": 5},
    ]
    bad += [good | {"seen": True}, good | {"level": None}]
    content = json.dumps({"version": 1, "hosts": [*bad, good | {"bandwidth": -1, "round_trip": 1}]}).encode()
    memory = HostMemory.parse(content)
    known = memory.recall("http://a:80", 6.0)
    assert known is not None
    assert (known.level, known.link) == (Level.FEW, None)
    assert (
        HostMemory.parse(b'{"version": 1, "hosts": [{"origin": "x", "level": "few", "seen": NaN}]}').recall("x", 0)
        is None
    )


def test_the_meter_sees_all_connections_together() -> None:
    meter = Meter()
    assert meter.link == ASSUMED
    meter.answered(0.3)
    meter.answered(0.05)
    meter.begin(10.0)
    meter.begin(10.0)
    for tick in range(1, 101):
        meter.received(1000, 10.0 + tick / 100)
        meter.received(1000, 10.0 + tick / 100)
    meter.end(11.0)
    meter.end(11.0)
    assert meter.link.round_trip == 0.05
    assert 180_000 < meter.link.bandwidth < 220_000


def test_idle_time_does_not_count_as_slowness() -> None:
    meter = Meter()
    for start in (0.0, 1000.0):
        meter.begin(start)
        meter.received(100_000, start + 0.1)
        meter.end(start + 0.1)
    assert 900_000 < meter.link.bandwidth < 1_100_000


def test_backoff_grows_is_capped_and_honours_the_server() -> None:
    waits = [backoff(n, 0.5, None, 120.0) for n in range(1, 12)]
    assert waits == sorted(waits)
    assert waits[-1] == 120.0
    assert backoff(1, 0.5, 30.0, 120.0) == 30.0
    assert backoff(1, 0.5, 1e12, 120.0) == 120.0
    assert backoff(10**6, 0.5, None, 120.0) == 120.0


def test_ranges_come_together_from_pieces_in_any_order() -> None:
    chance = random.Random(3)
    content = chance.randbytes(3000)
    ranges = [Range(at, 100) for at in range(0, 3000, 150)]
    for _ in range(30):
        cuts = sorted({0, 3000, *(chance.randrange(3000) for _ in range(40))})
        pieces = list(itertools.pairwise(cuts)) * 2
        chance.shuffle(pieces)
        cutter = Cutter(Want(position, wanted) for position, wanted in enumerate(ranges))
        got = {}
        for start, end in pieces:
            for position, found in cutter.feed(start, memoryview(content)[start:end]):
                assert position not in got
                got[position] = found
        assert cutter.done
        assert got == {position: content[wanted.offset : wanted.end] for position, wanted in enumerate(ranges)}


def test_what_is_missing_of_a_range() -> None:
    want = Want(0, Range(100, 50))
    for offset, length in ((110, 5), (120, 10), (115, 5), (90, 15)):
        assert want.put(offset, memoryview(bytes(length))) is None
    assert list(want.missing()) == [Range(105, 5), Range(130, 20)]
    assert want.arrived == 25
