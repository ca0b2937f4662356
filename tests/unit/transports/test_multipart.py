# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import ChangedError, FormatError, LimitError, RegraftError
from regraft.limits import DEFAULT
from regraft.transports.multipart import MultipartParser

DATA = bytes(range(256))


def body(
    parts: list[tuple[int, int]], *, end: str = "\r\n", boundary: str = "b0", blank: bool = True, total: str = "256"
) -> bytes:
    out = b""
    for start, stop in parts:
        out += (
            f"{end}--{boundary}{end}Content-Type: a/b{end}Content-Range: bytes {start}-{stop - 1}/{total}{end}".encode()
        )
        out += (end.encode() if blank else b"") + DATA[start:stop]
    return out + f"{end}--{boundary}--{end}".encode()


def parse(
    data: bytes, pieces: list[int] | None = None, boundary: bytes = b"b0", **settings: object
) -> tuple[list[int | None], MultipartParser]:
    """The bytes of the file as the parser places them; `pieces` are the sizes in which it is fed."""
    parser = MultipartParser(boundary, **settings)  # type: ignore[arg-type]
    image: list[int | None] = [None] * 256
    at = 0
    for size in [*(pieces or []), len(data)]:
        for offset, view in parser.feed(data[at : at + size]):
            image[offset : offset + len(view)] = list(view)
        at += size
    parser.finish()
    return image, parser


def expected(parts: list[tuple[int, int]]) -> list[int | None]:
    image: list[int | None] = [None] * 256
    for start, stop in parts:
        image[start:stop] = list(DATA[start:stop])
    return image


PARTS = [(100, 150), (0, 1), (250, 256), (10, 60)]


@pytest.mark.parametrize("blank", [True, False])
@pytest.mark.parametrize("end", ["\r\n", "\n"])
@given(pieces=st.lists(st.integers(1, 40), max_size=80))
def test_pieces_of_any_size_make_no_difference(end: str, blank: bool, pieces: list[int]) -> None:
    # bytes 10.. begin with a line feed, which without the empty line would be taken for it
    parts = PARTS[:3]
    image, parser = parse(body(parts, end=end, blank=blank), pieces)
    assert image == expected(parts)
    assert parser.finished
    assert parser.parts == 3
    assert parser.total == 256


def test_every_split_into_two_pieces() -> None:
    data = body(PARTS)
    for cut in range(len(data)):
        assert parse(data, [cut])[0] == expected(PARTS)


def test_data_is_handed_out_without_a_copy() -> None:
    data = bytearray(body([(0, 200)]))
    views = [view for _, view in MultipartParser(b"b0").feed(data)]
    assert [view.obj is data for view in views] == [True]


def test_no_line_end_before_a_delimiter() -> None:
    data = b"--b0\r\nContent-Range: bytes 1-3/256\r\n\r\n\x01\x02\x03--b0--"
    assert parse(data)[0] == expected([(1, 4)])


def test_data_that_looks_like_a_delimiter_is_data() -> None:
    inner = b"\r\n--b0--\r\n"
    data = b"--b0\r\nContent-Range: bytes 0-9/256\r\n\r\n" + inner + b"\r\n--b0--\r\n"
    parser = MultipartParser(b"b0")
    assert [bytes(view) for _, view in parser.feed(data)] == [inner]
    assert parser.finished


def test_content_range_need_not_be_the_last_header() -> None:
    data = b"--b0\r\ncontent-range: bytes 0-1/256\r\nX-Other: y\r\n\r\n\x00\x01\r\n--b0--\r\n"
    assert parse(data)[0] == expected([(0, 2)])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"--b0\r\n\r\nabc", FormatError),
        (b"--b0\r\nContent-Range: bytes 5-1/9\r\n\r\n", FormatError),
        (b"--b0\r\nContent-Range: bytes 0-1/9\r\nContent-Range: bytes 1-2/9\r\n\r\n", FormatError),
        (b"--b0\r\nContent-Range: bytes 0-1/9\r\n\r\nabXX--b0--", FormatError),
        (b"--b0\r\nno header\r\n", FormatError),
        (b"--b0\r\nContent-Range: bytes 0-1/9\r\n\r\nab\r\n--b0 tail\r\n", FormatError),
        (b"--b0\r\nContent-Range: bytes 0-5/9\r\n\r\nab", FormatError),
        (b"--b0\r\nContent-Type: a", FormatError),
        (b"<html>" * 2000, LimitError),
        (b"\r\n" * 5000, FormatError),
        (b"--b0\r\n" + b"A: b\r\n" * 5000, LimitError),
        (b"--b0\r\nA: " + b"b" * 20_000, LimitError),
        (b"", FormatError),
        (body([(0, 5)], total="300") + b"", None),
        (body([(0, 5)]).replace(b"/256", b"/*"), None),
    ],
)
def test_what_is_wrong_is_said(data: bytes, kind: type[RegraftError] | None) -> None:
    if kind is None:
        parse(data)
    else:
        with pytest.raises(kind):
            parse(data)


def test_parts_of_files_of_different_sizes() -> None:
    data = body([(0, 5)])[: -len("\r\n--b0--\r\n")] + body([(5, 9)], total="300")
    with pytest.raises(ChangedError):
        parse(data)
    with pytest.raises(ChangedError):
        parse(body([(0, 5)]), total=255)


def test_the_limit_for_headers_is_the_one_of_limits() -> None:
    data = body(PARTS)
    limits = replace(DEFAULT, part_header=20)
    with pytest.raises(LimitError):
        parse(data, limits=limits)


def test_truncation_at_every_byte_is_noticed_or_loses_nothing() -> None:
    data = body(PARTS)
    for cut in range(len(data)):
        try:
            image, parser = parse(data[:cut])
        except RegraftError:
            continue
        assert parser.between_parts
        assert all(byte is None or byte == DATA[at] for at, byte in enumerate(image))


def test_every_bit_flip_ends_in_success_or_a_typed_error() -> None:
    data = body(PARTS)
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            parser = MultipartParser(b"b0", total=256)
            try:
                placed = sum(len(view) for _, view in parser.feed(bytes(damaged)))
                parser.finish()
            except RegraftError:
                continue
            assert placed <= len(data)
