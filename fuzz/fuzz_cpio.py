# SPDX-License-Identifier: Apache-2.0
"""Any bytes as a cpio archive."""

from __future__ import annotations

import io

from regraft.errors import RegraftError
from regraft.formats import cpio


def target(data: bytes) -> None:
    reader = cpio.Reader(io.BytesIO(data).read)
    try:
        for member in reader:
            taken = sum(map(len, iter(lambda: reader.read(7), b"")))
            if taken != member.size:
                raise AssertionError(f"{member.name}: {taken} bytes of {member.size}")
            if member.name.startswith("/") or ".." in member.name.split("/"):
                raise AssertionError(f"unsafe name {member.name!r}")
    except RegraftError:
        pass


def seeds() -> list[bytes]:
    out = io.BytesIO()
    writer = cpio.Writer(out.write)
    for name, content in (("sw-description", b"software = {}"), ("a/b", bytes(7))):
        writer.add(name, len(content), cpio.checksum(content), [content])
    writer.close()
    return [out.getvalue(), out.getvalue().replace(b"070702", b"070701"), b""]
