# SPDX-License-Identifier: Apache-2.0
"""Bundles for tests: cpio archives of given members."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.formats import cpio


def archive(members: Sequence[tuple[str, bytes]]) -> bytes:
    """A cpio archive with checksums, as regraft writes it."""
    out = bytearray()
    writer = cpio.Writer(out.extend)
    for name, content in members:
        writer.add(name, len(content), cpio.checksum(content), [content])
    writer.close()
    return bytes(out)


def newc(members: Sequence[tuple[str, bytes]]) -> bytes:
    """A cpio archive without checksums, which may hold empty files, as `cpio -H newc` writes it."""
    out = bytearray()
    for number, (name, content) in enumerate([*members, ("TRAILER!!!", b"")]):
        mode = 0 if name == "TRAILER!!!" else 0o100644
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)
