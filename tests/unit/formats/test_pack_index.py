# SPDX-License-Identifier: Apache-2.0
"""The index of a pack: what counts, and what damage does to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from regraft.errors import FormatError, LimitError, RegraftError
from regraft.formats import pack_index
from regraft.formats.pack_index import PackIndex
from regraft.limits import DEFAULT
from regraft.model import Algorithm

HEADER = pack_index.build_header(7, Algorithm.SHA256)
CRC = pack_index.crc_of(HEADER)


def digest(number: int) -> bytes:
    return Algorithm.SHA256.of(bytes([number]))


def group(*records: tuple[int, int, int], crc: int = CRC) -> bytes:
    """Records of (block, length, number of the digest)."""
    blocks, lengths = [record[0] for record in records], [record[1] for record in records]
    return pack_index.build_group(crc, blocks, lengths, b"".join(digest(record[2]) for record in records))


def found(index: PackIndex) -> list[tuple[int, int, bytes]]:
    return list(zip(index.blocks, index.lengths, index.digests, strict=True))


FIRST, SECOND, THIRD = group((0, 5000, 1), (2, 10, 2)), group((3, 4096, 3)), group((4, 1, 4), (5, 9, 5))
WHOLE = HEADER + FIRST + SECOND + THIRD


def test_what_was_written_is_read() -> None:
    index = pack_index.parse(WHOLE)
    assert (index.number, index.algorithm) == (7, Algorithm.SHA256)
    assert found(index)[:2] == [(0, 5000, digest(1)), (2, 10, digest(2))]
    assert len(index) == 5
    assert index.pack_size == 5 * 4096 + 9
    assert (index.end, index.skipped) == (len(WHOLE), 0)


def test_the_bytes_are_as_documented() -> None:
    assert HEADER.hex() == "52475041434b00010700000006736861323536" + HEADER[-4:].hex()
    head = b"RGGR" + bytes.fromhex("010000000300000000100000")
    assert SECOND[:-4] == head + digest(3)


@pytest.mark.parametrize(
    "algorithm", [Algorithm.SHA1, Algorithm.SHA512_128, Algorithm.SHA512, Algorithm.BLAKE2B, Algorithm.blake2b(16)]
)
def test_any_digest_that_identifies_a_chunk_will_do(algorithm: Algorithm) -> None:
    header = pack_index.build_header(1, algorithm)
    value = algorithm.of(b"x")
    index = pack_index.parse(header + pack_index.build_group(pack_index.crc_of(header), [9], [1], value))
    assert found(index) == [(9, 1, value)]


def test_a_digest_that_is_too_short_identifies_nothing() -> None:
    with pytest.raises(FormatError, match="identify nothing"):
        pack_index.parse(pack_index.build_header(1, Algorithm.blake2b(15)))


def test_a_length_of_zero_takes_a_record_back() -> None:
    index = pack_index.parse(WHOLE + group((2, 0, 2), (5, 0, 5)))
    assert [block for block, _, _ in found(index)] == [0, 3, 4]


@pytest.mark.parametrize("end", range(len(WHOLE)))
def test_a_torn_tail_is_the_state_of_a_moment_earlier(end: int) -> None:
    data = WHOLE[:end]
    if end < len(HEADER):
        with pytest.raises(FormatError):
            pack_index.parse(data)
        return
    ends = [len(HEADER), len(HEADER + FIRST), len(HEADER + FIRST + SECOND)]
    whole = max(stop for stop in ends if stop <= end)
    index = pack_index.parse(data)
    assert found(index) == found(pack_index.parse(WHOLE[:whole]))
    assert index.end == whole
    assert index.skipped == end - whole
    again = pack_index.parse(data[: index.end] + SECOND)  # the next group goes there
    assert found(again)[-1] == (3, 4096, digest(3))


def test_any_flipped_bit_costs_its_group_and_never_makes_a_record() -> None:
    right = set(found(pack_index.parse(WHOLE)))
    for bit in range(8 * len(WHOLE)):
        data = bytearray(WHOLE)
        data[bit // 8] ^= 1 << (bit % 8)
        try:
            index = pack_index.parse(data)
        except RegraftError:
            assert bit < 8 * len(HEADER)
            continue
        assert set(found(index)) <= right
        assert len(index) >= 3  # the largest group has two


def test_a_group_of_another_pack_does_not_count() -> None:
    other = pack_index.crc_of(pack_index.build_header(8, Algorithm.SHA256))
    index = pack_index.parse(HEADER + FIRST + group((3, 3, 3), crc=other))
    assert len(index) == 2


def test_what_is_too_much_is_refused() -> None:
    with pytest.raises(LimitError, match="pack_index_size"):
        pack_index.parse(WHOLE, limits=replace(DEFAULT, pack_index_size=len(WHOLE) - 1))
    assert len(pack_index.parse(WHOLE, limits=replace(DEFAULT, chunks=3))) == 3
    assert len(pack_index.parse(WHOLE, limits=replace(DEFAULT, chunk_size=4096))) == 3


def test_a_file_full_of_false_starts_is_read_quickly() -> None:
    assert len(pack_index.parse(HEADER + b"RGGR" * 1_000_000 + FIRST)) == 0
