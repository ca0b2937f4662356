# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regraft.limits import DEFAULT
from regraft.server.byteranges import UNSATISFIABLE, WHOLE, select
from regraft.server.static import StaticServer

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "www" / "sub dir").mkdir(parents=True)
    (tmp_path / "www" / "file.bin").write_bytes(CONTENT)
    (tmp_path / "www" / "sub dir" / "ä.txt").write_bytes(b"text")
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[StaticServer]:
    with StaticServer(folder / "www") as running:
        yield running


def ask(
    server: StaticServer, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    connection.request(method, path, headers=headers or {})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, response.headers, body


def raw(server: StaticServer, request: bytes, *, seconds: float = 5.0) -> bytes:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as sock:
        sock.sendall(request)
        answer = b""
        while data := sock.recv(65536):
            answer += data
        return answer


def test_multipart_form_is_the_one_that_swupdate_understands(server: StaticServer) -> None:
    _, headers, body = ask(server, "/file.bin", {"Range": "bytes=10-11,5-6"})
    name, _, boundary = headers["Content-Type"].partition("; boundary=")
    assert name == "multipart/byteranges"
    assert boundary.isdigit()
    part = "\r\n--{}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {}/256000\r\n\r\n"
    expected = (part.format(boundary, "10-11").encode() + b"\x0a\x0b") + (
        part.format(boundary, "5-6").encode() + b"\x05\x06"
    )
    assert body == expected + f"\r\n--{boundary}--\r\n".encode()


def test_large_and_small_parts_are_exact(server: StaticServer) -> None:
    _, _, body = ask(server, "/file.bin", {"Range": "bytes=0-9,100-90000,100000-100001,120000-250000"})
    assert CONTENT[100:90001] in body
    assert CONTENT[120000:250001] in body


def test_connection_is_kept(server: StaticServer) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    for _ in range(3):
        connection.request("GET", "/file.bin", headers={"Range": "bytes=1-2"})
        assert connection.getresponse().read() == b"\x01\x02"
        assert connection.sock is not None
    connection.close()
    assert server.counts.requests == 3
    assert server.counts.body == 6


def test_etag_changes_with_the_file(server: StaticServer, folder: Path) -> None:
    _, before, _ = ask(server, "/file.bin", method="HEAD")
    assert ask(server, "/file.bin", {"If-None-Match": before["ETag"]})[0] == 304
    assert ask(server, "/file.bin", {"Range": "bytes=0-0", "If-Range": before["ETag"]})[0] == 206
    os.utime(folder / "www/file.bin", ns=(1, 1))
    _, after, _ = ask(server, "/file.bin")
    assert before["ETag"] != after["ETag"]
    assert not after["ETag"].startswith("W/")
    assert ask(server, "/file.bin", {"Range": "bytes=0-0", "If-Range": before["ETag"]})[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/%2e%2e/secret",
        "/sub%20dir/../../secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/file.bin%00",
        "/link",
        "/folder/secret",
        "secret",
        "//../secret",
    ],
)
def test_nothing_outside_the_folder(server: StaticServer, folder: Path, path: str) -> None:
    (folder / "www/link").symlink_to(folder / "secret")
    (folder / "www/folder").symlink_to(folder)
    answer = raw(server, f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert answer.split(b" ")[1] == b"404"
    assert b"secret" not in answer


def test_links_within_the_folder_are_followed(server: StaticServer, folder: Path) -> None:
    (folder / "www/latest").symlink_to("file.bin")
    assert ask(server, "/latest")[2] == CONTENT


def test_pipes_and_devices_are_no_files(server: StaticServer, folder: Path) -> None:
    os.mkfifo(folder / "www/pipe")
    assert ask(server, "/pipe")[0] == 404


def test_listing(server: StaticServer, folder: Path) -> None:
    (folder / "www/<b>").write_bytes(b"")
    status, _, page = ask(server, "/")
    assert status == 200
    assert b'href="sub%20dir/"' in page
    assert b"<b>" not in page
    assert ask(server, "/sub%20dir")[1]["Location"] == "/sub%20dir/"
    assert "ä.txt".encode() in ask(server, "/sub%20dir/")[2]
    assert ask(server, "//sub%20dir")[1]["Location"] == "/sub%20dir/"


def test_range_bombs_get_the_whole_file_once(server: StaticServer) -> None:
    many = ",".join(f"{n}-{n}" for n in range(DEFAULT.server_ranges + 1))
    assert ask(server, "/file.bin", {"Range": f"bytes={many}"})[0] == 200
    assert ask(server, "/file.bin", {"Range": "bytes=" + ",".join(["0-200000"] * 100)})[0] == 200


def test_other_methods_are_refused(server: StaticServer) -> None:
    assert ask(server, "/file.bin", method="DELETE")[0] == 501
    assert b" 400 " in raw(server, b"GET /file.bin HTTP/1.1 rubbish\r\n\r\n")


def test_clients_that_trickle_or_stall_are_shown_out(folder: Path) -> None:
    with StaticServer(folder / "www", limits=replace(DEFAULT, idle_timeout=0.3)) as server:
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5) as sock:
            began = time.monotonic()
            try:
                while time.monotonic() - began < 4:
                    sock.sendall(b"G")
                    time.sleep(0.05)
            except OSError:
                pass
            assert time.monotonic() - began < 3


def test_select_is_exact_at_the_edges() -> None:
    assert select(None, 10, most=4) is WHOLE
    assert select("bytes=0-0", 0, most=4) is WHOLE
    assert select("bytes=9-9", 10, most=4).ranges == ((9, 1),)
    assert select("bytes=10-", 10, most=4) is UNSATISFIABLE
    assert select("bytes=-3,0-1", 10, most=4).ranges == ((7, 3), (0, 2))
    assert select("bytes=0-0,1-1,2-2,3-3", 10, most=4).status == 206
    assert select("bytes=0-0,1-1,2-2,3-3,4-4", 10, most=4) is WHOLE
