# SPDX-License-Identifier: Apache-2.0
"""GNU cpio reads what we write, and we read what it writes."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from tools import tool

from regraft.formats import cpio

FILES = {"sw-description": b"software = {};\n", "image.img": bytes(range(256)) * 700, "one": b"1", "four": b"1234"}


@pytest.mark.parametrize("kind", ["newc", "crc"])
@pytest.mark.parametrize("block", [512, 5120])
def test_we_read_what_cpio_writes(kind: str, block: int, tmp_path: Path) -> None:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    command = [tool("cpio"), "-o", "-H", kind, "--io-size", str(block), "--quiet"]
    names = "\n".join(FILES).encode() + b"\n"
    made = subprocess.run(command, input=names, cwd=tmp_path, capture_output=True, check=True).stdout
    reader = cpio.Reader(io.BytesIO(made).read)
    found = {}
    for member in reader:
        assert (member.checksum is None) == (kind == "newc")
        found[member.name] = b"".join(iter(lambda: reader.read(1000), b""))
    assert found == FILES


def test_an_empty_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    made = subprocess.run([tool("cpio"), "-o", "-H", "crc"], input=b"empty\n", cwd=tmp_path, capture_output=True).stdout
    assert [(member.name, member.size) for member in cpio.Reader(io.BytesIO(made).read)] == [("empty", 0)]


def test_cpio_reads_what_we_write(tmp_path: Path) -> None:
    out = io.BytesIO()
    writer = cpio.Writer(out.write)
    for name, data in FILES.items():
        writer.add(name, len(data), cpio.checksum(data), [data])
    writer.close()
    done = subprocess.run([tool("cpio"), "-i", "--quiet"], input=out.getvalue(), cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == FILES


def test_cpio_finds_a_flipped_bit_in_what_we_write_as_we_do(tmp_path: Path) -> None:
    out = io.BytesIO()
    writer = cpio.Writer(out.write)
    writer.add("a", 5, cpio.checksum(b"hello"), [b"hello"])
    writer.close()
    data = out.getvalue().replace(b"hello", b"hellp")
    done = subprocess.run([tool("cpio"), "-i", "--only-verify-crc"], input=data, cwd=tmp_path, capture_output=True)
    assert b"checksum error" in done.stderr
