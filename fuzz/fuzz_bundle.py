# SPDX-License-Identifier: Apache-2.0
"""Any bytes as a bundle, unsigned and signed, its artifacts opened with every compression."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma

import zstandard
from _material import AT, CONTENT, ROOT, SIGNATURE

from regraft.crypto.certificates import Certificate
from regraft.crypto.trust import Trust
from regraft.errors import RegraftError
from regraft.formats import cpio
from regraft.formats.compression import CODECS
from regraft.limits import MIB, Limits
from regraft.swupdate.bundle import SignaturePolicy, open_artifact, read_bundle

POLICY = SignaturePolicy(Trust((Certificate.parse(ROOT),)), AT)
LIMITS = Limits(image_size=MIB, zstd_window_log=22)


def target(data: bytes) -> None:
    try:
        if read_bundle(io.BytesIO(data), POLICY, limits=LIMITS).description != CONTENT:
            raise AssertionError("accepted over other content")
    except RegraftError:
        pass
    try:
        for artifact in read_bundle(io.BytesIO(data), unsigned=True, limits=LIMITS).members():
            stored = b"".join(artifact.pieces())
            for codec in CODECS:
                _open(stored, codec)
    except RegraftError:
        pass


def _open(stored: bytes, codec: str) -> None:
    sha256 = hashlib.sha256(stored).digest()
    try:
        opened = open_artifact([stored], name="a", sha256=sha256, compressed=codec, limits=LIMITS)  # type: ignore[arg-type]
        if sum(map(len, opened)) > LIMITS.image_size:
            raise AssertionError(f"{codec}: more than allowed")
    except RegraftError:
        pass


def seeds() -> list[bytes]:
    out = io.BytesIO()
    writer = cpio.Writer(out.write)
    members = {
        "sw-description": CONTENT,
        "sw-description.sig": SIGNATURE,
        "a.gz": gzip.compress(b"hello" * 9, mtime=0),
        "a.xz": lzma.compress(b"hello" * 9),
        "a.zst": zstandard.compress(b"hello" * 9),
    }
    for name, content in members.items():
        writer.add(name, len(content), cpio.checksum(content), [content])
    writer.close()
    # Without checksums a mutation of the data gets past the archive, to the decoders.
    return [out.getvalue(), out.getvalue().replace(b"070702", b"070701"), b""]
