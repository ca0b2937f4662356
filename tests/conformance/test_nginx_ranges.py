# SPDX-License-Identifier: Apache-2.0
"""Our client against nginx in the ways it is set up in the field, and our server beside nginx, answer by answer."""

from __future__ import annotations

import http.client
import random
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from servers import nginx

from regraft.engine.ranges import Range
from regraft.server.static import StaticServer
from regraft.transports.fetcher import Fetcher
from regraft.transports.ladder import Level
from regraft.transports.multipart import MultipartParser

CONTENT = random.Random(11).randbytes(3_000_000)
RANGES = [Range(offset, 2000 + offset % 5000) for offset in range(0, 2_900_000, 29_000)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    www = tmp_path / "www"
    www.mkdir()
    (www / "file.bin").write_bytes(CONTENT)
    (www / "text.html").write_bytes(b"some text that gzip likes, " * 20_000)
    (www / "empty").write_bytes(b"")
    return tmp_path


def check(fetcher: Fetcher, url: str, content: bytes = CONTENT, ranges: list[Range] = RANGES) -> Level:
    source = fetcher.open(url)
    got = dict(source.fetch(ranges))
    assert got == {position: content[wanted.offset : wanted.end] for position, wanted in enumerate(ranges)}
    return source.stats.level


@pytest.mark.parametrize(
    ("setting", "level"),
    [("", Level.MANY), ("max_ranges 0;", Level.SINGLE), ("max_ranges 1;", Level.SINGLE), ("etag off;", Level.MANY)],
)
def test_fetching_from_nginx(folder: Path, setting: str, level: Level) -> None:
    with nginx(folder, setting) as url, Fetcher() as fetcher:
        assert check(fetcher, url + "/file.bin") == level
        check(fetcher, url + "/file.bin")


def test_a_host_without_ranges_is_asked_for_none_in_the_end(folder: Path) -> None:
    with nginx(folder, "max_ranges 0;") as url, Fetcher() as fetcher:
        check(fetcher, url + "/file.bin")
        assert check(fetcher, url + "/file.bin") == Level.STREAM


def test_a_host_with_single_ranges_moves_little(folder: Path) -> None:
    with nginx(folder, "max_ranges 1;") as url, Fetcher() as fetcher:
        check(fetcher, url + "/file.bin")
        source = fetcher.open(url + "/file.bin")
        list(source.fetch(RANGES[:10]))
        assert source.stats.bytes < 300_000


def test_nginx_that_would_compress_is_not_asked_to(folder: Path) -> None:
    content = (folder / "www/text.html").read_bytes()
    ranges = [Range(100, 50), Range(400_000, 1000)]
    with nginx(folder, "gzip on;") as url, Fetcher() as fetcher:
        check(fetcher, url + "/text.html", content, ranges)


def test_connection_limits_and_keepalive_of_one_request(folder: Path) -> None:
    with nginx(folder, "keepalive_requests 1; max_ranges 1;") as url, Fetcher() as fetcher:
        check(fetcher, url + "/file.bin")
        check(fetcher, url + "/file.bin")


def test_nginx_that_refuses_too_many_connections(folder: Path) -> None:
    zone = "limit_conn_zone $server_name zone=all:1m; limit_conn_status 503;"
    with nginx(folder, "limit_conn all 1;", within=zone) as url, Fetcher() as fetcher:
        check(fetcher, url + "/file.bin")


def answer(url: str, path: str, headers: dict[str, str], method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, body


def essence(status: int, headers: dict[str, str], body: bytes) -> tuple[object, ...]:
    """What two servers must agree on."""
    kind = headers.get("content-type", "")
    if status >= 400 or status == 304:
        return (status, headers.get("content-range"))
    if kind.startswith("multipart/byteranges"):
        found = re.fullmatch(r"multipart/byteranges; boundary=([0-9]+)", kind)
        assert found is not None
        parser = MultipartParser(found[1].encode())
        parts = [(offset, bytes(view)) for offset, view in parser.feed(body)]
        assert parser.finished
        return (status, "multipart", parts, parser.total)
    return (status, headers.get("content-range"), headers["content-length"], body)


SPECS = [
    "bytes=0-0",
    "bytes=0-",
    "bytes=5-10,20-30",
    "bytes=20-30,5-10",
    "bytes=-5",
    "bytes=-0",
    "bytes=-99999999",
    "bytes=2999999-",
    "bytes=2999999-5000000",
    "bytes=3000000-",
    "bytes=5-10,9000000-",
    "bytes=9000000-,9000001-",
    "bytes= 5 - 10 , 20-30",
    "bytes=5-4",
    "bytes=a-b",
    "bytes=",
    "bytes",
    "lines=1-2",
    "bytes=0-2000000,0-2000000",
    "bytes=10-20,15-25",
    "bytes=0-99999999999999999999999999",
    "Bytes=0-1",
    "bytes=0-1,",
]


@pytest.fixture
def pair(folder: Path) -> Iterator[Callable[..., None]]:
    with ExitStack() as stack:
        theirs = stack.enter_context(nginx(folder, "index none; default_type application/octet-stream;"))
        ours = stack.enter_context(StaticServer(folder / "www")).url

        def compare(path: str, headers: dict[str, str], method: str = "GET") -> None:
            assert essence(*answer(ours, path, headers, method)) == essence(*answer(theirs, path, headers, method))

        yield compare


def test_our_server_answers_ranges_as_nginx_does(pair: Callable[..., None]) -> None:
    for spec in SPECS:
        pair("/file.bin", {"Range": spec})


def test_our_server_answers_the_rest_as_nginx_does(pair: Callable[..., None]) -> None:
    pair("/file.bin", {})
    pair("/file.bin", {}, "HEAD")
    pair("/empty", {})
    pair("/empty", {"Range": "bytes=0-"})
    pair("/nothing", {})
    pair("/file.bin/", {})
    pair("/file.bin", {"If-None-Match": "*"})
    pair("/file.bin", {"If-None-Match": '"other"'})
    pair("/file.bin", {"If-Range": '"other"', "Range": "bytes=0-5"})
    pair("/file.bin", {"If-Range": "Fri, 20 Nov 2020 10:00:00 GMT", "Range": "bytes=0-5"})
