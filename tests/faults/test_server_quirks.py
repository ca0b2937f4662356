# SPDX-License-Identifier: Apache-2.0
"""Each quirk of a real server is a case: it ends with the right bytes, or with the error of the right class."""

from __future__ import annotations

import gzip
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from quirky_server import Exchange, QuirkyServer, Script, content_range, multipart_body

from regraft.engine.ranges import Range
from regraft.errors import (
    ChangedError,
    LimitError,
    RedirectError,
    RegraftError,
    StallError,
    StatusError,
    TransportError,
)
from regraft.limits import DEFAULT
from regraft.transports.fetcher import Fetcher, Timing
from regraft.transports.hosts import HostMemory
from regraft.transports.ladder import Level
from regraft.transports.policy import Policy
from regraft.transports.source import UrlSource

CONTENT = random.Random(7).randbytes(200_000)
RANGES = [Range(offset, 300 + offset % 700) for offset in range(1000, 190_000, 6000)]
LIMITS = replace(DEFAULT, idle_timeout=0.4, connect_timeout=2.0, retries=4, retry_wait=0.3, low_speed_time=0.4)
BRISK = Timing(sleep=lambda seconds: time.sleep(min(seconds, 0.01)), chance=lambda: 0.0)


@contextmanager
def serving(script: Script, **settings: object) -> Iterator[tuple[QuirkyServer, Fetcher]]:
    options: dict[str, object] = {"limits": LIMITS, "timing": BRISK, **settings}
    with QuirkyServer(CONTENT, script) as server, Fetcher(**options) as fetcher:  # type: ignore[arg-type]
        yield server, fetcher


def check(source: UrlSource, ranges: list[Range] = RANGES, *, ordered: bool = False) -> UrlSource:
    """Fetch `ranges` and compare every byte; each position comes once."""
    got = list(source.fetch(ranges, ordered=ordered))
    if ordered:
        assert [position for position, _ in got] == list(range(len(ranges)))
    assert sorted(position for position, _ in got) == list(range(len(ranges)))
    for position, content in got:
        assert content == CONTENT[ranges[position].offset : ranges[position].end]
    return source


def run(script: Script, *, ordered: bool = False) -> tuple[UrlSource, QuirkyServer]:
    with serving(script) as (server, fetcher):
        return check(fetcher.open(server.url + "/f"), ordered=ordered), server


def fails(script: Script, kind: type[RegraftError]) -> RegraftError:
    with serving(script) as (server, fetcher), pytest.raises(kind) as caught:
        list(fetcher.open(server.url + "/f").fetch(RANGES))
    assert type(caught.value) is kind
    assert caught.value.cure
    return caught.value


both_orders = pytest.mark.parametrize("ordered", [False, True], ids=["as-they-come", "ordered"])


# what a server makes of several ranges


@both_orders
def test_flawless_server_gets_one_request(ordered: bool) -> None:
    source, server = run(Exchange.good, ordered=ordered)
    assert len(server.log) == 1
    assert source.stats.level is Level.MANY
    assert source.size == len(CONTENT)


@both_orders
def test_200_instead_of_206_is_used_at_once_as_a_stream(ordered: bool) -> None:
    source, server = run(Exchange.whole, ordered=ordered)
    assert len(server.log) == 1
    assert source.stats.level is not Level.MANY


def test_200_to_every_request_is_asked_for_without_ranges_in_the_end() -> None:
    with serving(Exchange.whole) as (server, fetcher):
        for _ in range(3):
            check(fetcher.open(server.url + "/f"))
        assert [bool(exchange.spans) for exchange in server.log] == [True, True, False]


@both_orders
def test_only_the_first_range_leads_to_one_per_request(ordered: bool) -> None:
    source, server = run(lambda exchange: exchange.single(exchange.spans[0]), ordered=ordered)
    assert source.stats.level is Level.SINGLE
    # The range that came with the first answer is not asked for again; how many of the others are joined across a gap
    # depends on the link as measured, i.e. on how busy this machine is.
    assert all(len(exchange.spans) == 1 for exchange in server.log[1:])
    assert 1 < len(server.log) <= len(RANGES)
    first = server.log[0].spans[0]
    assert first not in [exchange.spans[0] for exchange in server.log[1:]]


def test_parts_coalesced_into_one_part() -> None:
    _, server = run(lambda exchange: exchange.multipart([(exchange.spans[0][0], exchange.spans[-1][1])]))
    assert len(server.log) == 1


def test_neighbouring_parts_coalesced() -> None:
    def script(exchange: Exchange) -> None:
        spans = exchange.spans
        exchange.multipart([(a[0], b[1]) for a, b in zip(spans[::2], spans[1::2], strict=True)])

    assert len(RANGES) % 2 == 0
    _, server = run(script)
    assert len(server.log) == 1


def test_all_ranges_coalesced_into_a_plain_206() -> None:
    run(lambda exchange: exchange.single((exchange.spans[0][0], exchange.spans[-1][1])))


@both_orders
def test_parts_in_reverse_order(ordered: bool) -> None:
    _, server = run(lambda exchange: exchange.multipart(exchange.spans[::-1]), ordered=ordered)
    assert len(server.log) == 1


def test_parts_split_and_shuffled() -> None:
    def script(exchange: Exchange) -> None:
        pieces = []
        for start, end in exchange.spans:
            pieces += [(start, start + 100), (start + 100, start + 101), (start + 101, end)]
        random.Random(1).shuffle(pieces)
        exchange.multipart(pieces)

    _, server = run(script)
    assert len(server.log) == 1


def test_overlapping_and_duplicate_parts() -> None:
    def script(exchange: Exchange) -> None:
        wider = [(start - 50, end + 50) for start, end in exchange.spans]
        exchange.multipart([span for span in wider for _ in range(2)])

    _, server = run(script)
    assert len(server.log) == 1


def test_some_parts_left_out_are_asked_for_again() -> None:
    def script(exchange: Exchange) -> None:
        if len(exchange.spans) > 1:
            exchange.multipart(exchange.spans[1::2])
        else:
            exchange.good()

    run(script)


def test_206_with_the_whole_file_is_a_stream() -> None:
    _, server = run(lambda exchange: exchange.single((0, len(CONTENT))))
    assert len(server.log) == 1


def test_206_for_one_range_as_a_multipart_of_one() -> None:
    run(lambda exchange: exchange.multipart(exchange.spans[:1]))


def test_server_that_caps_the_length_of_a_range() -> None:
    ranges = [Range(100, 50_000), Range(100_000, 30_000)]
    with serving(lambda e: e.single((e.spans[0][0], min(e.spans[0][1], e.spans[0][0] + 7000)))) as (server, fetcher):
        check(fetcher.open(server.url + "/f"), ranges)


# how a multipart answer is written


@pytest.mark.parametrize(
    ("boundary", "kind"),
    [
        ("THIS_STRING_SEPARATES_MULTIPART", "multipart/byteranges; boundary=THIS_STRING_SEPARATES_MULTIPART"),
        ("UPPER", "multipart/byteranges; boundary=upper"),
        ("quo ted", 'multipart/byteranges; boundary="quo ted"'),
        ("0123", "multipart/byteranges;boundary=0123"),
        ("0123", "Multipart/ByteRanges ; charset=x ; BOUNDARY = 0123"),
        ("=_(odd)?:/'+,.", 'multipart/byteranges; boundary="=_(odd)?:/\'+,."'),
        ("0123", "multipart/byteranges"),
    ],
    ids=["upper-case", "case-differs", "quoted", "no-blank", "loud", "odd", "not-announced"],
)
def test_boundary(boundary: str, kind: str) -> None:
    _, server = run(lambda exchange: exchange.multipart(boundary=boundary, kind=kind))
    assert len(server.log) == 1


def test_lines_that_end_in_lf_only() -> None:
    _, server = run(lambda exchange: exchange.multipart(end="\n"))
    assert len(server.log) == 1


def test_header_names_in_any_case() -> None:
    def script(exchange: Exchange) -> None:
        body = multipart_body(exchange, exchange.spans).replace(b"Content-Range", b"CONTENT-range")
        exchange.reply(206, ["content-TYPE: multipart/byteranges; boundary=0123"], body)

    _, server = run(script)
    assert len(server.log) == 1


def test_no_empty_line_between_part_headers_and_data() -> None:
    def script(exchange: Exchange) -> None:
        body = b"".join(
            f"\r\n--0123\r\n{content_range(exchange, span)}\r\n".encode() + CONTENT[slice(*span)]
            for span in exchange.spans
        )
        exchange.reply(206, ["Content-Type: multipart/byteranges; boundary=0123"], body + b"\r\n--0123--")

    _, server = run(script)
    assert len(server.log) == 1


def test_preamble_and_epilogue() -> None:
    def script(exchange: Exchange) -> None:
        body = b"This is\r\na preamble." + multipart_body(exchange, exchange.spans) + b"and an epilogue"
        exchange.reply(206, ["Content-Type: multipart/byteranges; boundary=0123"], body)

    _, server = run(script)
    assert len(server.log) == 1


def test_closing_delimiter_missing() -> None:
    def script(exchange: Exchange) -> None:
        body = multipart_body(exchange, exchange.spans)[: -len("\r\n--0123--\r\n")]
        exchange.reply(206, ["Content-Type: multipart/byteranges; boundary=0123"], body)

    run(script)


def test_parts_without_content_range_step_down() -> None:
    def script(exchange: Exchange) -> None:
        if len(exchange.spans) == 1:
            exchange.good()
            return
        body = multipart_body(exchange, exchange.spans).replace(b"Content-Range", b"X")
        exchange.reply(206, ["Content-Type: multipart/byteranges; boundary=0123"], body)

    source, _ = run(script)
    assert source.stats.level is Level.SINGLE


def test_headers_of_a_part_without_end_step_down() -> None:
    def script(exchange: Exchange) -> None:
        if len(exchange.spans) == 1:
            exchange.good()
        else:
            body = b"--0123\r\n" + b"A: b\r\n" * 20_000
            exchange.reply(206, ["Content-Type: multipart/byteranges; boundary=0123"], body)

    run(script)


def test_wrong_part_length_steps_down() -> None:
    def script(exchange: Exchange) -> None:
        if len(exchange.spans) == 1:
            exchange.good()
            return
        body = multipart_body(exchange, exchange.spans)
        exchange.reply(206, ["Content-Type: multipart/byteranges; boundary=0123"], body[:1500] + body[1600:])

    with serving(script) as (server, fetcher):
        # what came before the damage was placed as its headers say: that is for digests to find
        assert len(list(fetcher.open(server.url + "/f").fetch(RANGES))) == len(RANGES)


def test_parts_without_end_are_bounded() -> None:
    def script(exchange: Exchange) -> None:
        if len(exchange.spans) == 1:
            exchange.good()
            return
        exchange.send(b"HTTP/1.1 206 X\r\nContent-Type: multipart/byteranges; boundary=0123\r\n\r\n")
        part = multipart_body(exchange, exchange.spans[:1])[: -len("\r\n--0123--\r\n")]
        while not exchange.server.released.is_set():
            exchange.send(part * 50)

    source, _ = run(script)
    assert source.stats.bytes < 20 * len(CONTENT)


# connections


def cut_after(count: int, times: int) -> Script:
    """The first `times` answers end after `count` bytes of their body."""

    def script(exchange: Exchange) -> None:
        if exchange.number >= times:
            exchange.good()
            return
        if len(exchange.spans) > 1:
            body = multipart_body(exchange, exchange.spans)
            kind = "Content-Type: multipart/byteranges; boundary=0123"
        else:
            body = CONTENT[slice(*exchange.spans[0])]
            kind = content_range(exchange, exchange.spans[0])
        exchange.reply(206, [kind], body[:count], length=len(body))
        exchange.close()

    return script


LENGTH = sum(wanted.length for wanted in RANGES)


@pytest.mark.parametrize("count", [0, 1, 30, 60, 100, 101, 400, 450, 500, *range(1000, LENGTH, 1711)])
def test_cut_in_the_middle(count: int) -> None:
    source, server = run(cut_after(count, 1))
    assert source.stats.retries <= 1
    # only what was missing was asked for again: nothing complete, and not the part of a range that had arrived
    again = sum(end - start for exchange in server.log[1:] for start, end in exchange.spans)
    assert again <= LENGTH - max(0, count - 120 * len(RANGES))


@pytest.mark.slow
def test_cut_at_hundreds_of_points_costs_no_more_than_what_was_cut() -> None:
    for count in range(0, LENGTH + 120 * len(RANGES), 37):
        with serving(cut_after(count, 1), timing=Clock().timing()) as (server, fetcher):
            source = check(fetcher.open(server.url + "/f"))
            # headers of parts come again, and the delimiters; data does not
            assert source.stats.bytes <= LENGTH + 2 * 130 * len(RANGES)
            assert len(server.log) <= 2


def test_cut_within_the_headers_is_never_taken_for_an_answer() -> None:
    ranges = RANGES[:1]
    head = b"HTTP/1.1 206 X\r\nContent-Range: bytes 1000-1599/200000\r\n"
    head += b'Content-Length: 600\r\nETag: "abcdef"\r\n\r\n'
    assert ranges == [Range(1000, 600)]

    def script(exchange: Exchange) -> None:
        if exchange.number % 2:
            exchange.send(head + CONTENT[1000:1600])
        else:
            exchange.send(head[: exchange.number // 2])
            exchange.close()

    with serving(script, timing=Clock().timing()) as (server, fetcher):
        for _ in range(len(head)):
            source = check(fetcher.open(server.url + "/f"), ranges)
            assert source.stats.requests == 2
            assert source.stats.level is Level.MANY


def test_cut_again_and_again_with_progress_never_gives_up() -> None:
    source, server = run(cut_after(5000, 1000))
    assert len(server.log) > LIMITS.retries
    assert source.stats.bytes < 2 * LENGTH


def test_a_large_range_is_resumed_where_it_was_cut() -> None:
    with serving(cut_after(30_000, 4)) as (server, fetcher):
        check(fetcher.open(server.url + "/f"), [Range(10, 150_000)])
        assert [exchange.spans for exchange in server.log] == [
            [(10 + done, 150_010)] for done in (0, 30_000, 60_000, 90_000, 120_000)
        ]


def test_reset_without_an_answer_again_and_again_gives_up() -> None:
    error = fails(Exchange.close, TransportError)
    assert f"{LIMITS.retries} tries" in str(error)


def test_connection_per_request() -> None:
    def script(exchange: Exchange) -> None:
        exchange.good("Connection: close")
        exchange.close()

    run(script)


def test_connection_closed_without_a_word() -> None:
    def script(exchange: Exchange) -> None:
        exchange.single(exchange.spans[0])
        exchange.close()

    run(script)


def test_stalled_answer_is_given_up_and_resumed() -> None:
    def script(exchange: Exchange) -> None:
        if exchange.number:
            exchange.good()
            return
        body = multipart_body(exchange, exchange.spans)
        exchange.reply(206, ["Content-Type: multipart/byteranges; boundary=0123"], body[:8000], length=len(body))
        exchange.server.released.wait(10)

    run(script)


@pytest.mark.slow
def test_stalled_for_ever() -> None:
    def script(exchange: Exchange) -> None:
        exchange.server.released.wait(10)

    fails(script, StallError)


def test_headers_that_trickle_are_given_up() -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 206 X\r\nX: ")
        while not exchange.server.released.wait(0.1):
            exchange.send(b"x")

    limits = replace(LIMITS, connect_timeout=0.3, retries=1)
    began = time.monotonic()
    with serving(script, limits=limits) as (server, fetcher), pytest.raises(StallError):
        list(fetcher.open(server.url + "/f").fetch(RANGES))
    assert time.monotonic() - began < 5


def test_drip_below_the_least_speed_is_given_up() -> None:
    def script(exchange: Exchange) -> None:
        start, end = exchange.spans[0]
        exchange.reply(206, [content_range(exchange, (start, end))], b"", length=end - start)
        for byte in CONTENT[start:end]:
            exchange.send(bytes([byte]))
            if exchange.server.released.wait(0.05):
                return

    limits = replace(LIMITS, retries=2, ranges_per_request=1)
    with serving(script, limits=limits) as (server, fetcher), pytest.raises(StallError):
        list(fetcher.open(server.url + "/f").fetch(RANGES))


def test_slow_above_the_least_speed_is_patience() -> None:
    def script(exchange: Exchange) -> None:
        start, end = exchange.spans[0]
        exchange.reply(206, [content_range(exchange, (start, end))], b"", length=end - start)
        for at in range(start, end, 100):
            exchange.send(CONTENT[at : min(at + 100, end)])
            time.sleep(0.02)

    with serving(script, limits=replace(LIMITS, ranges_per_request=1)) as (server, fetcher):
        source = check(fetcher.open(server.url + "/f"), RANGES[:2])
        assert source.stats.retries == 0


def test_content_length_larger_than_the_body() -> None:
    def script(exchange: Exchange) -> None:
        start, end = exchange.spans[0]
        exchange.reply(206, [content_range(exchange, (start, end))], CONTENT[start:end], length=end - start + 999)
        exchange.close()

    run(script)


def test_content_length_smaller_than_the_range() -> None:
    def script(exchange: Exchange) -> None:
        start, end = exchange.spans[0]
        exchange.reply(206, [content_range(exchange, (start, end))], CONTENT[start:end], length=(end - start) // 2 + 1)
        exchange.close()

    # How often a connection that is about to close is used again, in vain, depends on how busy this machine is.
    limits = replace(LIMITS, low_speed_time=1e9, retries=40)
    with serving(script, limits=limits, timing=Clock().timing()) as (server, fetcher):
        check(fetcher.open(server.url + "/f"))


@pytest.mark.parametrize("length", ["-5", "abc", "1e9", "9" * 40])
def test_content_length_that_is_nonsense(length: str) -> None:
    def script(exchange: Exchange) -> None:
        start, end = exchange.spans[0]
        head = f"HTTP/1.1 206 X\r\n{content_range(exchange, (start, end))}\r\nContent-Length: {length}\r\n\r\n"
        exchange.send(head.encode() + CONTENT[start:end])
        exchange.close()

    with serving(script) as (server, fetcher), suppress(TransportError):
        check(fetcher.open(server.url + "/f"))


def test_chunked_encoding() -> None:
    def script(exchange: Exchange) -> None:
        body = multipart_body(exchange, exchange.spans)
        coded = b"".join(
            b"%x\r\n%s\r\n" % (len(body[i : i + 777]), body[i : i + 777]) for i in range(0, len(body), 777)
        )
        kind = "Content-Type: multipart/byteranges; boundary=0123"
        exchange.reply(206, [kind, "Transfer-Encoding: chunked"], coded + b"0\r\n\r\n")

    _, server = run(script)
    assert len(server.log) == 1


def endless(exchange: Exchange, head: str) -> None:
    exchange.send(f"HTTP/1.1 {head}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    piece = b"10000\r\n" + bytes(65536) + b"\r\n"
    while not exchange.server.released.is_set():
        exchange.send(piece)


def test_endless_range_is_cut_at_its_end() -> None:
    def script(exchange: Exchange) -> None:
        start, end = exchange.spans[0]
        exchange.send(
            f"HTTP/1.1 206 X\r\nTransfer-Encoding: chunked\r\n{content_range(exchange, (start, end))}\r\n\r\n".encode()
        )
        exchange.send(b"%x\r\n%s\r\n" % (end - start, CONTENT[start:end]))
        while not exchange.server.released.is_set():
            exchange.send(b"10000\r\n" + bytes(65536) + b"\r\n")

    run(script)


def test_endless_whole_file_is_left_once_all_is_there() -> None:
    with serving(lambda exchange: endless(exchange, "200 X")) as (server, fetcher):
        assert len(list(fetcher.open(server.url + "/f").fetch(RANGES))) == len(RANGES)


def test_endless_small_file_is_refused() -> None:
    with serving(lambda exchange: endless(exchange, "200 X")) as (server, fetcher), pytest.raises(LimitError):
        fetcher.get(server.url + "/f", 100_000)


@pytest.mark.parametrize("headers", ["X: " + "y" * 100_000, "\r\n".join(f"X{i}: y" for i in range(500))])
def test_huge_headers(headers: str) -> None:
    fails(lambda exchange: exchange.good(headers), TransportError)


@pytest.mark.parametrize(
    "answer", [b"rubbish\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\0" * 100_000, b"HTTP/9.9 206 X\r\n\r\n"]
)
def test_no_http_at_all(answer: bytes) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(answer)
        exchange.close()

    fails(script, TransportError)


# compression


def test_gzip_by_a_proxy_of_the_whole_file_is_undone() -> None:
    body = gzip.compress(CONTENT)
    run(lambda exchange: exchange.reply(200, ["Content-Encoding: gzip"], body))


def test_gzip_by_a_proxy_of_ranges_leads_to_the_whole_file() -> None:
    def script(exchange: Exchange) -> None:
        if exchange.spans:
            start, end = exchange.spans[0]
            exchange.reply(206, ["Content-Encoding: gzip", content_range(exchange, (start, end))], CONTENT[start:end])
        else:
            exchange.reply(200, ["Content-Encoding: gzip"], gzip.compress(CONTENT))

    source, _ = run(script)
    assert source.stats.level is Level.STREAM


def test_gzip_of_a_small_file_is_undone_and_a_bomb_is_bounded() -> None:
    bomb, small = gzip.compress(bytes(50 << 20)), gzip.compress(CONTENT)
    with (
        serving(lambda e: e.reply(200, ["Content-Encoding: gzip"], bomb)) as (server, fetcher),
        pytest.raises(LimitError),
    ):
        fetcher.get(server.url + "/f", 1 << 20)
    with serving(lambda e: e.reply(200, ["Content-Encoding: gzip"], small)) as (server, fetcher):
        assert fetcher.get(server.url + "/f", len(CONTENT)) == CONTENT


def test_damaged_gzip() -> None:
    body = gzip.compress(CONTENT)
    fails(lambda e: e.reply(200, ["Content-Encoding: gzip"], body[:100] + bytes(100) + body[200:]), TransportError)


def test_an_encoding_nobody_knows() -> None:
    fails(lambda exchange: exchange.whole("Content-Encoding: br"), TransportError)


def test_no_encoding_is_asked_for() -> None:
    _, server = run(Exchange.good)
    assert server.log[0].headers["accept-encoding"] == "identity"


# files that change


def changing(before: str, after: str) -> Script:
    def script(exchange: Exchange) -> None:
        header = after if exchange.number else before
        if exchange.spans:
            exchange.single(exchange.spans[0], header)
        else:
            exchange.whole(header)

    return script


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('ETag: "a"', 'ETag: "b"'),
        ('ETag: W/"a"', 'ETag: W/"b"'),
        ("Last-Modified: Fri, 20 Nov 2026 10:00:00 GMT", "Last-Modified: Fri, 20 Nov 2026 10:00:01 GMT"),
    ],
)
def test_changed_file_is_noticed(before: str, after: str) -> None:
    fails(changing(before, after), ChangedError)


def test_weak_and_strong_forms_of_one_etag_are_one_file() -> None:
    run(changing('ETag: "a"', 'ETag: W/"a"'))


def test_changed_size_without_etag_is_noticed() -> None:
    def script(exchange: Exchange) -> None:
        start, end = exchange.spans[0]
        size = len(CONTENT) + exchange.number
        exchange.reply(206, [f"Content-Range: bytes {start}-{end - 1}/{size}"], CONTENT[start:end])

    fails(script, ChangedError)


def test_changed_size_within_a_multipart_answer_is_noticed() -> None:
    def script(exchange: Exchange) -> None:
        body = multipart_body(exchange, exchange.spans)
        head, _, tail = body.rpartition(b"/200000")
        exchange.reply(206, ["Content-Type: multipart/byteranges; boundary=0123"], head + b"/200001" + tail)

    fails(script, ChangedError)


def test_if_range_names_the_file_that_was_begun_with() -> None:
    _, server = run(lambda exchange: exchange.single(exchange.spans[0], 'ETag: "a"'))
    assert "if-range" not in server.log[0].headers
    assert {exchange.headers["if-range"] for exchange in server.log[1:]} == {'"a"'}


def test_if_range_with_a_weak_etag_uses_the_date() -> None:
    date = "Fri, 20 Nov 2026 10:00:00 GMT"
    _, server = run(lambda e: e.single(e.spans[0], 'ETag: W/"a"', f"Last-Modified: {date}"))
    assert server.log[1].headers["if-range"] == date


def test_if_range_answered_with_the_new_file_never_mixes() -> None:
    def script(exchange: Exchange) -> None:
        if exchange.number:
            exchange.reply(200, ['ETag: "b"'], CONTENT[::-1])
        else:
            exchange.single(exchange.spans[0], 'ETag: "a"')

    fails(script, ChangedError)


def test_captive_portal() -> None:
    fails(lambda e: e.reply(200, ["Content-Type: text/html"], b"<html>Please log in</html>"), ChangedError)


def test_range_beyond_the_end_of_a_known_file() -> None:
    with serving(Exchange.good) as (server, fetcher), pytest.raises(ChangedError):
        list(fetcher.open(server.url + "/f", size=1000).fetch([Range(900, 101)]))


# statuses


@pytest.mark.parametrize("status", [401, 403, 404, 405, 410, 451])
def test_refusal_is_final(status: int) -> None:
    error = fails(lambda exchange: exchange.reply(status), StatusError)
    assert isinstance(error, StatusError)
    assert error.status == status


def test_416_with_a_smaller_size_is_a_changed_file() -> None:
    fails(lambda exchange: exchange.reply(416, ["Content-Range: bytes */5000"]), ChangedError)


@pytest.mark.parametrize("status", [400, 413, 416, 431, 501])
def test_refusal_of_many_ranges_steps_down(status: int) -> None:
    source, _ = run(lambda e: e.good() if len(e.spans) == 1 else e.reply(status))
    assert source.stats.level is Level.SINGLE


@pytest.mark.parametrize("status", [400, 416, 431])
def test_refusal_of_any_range_leads_to_the_whole_file(status: int) -> None:
    source, _ = run(lambda e: e.reply(status) if e.spans else e.whole())
    assert source.stats.level is Level.STREAM


def test_refusal_of_everything_ends() -> None:
    error = fails(lambda exchange: exchange.reply(400), StatusError)
    assert isinstance(error, StatusError)
    assert error.status == 400


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_trouble_that_passes(status: int) -> None:
    source, _ = run(lambda e: e.good() if e.number else e.reply(status))
    assert source.stats.retries == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_trouble_that_stays(status: int) -> None:
    error = fails(lambda exchange: exchange.reply(status), StatusError)
    assert isinstance(error, StatusError)
    assert error.status == status


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def timing(self) -> Timing:
        return Timing(lambda: self.now, lambda: 1_700_000_000 + self.now, self.sleep, lambda: 0.0)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("7", 7, 7.5),
        ("Tue, 14 Nov 2023 22:30:30 GMT", 30, 30.5),  # the clock of the test says 22:30:00
        ("999999999", 60, 60.5),
        ("-5", 0, 1),
        ("nan", 0, 1),
        ("inf", 0, 1),
        ("tomorrow", 0, 1),
        ("Mon, 99 Foo 99999999999999999999 99:99:99 GMT", 0, 1),
    ],
)
def test_retry_after(text: str, least: float, most: float) -> None:
    clock = Clock()
    script: Script = lambda e: e.good() if e.number else e.reply(503, [f"Retry-After: {text}"])  # noqa: E731
    with serving(script, timing=clock.timing(), limits=replace(LIMITS, retry_wait=60)) as (server, fetcher):
        check(fetcher.open(server.url + "/f"))
    assert least <= clock.now - 1000 <= most


# redirects


def redirect(target: str, status: int = 302) -> Script:
    return lambda e: e.good() if e.path == "/real" else e.reply(status, [f"Location: {target}"])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(status: int) -> None:
    _, server = run(redirect("/real", status))
    assert server.log[1].headers["range"] == server.log[0].headers["range"]


def test_redirect_is_followed_once_for_all_requests() -> None:
    script: Script = lambda e: e.single(e.spans[0]) if e.path == "/real" else e.reply(302, ["Location: real"])  # noqa: E731
    _, server = run(script)
    assert sum(exchange.path == "/f" for exchange in server.log) == 1


def test_redirect_to_another_host_takes_no_secrets_along() -> None:
    with QuirkyServer(CONTENT) as other:
        target = other.url.replace("127.0.0.1", "localhost")
        policy = Policy(authorization="TargetToken secret", headers=(("X-Api-Key", "secret"),))
        with serving(lambda e: e.reply(302, [f"Location: {target}/real"]), policy=policy) as (server, fetcher):
            check(fetcher.open(server.url.replace("//", "//user:secret@") + "/f"))
        assert server.log[0].headers["authorization"] == "TargetToken secret"
        assert server.log[0].headers["x-api-key"] == "secret"
        assert "secret" not in str(other.log[0].headers)
        assert not {"authorization", "x-api-key"} & set(other.log[0].headers)


def test_redirect_to_a_place_that_expires_starts_over() -> None:
    def script(exchange: Exchange) -> None:
        if exchange.path == "/f":
            exchange.reply(302, [f"Location: /signed-{exchange.number}"])
        elif exchange.path == "/signed-0" and exchange.number > 4:
            exchange.reply(403)
        else:
            exchange.single(exchange.spans[0])

    run(script)


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/f", "gopher://x", "", "http://", "//[", "javascript:1"]
)
def test_redirect_to_another_scheme_or_nowhere(target: str) -> None:
    fails(redirect(target), RedirectError)


def test_redirect_to_a_host_that_is_not_allowed() -> None:
    policy = Policy(redirect_hosts=frozenset())
    script: Script = lambda e: e.reply(302, [f"Location: {e.server.url.replace('127.0.0.1', 'localhost')}/real"])  # noqa: E731
    with serving(script, policy=policy) as (server, fetcher), pytest.raises(RedirectError):
        list(fetcher.open(server.url + "/f").fetch(RANGES))


def test_redirect_loop() -> None:
    with serving(redirect("/f")) as (server, fetcher), pytest.raises(RedirectError):
        list(fetcher.open(server.url + "/f").fetch(RANGES))
    assert len(server.log) == LIMITS.redirects + 1


# wrong ranges


@pytest.mark.parametrize(
    "text",
    [
        "bytes 0-9/200000",
        "bytes 5-1/200000",
        "bytes 0-300000/200000",
        "bytes */200000",
        "lines 1-2/3",
        "bytes ²-5/9",
        "",
    ],
)
def test_wrong_content_range_leads_to_the_whole_file(text: str) -> None:
    def script(exchange: Exchange) -> None:
        if not exchange.spans:
            exchange.whole()
            return
        start, end = exchange.spans[0]
        exchange.send(
            b"HTTP/1.1 206 X\r\nContent-Range: %s\r\nContent-Length: %d\r\n\r\n" % (text.encode(), end - start)
        )
        exchange.send(CONTENT[start:end])

    source, _ = run(script)
    assert source.stats.level is Level.STREAM


def test_206_without_content_range_leads_to_the_whole_file() -> None:
    source, _ = run(lambda e: e.reply(206, [], CONTENT[slice(*e.spans[0])]) if e.spans else e.whole())
    assert source.stats.level is Level.STREAM


def test_206_to_a_request_for_the_whole_file() -> None:
    hosts = HostMemory()
    with serving(lambda e: e.single((0, 100)), hosts=hosts) as (server, fetcher):
        hosts.note(server.url, Level.STREAM, None, time.time())
        with pytest.raises(TransportError):
            list(fetcher.open(server.url + "/f").fetch(RANGES))


# the caller


def test_memory_in_flight_is_bounded_and_order_never_blocks() -> None:
    ranges = [Range(offset, 1000) for offset in range(0, 200_000, 1000)]
    for script in (Exchange.good, Exchange.whole, lambda e: e.single(e.spans[0])):
        for buffer in (1, 1500, 4000, 30_000):
            with serving(script, limits=replace(LIMITS, buffer=buffer)) as (server, fetcher):
                check(fetcher.open(server.url + "/f"), ranges, ordered=True)


@both_orders
def test_failures_of_all_kinds_with_a_tiny_buffer_never_block(ordered: bool) -> None:
    chance = random.Random(5)
    lock = threading.Lock()

    def script(exchange: Exchange) -> None:
        with lock:
            kind = chance.randrange(4)
        if kind == 0:
            cut_after(700, 1_000_000)(exchange) if exchange.spans else exchange.whole()
        elif kind == 1:
            exchange.single(exchange.spans[-1]) if exchange.spans else exchange.whole()
        elif kind == 2 and exchange.number > 30:
            exchange.whole()
        else:
            exchange.good()

    ranges = [Range(offset, 900) for offset in range(0, 200_000, 1000)]
    for _ in range(5):
        limits = replace(LIMITS, buffer=2500, retries=50, low_speed_time=1e9)
        with serving(script, limits=limits, timing=Clock().timing()) as (server, fetcher):
            check(fetcher.open(server.url + "/f"), ranges, ordered=ordered)


def test_a_slow_caller_holds_the_stream_back_without_harm() -> None:
    ranges = [Range(offset, 10_000) for offset in range(0, 200_000, 20_000)]
    with serving(Exchange.whole, limits=replace(LIMITS, buffer=20_000)) as (server, fetcher):
        for position, content in fetcher.open(server.url + "/f").fetch(ranges, ordered=True):
            time.sleep(0.1)  # together longer than the idle time-out
            assert content == CONTENT[ranges[position].offset : ranges[position].end]
    assert len(server.log) == 1


def test_closing_ends_all_transfers_at_once() -> None:
    def script(exchange: Exchange) -> None:
        start, end = exchange.spans[0]
        exchange.reply(
            206,
            [content_range(exchange, (start, end))],
            CONTENT[start:end] if start < 2000 else b"",
            length=end - start,
        )
        if start >= 2000:
            exchange.server.released.wait(10)

    with serving(script, limits=replace(LIMITS, idle_timeout=30.0, ranges_per_request=1)) as (server, fetcher):
        results = fetcher.open(server.url + "/f").fetch(RANGES)
        next(results)
        began = time.monotonic()
        results.close()
        assert time.monotonic() - began < 1
        assert not [t for t in threading.enumerate() if t.name.startswith("regraft-fetch")]


def test_what_arrived_is_handed_over_before_the_error() -> None:
    def script(exchange: Exchange) -> None:
        if exchange.number == 0:
            exchange.multipart(exchange.spans[:5])
        else:
            exchange.reply(404)

    with serving(script) as (server, fetcher):
        results = fetcher.open(server.url + "/f").fetch(RANGES)
        got = [next(results)[0] for _ in range(5)]
        with pytest.raises(StatusError):
            next(results)
    assert got == [0, 1, 2, 3, 4]


def test_what_a_host_can_do_is_remembered() -> None:
    hosts = HostMemory()
    with serving(lambda e: e.single(e.spans[0]), hosts=hosts) as (server, fetcher):
        check(fetcher.open(server.url + "/f"))
        before = len(server.log)
        with Fetcher(limits=LIMITS, timing=BRISK, hosts=HostMemory.parse(hosts.dump())) as second:
            check(second.open(server.url + "/f"))
        assert all(len(exchange.spans) == 1 for exchange in server.log[before:])


@pytest.mark.parametrize(
    ("ranges", "kind"),
    [
        ([Range(10, 5), Range(12, 5)], ValueError),
        ([Range(10, 5), Range(0, 5)], ValueError),
        ([Range(0, DEFAULT.stored_size + 1)], LimitError),
    ],
)
def test_ranges_that_break_the_rules(ranges: list[Range], kind: type[Exception]) -> None:
    with serving(Exchange.good) as (server, fetcher), pytest.raises(kind):
        list(fetcher.open(server.url + "/f").fetch(ranges))


def test_empty_ranges_and_no_ranges() -> None:
    with serving(Exchange.good) as (server, fetcher):
        source = fetcher.open(server.url + "/f")
        assert list(source.fetch([])) == []
        assert list(source.fetch([Range(5, 0), Range(9, 0)])) == [(0, b""), (1, b"")]
        assert server.log == []
        check(source, [Range(5, 0), Range(5, 10), Range(15, 0), Range(15, 5)], ordered=True)


def test_get() -> None:
    with serving(lambda e: e.whole() if e.number > 1 else e.reply(503)) as (server, fetcher):
        assert fetcher.get(server.url + "/f", len(CONTENT)) == CONTENT
    with serving(Exchange.whole) as (server, fetcher), pytest.raises(LimitError):
        fetcher.get(server.url + "/f", len(CONTENT) - 1)
    with serving(lambda e: e.reply(404)) as (server, fetcher), pytest.raises(StatusError):
        fetcher.get(server.url + "/f", 10)


def test_proxy_is_asked_with_its_own_credentials_only() -> None:
    with QuirkyServer(CONTENT) as proxy:
        policy = Policy(proxy=proxy.url.replace("//", "//me:pass@"))
        with Fetcher(policy, LIMITS, timing=BRISK) as fetcher:
            check(fetcher.open("http://files.example/f"))
        assert proxy.log[0].path == "http://files.example/f"
        assert proxy.log[0].headers["proxy-authorization"] == "Basic bWU6cGFzcw=="
        assert "authorization" not in proxy.log[0].headers


def test_proxy_that_wants_credentials() -> None:
    with QuirkyServer(CONTENT, lambda e: e.reply(407)) as proxy:
        policy = Policy(environment={"http_proxy": proxy.url})
        with Fetcher(policy, LIMITS, timing=BRISK) as fetcher, pytest.raises(StatusError) as caught:
            fetcher.get("http://files.example/f", 10)
        assert caught.value.status == 407
        assert "proxy" in caught.value.cure


def test_nobody_listens() -> None:
    with QuirkyServer(CONTENT) as server:
        url = server.url
    with Fetcher(limits=LIMITS, timing=BRISK) as fetcher, pytest.raises(TransportError):
        list(fetcher.open(url + "/f").fetch(RANGES))
