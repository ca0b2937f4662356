# SPDX-License-Identifier: Apache-2.0
"""How many bytes a file system takes, by what mke2fs wrote and by hand."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from tools import tool

from regraft.formats.filesystem_size import HEAD, detect


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
@pytest.mark.parametrize(("block", "feature"), [(1024, "^64bit"), (4096, "64bit")])
def test_what_mke2fs_makes(kind: str, block: int, feature: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    features = feature if kind == "ext4" else "^64bit"
    command = [tool("mke2fs"), "-q", "-t", kind, "-b", str(block), "-O", features, str(image), "9M"]
    subprocess.run(command, check=True, capture_output=True)
    with open(image, "ab") as file:
        file.write(b"what follows in the partition")
    assert detect(image.read_bytes()[:HEAD]) == 9 << 20


def head(*fields: tuple[int, str, int]) -> bytes:
    data = bytearray(HEAD)
    for offset, layout, value in fields:
        struct.pack_into(layout, data, offset, value)
    return bytes(data)


def test_squashfs_is_rounded_up_to_blocks() -> None:
    assert detect(b"hsqs" + head((36, "<Q", 10_000))[: HEAD - 4]) == 12_288


def test_erofs() -> None:
    assert detect(head((1024, "<I", 0xE0F5E1E2), (1036, "<B", 12), (1060, "<I", 77))) == 77 * 4096
    assert detect(head((1024, "<I", 0xE0F5E1E2), (1036, "<B", 60), (1060, "<I", 77))) is None


def test_the_high_half_of_the_block_count_counts_with_64_bits_only() -> None:
    fields = [(1080, "<H", 0xEF53), (1028, "<I", 5), (1048, "<I", 2), (1024 + 336, "<I", 1)]
    assert detect(head(*fields)) == 5 * 4096
    assert detect(head(*fields, (1024 + 96, "<I", 0x80))) == ((1 << 32) + 5) * 4096


def test_a_block_size_that_cannot_be() -> None:
    assert detect(head((1080, "<H", 0xEF53), (1028, "<I", 5), (1048, "<I", 7))) is None


@pytest.mark.parametrize("data", [b"", b"hsqs", bytes(HEAD - 1), bytes(HEAD), b"\xff" * HEAD])
def test_anything_else_is_not_recognised(data: bytes) -> None:
    assert detect(data) is None
