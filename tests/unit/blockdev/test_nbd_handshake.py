# SPDX-License-Identifier: Apache-2.0
"""The NBD handshake: golden bytes for each option, and refusals for every way to say it wrong."""

from __future__ import annotations

import struct

import pytest
from nbd_talk import (
    ABORT,
    ACK,
    EXPORT_NAME,
    GO,
    INFO,
    INVALID,
    LIST,
    LIST_META,
    META,
    REP_INFO,
    SERVER,
    SET_META,
    STARTTLS,
    STRUCTURED,
    TLS_REQD,
    TOO_BIG,
    UNKNOWN,
    UNSUP,
    PatternExport,
    go,
    option,
    option_replies,
    queries,
    string,
)

from regraft.blockdev.export import BlockSizes
from regraft.blockdev.nbd.exports import Exports
from regraft.blockdev.nbd.handshake import Handshake, State
from regraft.errors import FormatError, UsageError
from regraft.limits import Limits

DISK = PatternExport("disk", 4096, description="a disk")
PLAIN = PatternExport("größe", 8192, has_origins=False)
EXPORTS = Exports([DISK, PLAIN])
READ_ONLY = 0x010F  # HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, CAN_MULTI_CONN
SEND_DF = 0x80


def begun(flags: int = 3, **settings: bool) -> Handshake:
    handshake = Handshake(EXPORTS, **settings)
    said(handshake, struct.pack(">I", flags))
    return handshake


def said(handshake: Handshake, data: bytes) -> bytes:
    handshake.feed(data)
    out = []
    while (answer := handshake.answer()) is not None:
        out.append(answer)
    return b"".join(out)


def asked(handshake: Handshake, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
    replies = option_replies(said(handshake, option(number, data)))
    assert {reply[0] for reply in replies} == {number}
    return [reply[1:] for reply in replies]


def refused(handshake: Handshake, number: int, data: bytes = b"") -> int:
    """The one reply, an error, after which the handshake goes on."""
    replies = asked(handshake, number, data)
    assert len(replies) == 1
    assert replies[0][0] & 0x80000000
    assert handshake.state is State.TALKING
    return replies[0][0]


def test_the_greeting() -> None:
    assert Handshake(EXPORTS).greeting == b"NBDMAGICIHAVEOPT\0\x03"


def test_go_tells_size_and_flags_and_begins() -> None:
    handshake = begun()
    info = struct.pack(">HQH", 0, 4096, READ_ONLY)
    assert asked(handshake, GO, go(b"disk")) == [(REP_INFO, info), (ACK, b"")]
    assert handshake.state is State.TRANSMIT
    assert handshake.session.export is DISK
    assert not handshake.session.structured


def test_info_tells_all_that_is_asked_and_does_not_begin() -> None:
    handshake = begun()
    asked(handshake, STRUCTURED)
    assert asked(handshake, INFO, go(b"", 3, 1, 2, 99)) == [
        (REP_INFO, struct.pack(">HQH", 0, 4096, READ_ONLY | SEND_DF)),
        (REP_INFO, b"\0\1disk"),
        (REP_INFO, b"\0\2a disk"),
        (REP_INFO, struct.pack(">HIII", 3, 1, 4096, 32 << 20)),
        (ACK, b""),
    ]
    assert handshake.state is State.TALKING


def test_a_minimum_block_size_is_told_unasked() -> None:
    coarse = PatternExport("coarse", 8192, blocks=BlockSizes(512, 4096))
    handshake = Handshake(Exports([coarse]))
    said(handshake, bytes(4))
    assert (REP_INFO, struct.pack(">HIII", 3, 512, 4096, 32 << 20)) in asked(handshake, GO, go(b"coarse"))


@pytest.mark.parametrize(("flags", "zeroes"), [(0, 124), (1, 124), (3, 0), (2, 0)])
def test_export_name_is_answered_without_a_header(flags: int, zeroes: int) -> None:
    handshake = begun(flags)
    assert said(handshake, option(EXPORT_NAME, b"disk")) == struct.pack(">QH", 4096, READ_ONLY) + bytes(zeroes)
    assert handshake.state is State.TRANSMIT


@pytest.mark.parametrize("name", [b"no", b"\xff", b"a\0b", b"x" * 4097, b"x" * 70_000])
def test_export_name_of_an_unknown_disk_ends_the_connection(name: bytes) -> None:
    handshake = begun()
    assert said(handshake, option(EXPORT_NAME, name)) == b""
    assert handshake.state is State.CLOSE
    assert handshake.reason


def test_list() -> None:
    name = "größe".encode()
    assert asked(begun(), LIST) == [
        (SERVER, b"\0\0\0\4diska disk"),
        (SERVER, struct.pack(">I", len(name)) + name),
        (ACK, b""),
    ]


def test_abort_is_acknowledged_whatever_it_carries() -> None:
    for data in (b"", b"why"):
        handshake = begun()
        assert asked(handshake, ABORT, data) == [(ACK, b"")]
        assert handshake.state is State.CLOSE
        assert not handshake.reason


@pytest.mark.parametrize("flags", [4, 0x80000000, 0xFFFFFFFF])
def test_unknown_client_flags_end_the_connection(flags: int) -> None:
    assert begun(flags).state is State.CLOSE


@pytest.mark.parametrize("magic", [b"IHAVEOPX", bytes(8), b"\xff" * 8, b"NBDMAGIC"])
def test_wrong_magic_ends_the_connection(magic: bytes) -> None:
    handshake = begun()
    assert said(handshake, option(LIST, magic=magic)) == b""
    assert handshake.state is State.CLOSE


def test_a_command_before_go_ends_the_connection() -> None:
    handshake = begun()
    assert said(handshake, struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, 0, 512)) == b""
    assert handshake.state is State.CLOSE


@pytest.mark.parametrize("number", [0, 4, 11, 12, 255, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1 << 20])
def test_unknown_options_are_skipped(number: int, size: int) -> None:
    handshake = begun()
    assert refused(handshake, number, bytes(size)) == UNSUP
    assert asked(handshake, LIST)[-1] == (ACK, b"")


@pytest.mark.parametrize("number", [LIST, INFO, GO, STRUCTURED, LIST_META, SET_META, STARTTLS])
def test_options_that_are_too_long_are_skipped(number: int) -> None:
    handshake = begun()
    assert refused(handshake, number, bytes(65_537)) == TOO_BIG
    assert asked(handshake, LIST)[-1] == (ACK, b"")


@pytest.mark.parametrize("number", [*range(12), 1000])
@pytest.mark.parametrize("length", [(1 << 20) + 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_an_absurd_length_ends_the_connection(number: int, length: int) -> None:
    handshake = begun()
    assert said(handshake, option(number, length=length)) == b""
    assert handshake.state is State.CLOSE


@pytest.mark.parametrize("number", [LIST, STRUCTURED])
def test_data_where_none_belong(number: int) -> None:
    assert refused(begun(), number, b"x") == INVALID


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\0",
        b"\0\0\0\0\0",
        b"\0\0\0\4disk",
        b"\0\0\0\5disk\0\0",
        b"\xff\xff\xff\xffdisk\0\0",
        b"\0\0\0\4disk\0\1",
        b"\0\0\0\4disk\0\1\0",
        b"\0\0\0\4disk\xff\xff\0\1",
        b"\0\0\0\4disk\0\0\0",
        b"\0\0\0\4disk\0\0\0\1",
        go(b"di\0sk"),
        go(b"\xc3\x28"),
        go(b"x" * 4097),
    ],
)
@pytest.mark.parametrize("number", [INFO, GO])
def test_go_with_lengths_or_names_that_are_wrong(number: int, data: bytes) -> None:
    assert refused(begun(), number, data) == INVALID


@pytest.mark.parametrize("name", [b"disc", b"x" * 4096, b"../disk", b"disk/"])
def test_go_with_an_unknown_name(name: bytes) -> None:
    handshake = begun()
    assert refused(handshake, GO, go(name)) == UNKNOWN
    assert asked(handshake, GO, go(b"disk"))[-1] == (ACK, b"")


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ((), [b"base:allocation", b"x-regraft:origin"]),
        ((b"base:",), [b"base:allocation"]),
        ((b"x-regraft:",), [b"x-regraft:origin"]),
        ((b"base:allocation", b"base:allocation"), [b"base:allocation"]),
        ((b"base:alloc", b"qemu:dirty-bitmap:x", b"", b":"), []),
    ],
)
def test_list_meta_context(texts: tuple[bytes, ...], found: list[bytes]) -> None:
    replies = asked(begun(), LIST_META, queries(b"disk", *texts))
    assert replies == [*((META, bytes(4) + name) for name in found), (ACK, b"")]


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ((), ()),
        ((b"base:",), ()),
        ((b"base:allocation", b"unknown:x"), ("base:allocation",)),
        ((b"x-regraft:origin", b"base:allocation"), ("base:allocation", "x-regraft:origin")),
    ],
)
def test_set_meta_context_selects_for_this_export(texts: tuple[bytes, ...], found: tuple[str, ...]) -> None:
    handshake = begun()
    asked(handshake, STRUCTURED)
    replies = asked(handshake, SET_META, queries(b"disk", *texts))
    assert [content[4:].decode() for _, content in replies[:-1]] == list(found)
    assert len({content[:4] for _, content in replies[:-1]}) == len(found)
    asked(handshake, GO, go(b"disk"))
    assert handshake.session.contexts == found


def test_a_context_that_an_export_does_not_have() -> None:
    handshake = begun()
    asked(handshake, STRUCTURED)
    assert asked(handshake, SET_META, queries("größe".encode(), b"x-regraft:origin")) == [(ACK, b"")]


def test_meta_contexts_need_structured_replies() -> None:
    assert refused(begun(), SET_META, queries(b"disk", b"base:allocation")) == INVALID


@pytest.mark.parametrize("spoiling", [(SET_META, b""), (SET_META, queries(b"no", b"base:allocation"))])
def test_a_selection_is_lost_by_a_failed_one(spoiling: tuple[int, bytes]) -> None:
    handshake = begun()
    asked(handshake, STRUCTURED)
    asked(handshake, SET_META, queries(b"disk", b"base:allocation"))
    refused(handshake, *spoiling)
    asked(handshake, GO, go(b"disk"))
    assert handshake.session.contexts == ()


def test_a_selection_for_another_export_does_not_count() -> None:
    handshake = begun()
    asked(handshake, STRUCTURED)
    asked(handshake, SET_META, queries(b"disk", b"base:allocation"))
    asked(handshake, GO, go("größe".encode()))
    assert handshake.session.contexts == ()


@pytest.mark.parametrize(
    "data",
    [
        string(b"disk"),
        string(b"disk") + b"\0\0\0",
        string(b"disk") + b"\0\0\0\1",
        string(b"disk") + b"\xff\xff\xff\xff",
        string(b"disk") + b"\0\0\0\1\0\0\0\5base",
        string(b"disk") + b"\0\0\0\1" + string(b"x" * 4097),
        queries(b"disk", b"base:") + b"x",
        queries(b"disk")[:-4] + b"\0\0\0\2" + string(b"base:"),
    ],
)
@pytest.mark.parametrize("number", [LIST_META, SET_META])
def test_queries_with_lengths_that_are_wrong(number: int, data: bytes) -> None:
    handshake = begun()
    asked(handshake, STRUCTURED)
    assert refused(handshake, number, data) == INVALID


def test_queries_about_an_unknown_export() -> None:
    handshake = begun()
    asked(handshake, STRUCTURED)
    assert refused(handshake, SET_META, queries(b"no", b"base:allocation")) == UNKNOWN
    assert refused(handshake, LIST_META, queries(b"no")) == UNKNOWN


def test_too_many_options_end_the_connection() -> None:
    handshake = Handshake(EXPORTS, limits=Limits(nbd_options=3))
    said(handshake, bytes(4) + option(STRUCTURED) * 3)
    assert handshake.state is State.TALKING
    said(handshake, option(STRUCTURED))
    assert handshake.state is State.CLOSE


def test_one_option_is_answered_at_a_time() -> None:
    handshake = begun()
    handshake.feed(option(LIST) * 100)
    assert len(option_replies(handshake.answer() or b"")) == 3


def test_all_may_come_byte_by_byte() -> None:
    handshake = Handshake(EXPORTS)
    text = struct.pack(">I", 3) + option(STRUCTURED) + option(99, b"abc") + option(GO, go(b"disk", 3))
    out = b"".join(said(handshake, text[at : at + 1]) for at in range(len(text)))
    assert [reply for _, reply, _ in option_replies(out)] == [ACK, UNSUP, REP_INFO, REP_INFO, ACK]
    assert handshake.state is State.TRANSMIT


def test_what_comes_behind_go_is_kept() -> None:
    handshake = begun()
    said(handshake, option(GO, go(b"disk")) + b"request")
    assert handshake.rest == b"request"


def test_without_tls_starttls_is_unsupported() -> None:
    assert refused(begun(), STARTTLS) == UNSUP


@pytest.mark.parametrize("number", [LIST, INFO, GO, STRUCTURED, LIST_META, SET_META, 11, 77])
def test_nothing_is_told_before_tls(number: int) -> None:
    assert refused(begun(tls=True), number, go(b"disk")) == TLS_REQD


def test_export_name_before_tls_ends_the_connection() -> None:
    handshake = begun(tls=True)
    assert said(handshake, option(EXPORT_NAME, b"disk")) == b""
    assert handshake.state is State.CLOSE


def test_starttls_forgets_all_and_comes_once() -> None:
    handshake = begun(tls=True)
    assert refused(handshake, STARTTLS, b"x") == INVALID
    assert asked(handshake, STARTTLS) == [(ACK, b"")]
    assert handshake.state is State.UPGRADE
    secure = handshake.upgraded()
    assert refused(secure, STARTTLS) == INVALID
    assert refused(secure, SET_META, queries(b"disk")) == INVALID
    assert asked(secure, GO, go(b"disk"))[-1] == (ACK, b"")


def test_bytes_in_the_clear_behind_starttls_are_refused() -> None:
    handshake = begun(tls=True)
    said(handshake, option(STARTTLS) + option(LIST))
    with pytest.raises(FormatError, match="in the clear"):
        handshake.upgraded()


@pytest.mark.parametrize("names", [["a", "a"], ["x" * 4097], ["a\0"], ["\udcff"], []])
def test_exports_whose_names_cannot_be_served(names: list[str]) -> None:
    with pytest.raises(UsageError):
        Exports([PatternExport(name, 512) for name in names])
