# SPDX-License-Identifier: Apache-2.0
"""The kernel's NBD client, attached by nbd-client, on images that `regraft nbd` serves: every file is as it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from lab import HOST, Guest
from trees import FILE_SYSTEMS, Images, make_images

ON_CLIENTS = ("-b", "4096", "-readonly")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def port(images: Images) -> Iterator[int]:
    """The TCP port of a `regraft nbd` on the host that serves all images."""
    command = [sys.executable, "-m", "regraft.cli", "nbd", "--json", "--port", "0", *map(str, images.images.values())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            uri = json.loads(server.stdout.readline())["uri"]
            yield int(uri.rpartition(":")[2].partition("/")[0])
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0


def attach_and_read(client: list[str], device: str, kind: str) -> dict[str, str]:
    """In the guest: the digests of all files of the file system behind the device."""
    from lab import inside

    inside.run("nbd-client", *client)
    try:
        with inside.mounted(device, "/mnt/image", kind):
            return inside.digests("/mnt/image")
    finally:
        inside.run("nbd-client", "-d", device)


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_a_server_on_the_host(guest: Guest, images: Images, port: int, kind: str) -> None:
    client = [HOST, str(port), "/dev/nbd0", "-N", kind, *ON_CLIENTS]
    assert same(guest.call(attach_and_read, client, "/dev/nbd0", kind), images)


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_a_server_in_the_guest(guest: Guest, images: Images, kind: str) -> None:
    path = guest.put(images.images[kind], f"/tmp/images/{kind}")
    server = guest.start("regraft", "nbd", path, "--socket", "/run/nbd.sock")
    server.until("nbd+unix:")
    client = ["-unix", "/run/nbd.sock", "/dev/nbd1", "-N", kind, *ON_CLIENTS]
    assert same(guest.call(attach_and_read, client, "/dev/nbd1", kind), images)
    server.signal(signal.SIGTERM)
    assert server.wait().status == 0


def test_several_connections(guest: Guest, images: Images, port: int) -> None:
    def whole(client: list[str]) -> str:
        import concurrent.futures
        import hashlib
        import os

        from lab import inside

        inside.run("nbd-client", *client)
        handle = os.open("/dev/nbd2", os.O_RDONLY)
        try:
            size, piece = os.lseek(handle, 0, os.SEEK_END), 1 << 16
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                parts = pool.map(lambda start: os.pread(handle, piece, start), range(0, size, piece))
                return hashlib.sha256(b"".join(parts)).hexdigest()
        finally:
            os.close(handle)
            inside.run("nbd-client", "-d", "/dev/nbd2")

    import hashlib

    client = [HOST, str(port), "/dev/nbd2", "-N", "ext4", "-C", "4", *ON_CLIENTS]
    assert guest.call(whole, client) == hashlib.sha256(images.images["ext4"].read_bytes()).hexdigest()


def test_the_kernel_learns_that_images_are_read_only(guest: Guest, port: int) -> None:
    def write(client: list[str]) -> str:
        import os

        from lab import inside

        inside.run("nbd-client", *client)
        handle = os.open("/dev/nbd3", os.O_RDWR)
        try:
            os.pwrite(handle, bytes(4096), 0)
        except PermissionError:
            return "refused"
        finally:
            os.close(handle)
            inside.run("nbd-client", "-d", "/dev/nbd3")
        return "written"

    assert guest.call(write, [HOST, str(port), "/dev/nbd3", "-N", "ext4", "-b", "4096"]) == "refused"


def same(found: dict[str, str], images: Images) -> bool:
    """Whether the guest saw the tree. mke2fs adds a folder without files."""
    assert found == images.files
    return bool(found)
