# SPDX-License-Identifier: Apache-2.0
"""`regraft nbd` against the NBD clients that are in use: libnbd's tools and library, qemu's."""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tools import missing, tool

MIB = 1 << 20
#: An interpreter that has libnbd's bindings; they are packaged for the system's own only.
SYSTEM_PYTHON = "/usr/bin/python3"


@dataclass(frozen=True)
class Served:
    image: Path
    uris: list[str]
    process: subprocess.Popen[str]

    @property
    def uri(self) -> str:
        return self.uris[0]


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[list[dict[str, Any]], subprocess.Popen[str]]]:
    """A running `regraft nbd --json`: what it announced, and its process. It must end well when asked to."""
    images = [argument for argument in arguments if argument.endswith(".img")]  # files, or names of exports
    command = [sys.executable, "-m", "regraft.cli", "nbd", "--json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            lines = [process.stdout.readline() for _ in images]
            assert all(lines), process.stderr.read()
            yield [json.loads(line) for line in lines], process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        assert process.returncode == 0, process.stderr.read()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with holes and text, and one whose size is odd."""
    path = tmp_path_factory.mktemp("nbd")
    chance = random.Random(7)
    with (path / "disk.img").open("wb") as file:
        file.truncate(24 * MIB)
        for start, size in ((0, 3 * MIB), (8 * MIB, 100_000), (20 * MIB, 4 * MIB)):
            file.seek(start)
            file.write(chance.randbytes(size))
    (path / "odd size.img").write_bytes(chance.randbytes(70_001))
    return path


@pytest.fixture(scope="module", params=["unix", "tcp"])
def served(request: pytest.FixtureRequest, folder: Path) -> Iterator[Served]:
    where = ["--socket", str(folder / "socket")] if request.param == "unix" else ["--port", "0"]
    images = [str(folder / "disk.img"), str(folder / "odd size.img")]
    with serving(*images, *where) as (announced, process):
        yield Served(folder / "disk.img", [line["uri"] for line in announced], process)


def run(*command: str) -> str:
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert process.returncode == 0, f"{command}: {process.stderr}"
    return process.stdout


def test_nbdinfo_reads_what_is_said(served: Served) -> None:
    found = json.loads(run(tool("nbdinfo"), "--json", served.uri))
    assert found["structured"] is True
    assert found["TLS"] is False
    (export,) = found["exports"]
    assert export["export-name"] == "disk.img"
    assert export["export-size"] == 24 * MIB
    assert export["contexts"] == ["base:allocation"]
    sizes = [export[f"block_size_{which}"] for which in ("minimum", "preferred", "maximum")]
    assert sizes == [1, 4096, 32 * MIB]
    can = {name: export[name] for name in export if name.startswith(("can_", "is_"))}
    assert {name for name, yes in can.items() if yes} == {
        "can_df", "can_flush", "can_fua", "can_multi_conn", "is_read_only",
    }  # fmt: skip


def test_nbdinfo_lists_all(served: Served) -> None:
    uri = served.uri.replace("disk.img", "")
    found = json.loads(run(tool("nbdinfo"), "--list", "--json", uri))
    assert [(export["export-name"], export["export-size"]) for export in found["exports"]] == [
        ("disk.img", 24 * MIB),
        ("odd size.img", 70_001),
    ]


def test_nbdinfo_maps_holes(served: Served) -> None:
    found = json.loads(run(tool("nbdinfo"), "--map", "--json", served.uri))
    assert sum(extent["length"] for extent in found) == 24 * MIB
    content = served.image.read_bytes()
    for extent in found:
        if extent["type"] == 3:
            assert not any(content[extent["offset"] : extent["offset"] + extent["length"]])
    if served.image.stat().st_blocks * 512 < 24 * MIB:
        assert {extent["type"] for extent in found} == {0, 3}


@pytest.mark.parametrize("options", [(), ("--connections=4", "--requests=64"), ("--synchronous",), ("--no-extents",)])
def test_nbdcopy_copies(served: Served, tmp_path: Path, options: tuple[str, ...]) -> None:
    run(tool("nbdcopy"), *options, served.uri, str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == served.image.read_bytes()


def test_nbdcopy_copies_an_odd_size(served: Served, tmp_path: Path) -> None:
    run(tool("nbdcopy"), served.uris[1], str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == served.image.with_name("odd size.img").read_bytes()


def test_qemu_img_compares_and_maps(served: Served) -> None:
    tool("qemu-img")
    for uri, name in zip(served.uris, ("disk.img", "odd size.img"), strict=True):
        path = str(served.image.with_name(name))
        assert "identical" in run(tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", uri, path)
    found = json.loads(run(tool("qemu-img"), "map", "--output=json", "-f", "raw", served.uri))
    assert sum(extent["length"] for extent in found) == 24 * MIB


def test_qemu_io_reads_and_may_not_write(served: Served) -> None:
    io = [tool("qemu-io"), "-r", "-f", "raw"]
    commands = ["-c", "read -P 0 4M 1M", "-c", "aio_read 0 64k", "-c", "aio_read 20M 4M", "-c", "aio_flush"]
    out = run(*io, *commands, served.uri)
    assert "verification failed" not in out
    assert len(re.findall(r"^read ", out, re.MULTILINE)) == 3
    refused = subprocess.run(
        [tool("qemu-io"), "-f", "raw", "-c", "write 0 512", served.uri], capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert re.search("read-only|Permission denied", refused.stderr + refused.stdout)


def test_through_nbdkit_with_its_filters(served: Served, tmp_path: Path) -> None:
    nbdkit = [tool("nbdkit"), "--exit-with-parent", "-r", "-U", "-", "nbd", f"uri={served.uri}"]
    copy = f'{tool("nbdcopy")} "$uri" {tmp_path / "copy"}'
    for filters in (["--filter=noparallel"], ["--filter=delay", "delay-read=1ms"], ["--filter=blocksize"]):
        name, *parameters = filters
        run(*nbdkit[:1], name, *nbdkit[1:], *parameters, "--run", copy)
        assert (tmp_path / "copy").read_bytes() == served.image.read_bytes()


def libnbd(script: str, uri: str) -> str:
    """Run a script with libnbd's bindings: `h` is connected to the URI, all its own checks are off."""
    probe = subprocess.run([SYSTEM_PYTHON, "-c", "import nbd"], capture_output=True, check=False)
    if probe.returncode:
        missing("python3-libnbd")
    head = "import errno, nbd, sys\nh = nbd.NBD()\nh.add_meta_context('base:allocation')\n"
    head += "h.set_request_structured_replies(sys.argv[2] == 'structured')\nh.connect_uri(sys.argv[1])\n"
    head += "h.set_strict_mode(0)\n"
    head += "def refused(call, *arguments, **more):\n    try:\n        call(*arguments, **more)\n"
    head += "    except nbd.Error as error:\n        return error.errnum\n    return 0\n"
    return "".join(
        run(SYSTEM_PYTHON, "-c", head + script + "\nprint('good')", uri, mode) for mode in ("structured", "simple")
    )


NEGATIVE = """
size = h.get_size()
first = h.pread(512, 0)
for offset, length in ((size, 1), (size - 1, 2), (1 << 62, 512), (0, size + 512)):
    assert refused(h.pread, length, offset) == errno.EINVAL, (offset, length)
assert refused(h.pread, 512, 0, flags=1 << 10) == errno.EINVAL
assert refused(h.pwrite, b'x' * 512, 0) == errno.EPERM
assert refused(h.pwrite, b'x' * 1_000_000, size) == errno.EPERM
assert refused(h.pwrite, b'x' * 512, 0, flags=nbd.CMD_FLAG_FUA) == errno.EPERM
assert refused(h.trim, 512, 0) == errno.EPERM
assert refused(h.zero, 512, 0) == errno.EPERM
assert refused(h.zero, 0xFFFFFFFF, 0, flags=nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE) == errno.EPERM
assert refused(h.cache, 512, 0) == errno.EINVAL
assert refused(h.flush) == 0
assert refused(h.pread, 512, 0, flags=nbd.CMD_FLAG_FUA) == 0
assert refused(h.block_status, 512, size, lambda *_: 0) != 0
assert refused(h.pread, (32 << 20) + 1, 0) == errno.EINVAL
assert h.pread(512, 0) == first
"""


def test_libnbd_without_its_checks_gets_the_right_errors(served: Served) -> None:
    assert libnbd(NEGATIVE, served.uri).split() == ["good", "good"]


PIPELINED = """
import random
chance = random.Random(3)
image = open(IMAGE, 'rb').read()
waiting = {}
for _ in range(2000):
    length = chance.choice((1, 512, 4096, 65536, 100001))
    offset = chance.randrange(len(image) - length)
    buffer = nbd.Buffer(length)
    waiting[h.aio_pread(buffer, offset)] = (buffer, offset, length)
    while len(waiting) > 40:
        h.poll(-1)
        for cookie in [cookie for cookie in waiting if h.aio_command_completed(cookie)]:
            buffer, offset, length = waiting.pop(cookie)
            assert buffer.to_bytearray() == image[offset:offset + length]
"""


def test_libnbd_with_many_requests_in_flight(served: Served) -> None:
    script = PIPELINED.replace("IMAGE", repr(str(served.image)))
    assert libnbd(script, served.uri).split() == ["good", "good"]


DF = """
if sys.argv[2] == 'structured':
    def one(length, offset):
        found = []
        h.pread_structured(length, offset, lambda b, o, s, e: found.append((o, len(b), s)), nbd.CMD_FLAG_DF)
        return found
    assert len(one(65536, 2 << 20)) == 1
    assert len(one(8 << 20, 0)) == 1
    several = []
    h.pread_structured(24 << 20, 0, lambda b, o, s, e: several.append((o, len(b))))
    assert sum(length for _, length in several) == 24 << 20
    statuses = []
    h.block_status(24 << 20, 0, lambda name, o, entries, e: statuses.extend(entries), nbd.CMD_FLAG_REQ_ONE)
    assert len(statuses) == 2
"""


def test_libnbd_asks_for_one_chunk_and_one_extent(served: Served) -> None:
    assert libnbd(DF, served.uri).split() == ["good", "good"]


NAMES = """
for name in ('x' * 4096, 'no', '\u00e4'):
    other = nbd.NBD()
    assert refused(other.connect_uri, sys.argv[1].replace('disk.img', name)) != 0
"""


def test_libnbd_asks_for_names_that_are_not_there(served: Served) -> None:
    assert libnbd(NAMES, served.uri).split() == ["good", "good"]


def test_tls_with_certificates(folder: Path, tmp_path: Path) -> None:
    import ipaddress

    import pki
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    authority = pki.authority("NBD tools", kind="p256")
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    (tmp_path / "ca-cert.pem").write_bytes(authority.pem)
    for name, purpose in (("server", pki.SERVER), ("client", ExtendedKeyUsageOID.CLIENT_AUTH)):
        made = pki.issue(name, authority, kind="p256", purposes=(purpose,), extra=((address, False),))
        (tmp_path / f"{name}-cert.pem").write_bytes(made.pem)
        (tmp_path / f"{name}-key.pem").write_bytes(made.key_pem)
    image = folder / "disk.img"
    options = [f"--tls-{what}={tmp_path}/{name}" for what, name in
               (("cert", "server-cert.pem"), ("key", "server-key.pem"), ("ca", "ca-cert.pem"))]  # fmt: skip
    with serving(str(image), "--port=0", *options) as (announced, _):
        uri = announced[0]["uri"]
        assert uri.startswith("nbds://127.0.0.1:")
        certified = f"{uri}?tls-certificates={quote(str(tmp_path))}"
        assert json.loads(run(tool("nbdinfo"), "--json", certified))["TLS"] is True
        run(tool("nbdcopy"), certified, str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == image.read_bytes()
        plain = subprocess.run(
            [tool("nbdinfo"), uri.replace("nbds:", "nbd:")], capture_output=True, text=True, check=False
        )
        assert plain.returncode != 0


def test_killed_clients_leave_the_server_as_it_was(served: Served, tmp_path: Path) -> None:
    for _ in range(5):
        with subprocess.Popen([tool("nbdcopy"), "--connections=4", served.uri, "null:"]) as client:
            select.select([], [], [], 0.02)
            client.kill()
    run(tool("nbdcopy"), served.uri, str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == served.image.read_bytes()


def test_the_server_stays_small(served: Served) -> None:
    run(tool("nbdcopy"), "--connections=8", "--requests=64", served.uri, "null:")
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    assert int(peak[1]) * 1024 < 64 * MIB


def test_the_socket_is_removed_at_the_end(folder: Path) -> None:
    with serving(str(folder / "disk.img"), "--socket", str(folder / "other")) as (announced, _):
        assert os.path.exists(folder / "other")
        assert announced[0]["kind"] == "export"
    assert not os.path.exists(folder / "other")
