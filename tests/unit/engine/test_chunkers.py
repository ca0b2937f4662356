# SPDX-License-Identifier: Apache-2.0
"""Streams are cut by the rule that a label names, as if they were cut at once."""

from __future__ import annotations

import random
from array import array

import pytest

from regraft import kernels
from regraft.engine import chunkers
from regraft.engine.chunkers import cut_stream, named
from regraft.engine.seeds import index_medium
from regraft.errors import LimitError, UnsupportedError
from regraft.formats import zchunk
from regraft.kernels import Rolling
from regraft.model import Algorithm
from regraft.testing.memory import MemoryMedium

BLAKE = Algorithm.BLAKE2B
LABELS = (
    zchunk.CHUNKER,
    "fixed/1000",
    "fixed/70000",
    "bita-rollsum/64/10/100/100000",
    "bita-buzhash/16/10/100/100000",
    "bita-rollsum/64/15/16384/16777216",
    "bita-buzhash/64/3/0/9",
    "casync/1/48/60",
    "casync/512/1024/9000",
    "casync/16384/65536/262144",
    "casync/300/300/300",
)


def image() -> bytes:
    noise = random.Random(8).randbytes
    return noise(16) + bytes(40_000) + noise(150_000) + bytes(300_000) + noise(60_000)


def at_once(label: str, data: bytes) -> tuple[array[int], bytes]:
    return named(label).session(BLAKE, 1)(memoryview(data), 0, 0, True)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("batch", [1000, 65_536, 1 << 20])
def test_a_stream_is_cut_as_the_whole(label: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunkers, "BATCH", batch)
    monkeypatch.setattr(chunkers, "SMALL_BATCH", batch)
    data = image()[: 400 * batch if label == zchunk.CHUNKER else None]
    medium, joined, lengths, digests = MemoryMedium(data), b"", array("I"), b""

    def read(offset: int, view: memoryview) -> None:
        assert medium.read_into(offset, view) == len(view)

    for run, found, hashed in cut_stream(read, len(data), named(label), BLAKE):
        assert len(run) == sum(found)
        joined += bytes(run)
        lengths += found
        digests += hashed
    assert joined == data
    assert (lengths, digests) == at_once(label, data)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("size", [0, 1, 17, 5000])
def test_an_index_names_its_rule(label: str, size: int) -> None:
    index = index_medium(MemoryMedium(image()), BLAKE, label, size=size)
    assert index.chunker == label
    assert index.size == size
    assert index.digests.data == at_once(label, image()[:size])[1]


def test_a_label_is_a_rule_of_the_kernels() -> None:
    data = image()
    found = kernels.rolling_index(data, Rolling("buzhash", 10, 100, 100_000, 16), final=True, algorithm=BLAKE.label)
    assert at_once("bita-buzhash/16/10/100/100000", data) == found[:2]


@pytest.mark.parametrize(
    "label",
    ["", "zchunk", "fixed", "fixed/0", "fixed/-1", "fixed/1/2", "fixed/" + "9" * 50, "bita-rollsum/64/15/16384",
     "bita-rollsum/64/0/1/2", "bita-rollsum/64/33/1/2", "bita-rollsum/5000/15/1/2", "bita-buzhash/0/15/1/2",
     "bita-buzhash/16/15/1/0", "bita-adler/64/15/1/2", "fixed/٣", "casync/1/2", "casync/0/1/2", "casync/3/2/9",
     "casync/1/9/8", "casync/1/1/134217729"],
)  # fmt: skip
def test_another_rule_is_refused(label: str) -> None:
    with pytest.raises(UnsupportedError, match="rule"):
        named(label)


@pytest.mark.parametrize(
    "label", ["fixed/16777217", "bita-rollsum/64/15/1/16777217", "bita-buzhash/16/15/16777217/9", "casync/1/9/16777217"]
)
def test_chunks_have_a_bound(label: str) -> None:
    with pytest.raises(LimitError, match="chunk_size"):
        named(label)
