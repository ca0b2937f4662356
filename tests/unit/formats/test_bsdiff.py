# SPDX-License-Identifier: Apache-2.0
"""bsdiff patches: read, applied, and refused where they lie about themselves."""

from __future__ import annotations

import random
import struct
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from payloads import bsdiff

from regraft.engine.bsdiff import bspatch
from regraft.engine.patch import add
from regraft.errors import FormatError, LimitError, RegraftError, UnsupportedError
from regraft.formats import bsdiff as form
from regraft.limits import DEFAULT

OLD = random.Random(1).randbytes(3000)


def naive(old: bytes, steps: list[tuple[bytes, bytes, int]]) -> bytes:
    new, at = bytearray(), 0
    for plus, more, skip in steps:
        for number, byte in enumerate(plus):
            here = at + number
            new.append((byte + (old[here] if 0 <= here < len(old) else 0)) % 256)
        new += more
        at += len(plus) + skip
    return bytes(new)


STEPS = st.lists(
    st.tuples(st.binary(max_size=200), st.binary(max_size=50), st.integers(-4000, 4000)), max_size=8
).filter(
    # Of steps that make nothing only so many are taken as no tool writes.
    lambda steps: len(steps) <= 2 + 2 * sum(len(added) + len(taken) for added, taken, _ in steps)
)


@given(STEPS, st.sampled_from(["", "nnn", "zzz", "bbb", "nzb"]), st.binary(max_size=300))
def test_steps_are_done_one_after_another(steps: list[tuple[bytes, bytes, int]], names: str, old: bytes) -> None:
    assert bspatch(old, form.parse(bsdiff(steps, names=names))) == naive(old, steps)


@given(st.binary(max_size=200), st.integers(0, 1 << 30))
def test_bytes_are_added_without_carries(data: bytes, seed: int) -> None:
    other = random.Random(seed).randbytes(len(data))
    assert add(data, other) == bytes((a + b) % 256 for a, b in zip(data, other, strict=True))


def test_long_runs_are_added() -> None:
    data = random.Random(2).randbytes(200_001)
    assert bspatch(OLD * 100, form.parse(bsdiff([(data, b"", 0)]))) == naive(OLD * 100, [(data, b"", 0)])


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        (b"", FormatError),
        (b"BSDIFF41" + bytes(24), FormatError),
        (b"BSDF2\3\0\0" + bytes(24), UnsupportedError),
        (b"BSDIFF40" + struct.pack("<3Q", 1 << 63 | 5, 0, 0), FormatError),
        (b"BSDIFF40" + struct.pack("<3Q", 1, 0, 0), FormatError),
        (b"BSDIFF40" + struct.pack("<3Q", 0, 0, 1 << 60), LimitError),
        (b"BSDF2\0\0\0" + struct.pack("<6Q", 24, 1, 1, 2, 0, 0) + b"x", FormatError),
        (b"BSDF2\0\0\0" + struct.pack("<6Q", 24, 1, 1, 0, 0, 0) + b"x", FormatError),
        (b"BSDF2\0\0\0" + struct.pack("<6Q", 24, 1, 1, 1 << 63 | 1, 2, 0) + b"x", FormatError),
        (b"BSDF2\0\0\0" + struct.pack("<3Q", 23, 0, 1) + bytes(23), FormatError),
        (b"BSDF2\0\0\0" + struct.pack("<3Q", 240, 0, 0) + bytes(240), FormatError),
    ],
)
def test_a_patch_that_lies_is_refused(patch: bytes, error: type[RegraftError]) -> None:
    with pytest.raises(error):
        form.parse(patch)


@pytest.mark.parametrize("names", ["", "nnn", "bzn"])
def test_cuts_and_flips_are_typed(names: str) -> None:
    patch = bsdiff([(OLD[:300], b"extra", 5), (OLD[300:500], b"", -700)], names=names)
    for size in range(len(patch)):
        with pytest.raises(RegraftError):
            form.parse(patch[:size])
    for bit in range(8 * len(patch)):
        flipped = bytearray(patch)
        flipped[bit // 8] ^= 1 << bit % 8
        with suppress(RegraftError):
            bspatch(OLD, form.parse(flipped, limits=replace(DEFAULT, patched_size=1 << 20)))
