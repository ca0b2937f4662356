# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import FormatError, LimitError, RegraftError, UnsupportedError, UsageError
from regraft.formats import cpio
from regraft.limits import DEFAULT, Limits


def header(name: bytes = b"a\0", size: int = 0, check: int = 0, magic: bytes = b"070702", **fields: int) -> bytes:
    order = ("inode", "mode", "uid", "gid", "links", "mtime", "size", "major", "minor", "rmajor", "rminor")
    values = {"inode": 1, "mode": 0o100644, "links": 1, "size": size, "check": check, "name_size": len(name), **fields}
    return magic + b"".join(b"%08X" % values.get(field, 0) for field in (*order, "name_size", "check")) + name


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


TRAILER = padded(header(b"TRAILER!!!\0"))


def archive(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    writer = cpio.Writer(out.write)
    for name, data in members:
        writer.add(name, len(data), cpio.checksum(data), [data])
    writer.close()
    return out.getvalue()


def read(data: bytes, limits: Limits = DEFAULT, piece: int = 1 << 20) -> list[tuple[str, bytes]]:
    reader = cpio.Reader(io.BytesIO(data).read, limits=limits)
    found = []
    for member in reader:
        content = b""
        while part := reader.read(piece):
            content += part
        assert len(content) == member.size
        found.append((member.name, content))
    return found


@given(st.binary(max_size=3000), st.integers(0, 2**32 - 1))
def test_the_checksum_is_the_sum_of_the_bytes(data: bytes, start: int) -> None:
    assert cpio.checksum(data, start) == (start + sum(data)) % 2**32


def test_the_checksum_wraps_at_32_bits() -> None:
    assert cpio.checksum(b"\xff" * 256, 2**32 - 1) == 255 * 256 - 1


def test_members_come_in_order_with_where_they_lie() -> None:
    data = archive(("sw-description", b"12345"), ("b", b"x"))
    members = list(cpio.Reader(io.BytesIO(data).read))
    assert [(m.name, m.size, m.checksum) for m in members] == [("sw-description", 5, 255), ("b", 1, 120)]
    assert [data[m.data_offset : m.data_offset + m.size] for m in members] == [b"12345", b"x"]
    assert [data[m.offset : m.offset + 6] for m in members] == [b"070702", b"070702"]


def test_the_written_header_has_no_times_and_counts_inodes_from_one() -> None:
    members = list(cpio.Reader(io.BytesIO(archive(("a", b"1"), ("b", b"2"))).read))
    assert [(m.inode, m.mtime, m.mode) for m in members] == [(1, 0, 0o100644), (2, 0, 0o100644)]


def test_an_archive_ends_at_a_whole_block() -> None:
    assert len(archive(("a", b"1"))) % 512 == 0


def test_a_source_that_gives_single_bytes_is_enough() -> None:
    stream = io.BytesIO(archive(("a", b"hello"), ("b/c", bytes(1000))))
    reader = cpio.Reader(lambda _: stream.read(1))
    assert [member.name for member in reader] == ["a", "b/c"]


def test_skipped_members_are_verified_too() -> None:
    data = bytearray(archive(("a", b"hello"), ("b", b"x")))
    data[data.index(b"hello")] ^= 1
    with pytest.raises(FormatError, match="checksum of 'a'"):
        list(cpio.Reader(io.BytesIO(data).read))


def test_the_last_bytes_are_withheld_when_the_checksum_is_wrong() -> None:
    data = bytearray(archive(("a", b"hello")))
    data[data.index(b"hello")] ^= 1
    reader = cpio.Reader(io.BytesIO(data).read)
    reader.next()
    assert reader.read(4) == b"iell"
    with pytest.raises(FormatError):
        reader.read(4)


def test_without_checksums_the_field_means_nothing() -> None:
    data = padded(header(size=1, check=77, magic=b"070701")) + padded(b"x") + TRAILER
    assert read(data) == [("a", b"x")]
    assert next(iter(cpio.Reader(io.BytesIO(data).read))).checksum is None


def test_lower_case_digits_count() -> None:
    assert read(padded(header(size=1, check=0x78).lower()) + padded(b"x") + TRAILER) == [("a", b"x")]


@pytest.mark.parametrize("zeros", [0, 1, 512, 4096, 65_536])
def test_zeros_may_follow_the_trailer(zeros: int) -> None:
    assert read(TRAILER + bytes(zeros)) == []


def test_endless_zeros_behind_the_trailer_are_refused() -> None:
    with pytest.raises(LimitError, match="trailing_padding"):
        read(TRAILER + bytes(65_537))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", "ends before its trailer", id="nothing"),
        pytest.param(padded(header(magic=b"070707")), "no cpio header", id="another magic"),
        pytest.param(padded(header()).replace(b"00000001", b"+0000001", 1), "hexadecimal", id="a sign"),
        pytest.param(padded(header()).replace(b"00000001", b"0_000001", 1), "hexadecimal", id="an underscore"),
        pytest.param(padded(header()).replace(b"00000001", b" 0000001", 1), "hexadecimal", id="a blank"),
        pytest.param(padded(header(name_size=0)), "name of 0 bytes", id="no name"),
        pytest.param(padded(header(b"\0")), "name of 1 bytes", id="an empty name"),
        pytest.param(padded(header(b"a" * 256 + b"\0")), "name of 257 bytes", id="a long name"),
        pytest.param(padded(header(name_size=0xFFFFFFFF)), "name of 4294967295 bytes", id="an endless name"),
        pytest.param(padded(header(b"ab")), "only NUL", id="a name without NUL"),
        pytest.param(padded(header(b"a\0b\0")), "only NUL", id="a name with two NULs"),
        pytest.param(padded(header(b"\xff\xfe\0")), "not UTF-8", id="a name in no charset"),
        pytest.param(padded(header(b"TRAILER!!!\0", size=4)) + b"data", "trailer has data", id="a trailer with data"),
        pytest.param(header(b"ab\0") + b"\0\0\1" + TRAILER, "padding", id="padding after the name"),
        pytest.param(padded(header(size=1, check=120)) + b"x\0\1\0" + TRAILER, "padding", id="padding after the data"),
        pytest.param(TRAILER + b"\0\0x", "behind the archive's trailer", id="data behind the trailer"),
        pytest.param(padded(header()) + padded(header()) + TRAILER, "twice", id="the same name twice"),
    ],
)
def test_damaged_archives_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read(data)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../up",
        "a/../b",
        "a/..",
        ".",
        "./a",
        "a//b",
        "a/",
        "a\\b",
        "a\nb",
        "a\x1bb",
        "a\x7fb",
        "\u202egpj.exe",
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match="member name"):
        read(padded(header(name.encode() + b"\0")) + TRAILER)
    with pytest.raises(FormatError):
        archive((name, b"x"))


@pytest.mark.parametrize("name", ["a", "..a", "a..", "a b", "ä/ö.img", "a" * 255, "sw-description"])
def test_plain_names_are_fine(name: str) -> None:
    if len(name.encode()) <= 255:
        assert read(archive((name, b"x"))) == [(name, b"x")]


@pytest.mark.parametrize("mode", [0o120777, 0o040755, 0o060600, 0o020600, 0o010600, 0o140600])
def test_links_folders_and_devices_are_refused(mode: int) -> None:
    with pytest.raises(UnsupportedError, match="not a regular file"):
        read(padded(header(mode=mode)) + TRAILER)


def test_the_number_of_members_is_limited() -> None:
    data = archive(*((str(number), b"x") for number in range(4)))
    assert len(read(data, Limits(artifacts=4))) == 4
    with pytest.raises(LimitError, match="artifacts"):
        read(data, Limits(artifacts=3))


def test_what_a_header_cannot_say_is_not_written() -> None:
    writer = cpio.Writer(lambda _: None)
    with pytest.raises(LimitError, match="4294967295"):
        writer.add("a", 2**32, 0, [])
    with pytest.raises(UsageError, match="empty"):
        writer.add("a", 0, 0, [])
    with pytest.raises(FormatError):
        writer.add("TRAILER!!!", 1, 0, [])


@pytest.mark.parametrize("pieces", [[], [b"a"], [b"abc"], [b"ax"]])
def test_data_that_changed_since_it_was_measured_is_noticed(pieces: list[bytes]) -> None:
    writer = cpio.Writer(lambda _: None)
    with pytest.raises(FormatError, match="changed while"):
        writer.add("a", 2, cpio.checksum(b"ab"), pieces)


def test_a_name_is_not_written_twice() -> None:
    with pytest.raises(FormatError, match="twice"):
        archive(("a", b"1"), ("a", b"2"))


GOLDEN = archive(("sw-description", b"software = {}"), ("x/y", bytes(range(7))))
TAIL = 512  # zeros that fill the last block; the trailer lies before


def survives(data: bytes, parse: Callable[[bytes], object] = read) -> bool:
    try:
        parse(data)
    except RegraftError:
        return False
    return True


def test_every_truncation_is_noticed() -> None:
    end = GOLDEN.index(b"TRAILER!!!") + len(b"TRAILER!!!\0")
    end += -end % 4
    assert [cut for cut in range(len(GOLDEN)) if survives(GOLDEN[:cut])] == list(range(end, len(GOLDEN)))


def test_every_flipped_bit_gives_an_error_or_a_header_field_without_meaning() -> None:
    for position in range(len(GOLDEN)):
        for bit in range(8):
            data = bytearray(GOLDEN)
            data[position] ^= 1 << bit
            if survives(bytes(data)):
                # A longer size takes in zeros of the padding, which no sum of bytes can notice: sha256 will.
                contents = [content.rstrip(b"\0") for _, content in read(bytes(data))]
                assert contents == [b"software = {}", bytes(range(7))] or b"070701" in data


NAMES = st.sampled_from(["a", "b/c", "sw-description", "d"])
MEMBERS = st.lists(st.tuples(NAMES, st.binary(min_size=1)), unique_by=lambda member: member[0])


@given(MEMBERS, st.integers(1, 9))
def test_what_was_written_is_read(members: list[tuple[str, bytes]], piece: int) -> None:
    assert read(archive(*members), piece=piece) == members
