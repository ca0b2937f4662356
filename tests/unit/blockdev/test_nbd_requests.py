# SPDX-License-Identifier: Apache-2.0
"""Requests out of a stream, in any pieces, and what is judged of them."""

from __future__ import annotations

import pytest
from nbd_talk import (
    BLOCK_STATUS,
    CACHE,
    DF,
    FLUSH,
    FUA,
    READ,
    REQ_ONE,
    TRIM,
    WRITE,
    WRITE_ZEROES,
    PatternExport,
    request,
)

from regraft.blockdev.export import BlockSizes
from regraft.blockdev.nbd.exports import Session
from regraft.blockdev.nbd.protocol import REQUEST, Error
from regraft.blockdev.nbd.requests import Requests, judge
from regraft.limits import Limits

SIZE = 1 << 20
SESSION = Session(PatternExport(size=SIZE), structured=True, contexts=("base:allocation",))


def parsed(data: bytes) -> tuple[int, ...]:
    return REQUEST.unpack(data[:28])


def taken(requests: Requests, data: bytes, step: int) -> list[tuple[int, ...]]:
    found = []
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        requests.room[: len(piece)] = piece
        found += requests.take(len(piece))
    return found


STREAM = [
    request(READ, 0, 512, cookie=1),
    request(WRITE, 0, 100, cookie=2) + bytes(100),
    request(WRITE, 0, 0, cookie=3),
    request(FLUSH, cookie=4),
    request(WRITE, 5, 70_000, cookie=5) + b"\x25\x60\x95\x13" * 17_500,
    request(READ, 1, 2, cookie=6),
]


@pytest.mark.parametrize("step", [1, 3, 27, 28, 29, 1000, 65_536])
def test_requests_in_pieces_of_any_size(step: int) -> None:
    requests = Requests()
    assert taken(requests, b"".join(STREAM), step) == [parsed(part) for part in STREAM]
    assert requests.remains.header == b""


@pytest.mark.parametrize("cut", [0, 10, 28, 50, 100, 128, 150, 156, 200, 50_000, 70_300])
def test_what_remains_lets_another_go_on(cut: int) -> None:
    stream = b"".join(STREAM)
    first = Requests()
    found = taken(first, stream[:cut], 30_000)
    assert found + taken(Requests(first.remains), stream[cut:], 30_000) == [parsed(part) for part in STREAM]


@pytest.mark.parametrize("magic", [b"\0\0\0\0", b"\x25\x60\x95\x12", b"\x21\xe4\x1c\x71", b"\xff\xff\xff\xff"])
def test_wrong_magic_is_the_end_of_the_stream(magic: bytes) -> None:
    requests = Requests()
    good, bad = request(READ, 0, 512), magic + request(READ, 0, 512)[4:]
    assert taken(requests, good + bad + good, 100) == [parsed(good)]
    assert "magic" in requests.fault


def test_a_write_above_the_limit_is_the_end_of_the_stream() -> None:
    requests = Requests(limits=Limits(nbd_request_size=1000))
    assert taken(requests, request(WRITE, 0, 1001) + bytes(1001), 4096) == []
    assert "1001" in requests.fault


@pytest.mark.parametrize(
    ("command", "offset", "length", "flags", "error"),
    [
        (READ, 0, SIZE, 0, Error.OK),
        (READ, SIZE, 0, 0, Error.OK),
        (READ, 0, 0, 0, Error.OK),
        (READ, 0, 1, FUA | DF, Error.OK),
        (READ, 0, SIZE + 1, 0, Error.EINVAL),
        (READ, SIZE, 1, 0, Error.EINVAL),
        (READ, (1 << 64) - 1, 1, 0, Error.EINVAL),
        (READ, (1 << 64) - 512, 1024, 0, Error.EINVAL),
        (READ, 1 << 63, 0xFFFFFFFF, 0, Error.EINVAL),
        (READ, 0, 0xFFFFFFFF, 0, Error.EINVAL),
        (READ, 0, 1, REQ_ONE, Error.EINVAL),
        (READ, 0, 1, 0x8000, Error.EINVAL),
        (WRITE, 0, 1, 0, Error.EPERM),
        (WRITE, SIZE, 1, FUA, Error.EPERM),
        (WRITE, 0, 1, DF, Error.EINVAL),
        (TRIM, 0, 1, FUA, Error.EPERM),
        (WRITE_ZEROES, 0, 0xFFFFFFFF, 2 | 16, Error.EPERM),
        (FLUSH, 0, 0, FUA, Error.OK),
        (BLOCK_STATUS, 0, SIZE, FUA | REQ_ONE, Error.OK),
        (BLOCK_STATUS, 0, 0, 0, Error.EINVAL),
        (BLOCK_STATUS, 0, 0xFFFFFFFF, 0, Error.EINVAL),
        (CACHE, 0, 1, 0, Error.EINVAL),
        (8, 0, 1, 0, Error.EINVAL),
        (9, 0, 1, 0, Error.EINVAL),
        (0xFFFF, 0, 1, 0, Error.EINVAL),
    ],
)
def test_judgement(command: int, offset: int, length: int, flags: int, error: Error) -> None:
    assert judge(SESSION, parsed(request(command, offset, length, flags=flags))) == error


def test_reads_above_the_limit_are_invalid() -> None:
    huge = Session(PatternExport(size=SIZE))
    assert judge(huge, parsed(request(READ, 0, 1001)), limits=Limits(nbd_request_size=1000)) == Error.EINVAL
    assert judge(huge, parsed(request(READ, 0, 1000)), limits=Limits(nbd_request_size=1000)) == Error.OK


def test_df_needs_structured_replies_and_block_status_a_context() -> None:
    plain = Session(SESSION.export)
    assert judge(plain, parsed(request(READ, 0, 1, flags=DF))) == Error.EINVAL
    assert judge(plain, parsed(request(BLOCK_STATUS, 0, 1))) == Error.EINVAL


@pytest.mark.parametrize(("offset", "length"), [(1, 512), (512, 1), (256, 256), (511, 1)])
def test_what_is_not_aligned_is_invalid(offset: int, length: int) -> None:
    coarse = Session(PatternExport(size=SIZE, blocks=BlockSizes(512)), structured=True, contexts=("base:allocation",))
    for command in (READ, BLOCK_STATUS):
        assert judge(coarse, parsed(request(command, offset, length))) == Error.EINVAL
        assert judge(coarse, parsed(request(command, 512, 1024))) == Error.OK
