# SPDX-License-Identifier: Apache-2.0
"""Our cuts are those of the real `zck`, and so are the digests."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tools import native_kernels, tool

from regraft.kernels import _twins, build_info
from regraft.kernels._buzhash import matching


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def double_fed() -> bytes:
    """Chunks with matches just below the least length, alone, in pairs and in rows."""
    source = noise(1 << 19, 2)
    window = next(source[at - 47 : at + 1] for at in matching(memoryview(source)))
    parts = [noise(end - 47, end) + window + noise(50_000, end + 1) for end in (8140, 8150, 8160, 8180, 8191, 8192)]
    parts += [noise(8100, 3) + window * 3 + noise(9000, 4), window * 900, (window + b"?") * 900]
    return b"".join(parts)


def library() -> bytes:
    """Something that was compiled."""
    return Path(sys.executable).resolve().read_bytes()[: 4 << 20]


INPUTS: dict[str, Callable[[], bytes]] = {
    "empty": bytes,
    "one byte": lambda: b"x",
    "47 bytes": lambda: noise(47),
    "48 bytes": lambda: noise(48),
    "8192 bytes": lambda: noise(8192),
    "131072 zeros": lambda: bytes(131072),
    "131073 zeros": lambda: bytes(131073),
    "noise": lambda: noise(3_000_000),
    "ones": lambda: b"\xff" * 500_000,
    "period of 7": lambda: b"regraft" * 100_000,
    "zeros between noise": lambda: noise(200_000) + bytes(400_000) + noise(200_000, 2) + bytes(10_000) + noise(300_000),
    "double feeding": double_fed,
    "a program": library,
}


class Header:
    """A checked walk through what `zck` wrote: lead, preface, index."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        assert self.at <= len(self.data)
        return self.data[self.at - count : self.at]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte & 0x80:
                return value

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """Length and SHA-256 of each chunk of the uncompressed data."""
        assert self.take(5) == b"\0ZCK1"
        assert self.number() == 1, "the header has a SHA-256"
        self.number()
        self.take(32)  # the header's digest
        self.take(32)  # the data's digest
        assert self.number() == 4, "flags: digests of the uncompressed data, nothing else"
        assert self.number() == 0, "no compression"
        end = self.number() + self.at
        assert self.number() == 1, "chunks have a SHA-256"
        count = self.number()
        for row in range(count):
            self.take(32)
            digest = self.take(32)
            self.number()
            length = self.number()
            if row:  # the first is the dictionary
                yield length, digest
        assert self.at == end


@pytest.mark.parametrize("name", INPUTS)
def test_cuts_and_digests_are_those_of_zck(name: str, tmp_path: Path) -> None:
    data = INPUTS[name]()
    image, packed = tmp_path / "image", tmp_path / "image.zck"
    image.write_bytes(data)
    options = ["-u", "--chunk-hash-type", "sha256", "--compression-format=none", "-o", str(packed)]
    subprocess.run([tool("zck"), *options, str(image)], check=True, capture_output=True, cwd=tmp_path)
    expected = list(Header(packed.read_bytes()).chunks())
    implementations = [_twins]
    if build_info()["kernels"] == "native":
        implementations.append(native_kernels())
    for kernels in implementations:
        lengths, digests = kernels.zck_index(memoryview(data), True, "sha256", 2)
        rows = [digests[row * 32 : row * 32 + 32] for row in range(len(lengths))]
        assert list(zip(lengths, rows, strict=True)) == expected
