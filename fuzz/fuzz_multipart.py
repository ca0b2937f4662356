# SPDX-License-Identifier: Apache-2.0
"""multipart/byteranges bodies, fed in pieces whose sizes the input chooses."""

from __future__ import annotations

from regraft.errors import RegraftError
from regraft.transports.headers import multipart_boundary
from regraft.transports.multipart import MultipartParser


def target(data: bytes) -> None:
    """First line: Content-Type; second byte on: the size of pieces; the rest: the body."""
    head, _, body = data.partition(b"\n")
    boundary = multipart_boundary(head[1:].decode("latin-1"))
    parser = MultipartParser(boundary or b"", total=None)
    size = 1 + (head[0] if head else 64)
    placed = 0
    try:
        for at in range(0, len(body), size):
            for offset, view in parser.feed(body[at : at + size]):
                assert offset >= 0
                placed += len(view)
        parser.finish()
    except RegraftError:
        return
    assert placed <= len(body)


def seeds() -> list[bytes]:
    part = b"--x{end}Content-Type: a/b{end}Content-Range: bytes 3-7/99{end}{end}hello{end}"
    found = []
    for end in (b"\r\n", b"\n"):
        body = part.replace(b"{end}", end) * 3 + b"--x--" + end
        found.append(b"\x10multipart/byteranges; boundary=x\n" + body)
        found.append(b"\xffmultipart/byteranges\n" + body)
        found.append(b"\x01multipart/byteranges; boundary=x\n" + body.replace(end + end, end))
    return found
