# SPDX-License-Identifier: Apache-2.0
"""Any bytes as the description of an image: as they are, and again with a right digest at their end."""

from __future__ import annotations

import hashlib
from array import array

from regraft.errors import RegraftError
from regraft.formats import image_description
from regraft.formats.image_description import Description
from regraft.model import Algorithm, Digest, DigestColumn


def target(data: bytes) -> None:
    for content in (data, data[:-32] + hashlib.sha256(data[:-32]).digest()):
        try:
            description = image_description.parse(content)
        except RegraftError:
            continue
        if image_description.parse(image_description.build(description)) != description:
            raise AssertionError("a description changes when it is written and read")


def seeds() -> list[bytes]:
    full = Description(
        array("Q", [0, 10, 4106, 4107]),
        DigestColumn(Algorithm.SHA256, bytes(96)),
        bytearray([0, 1, 0]),
        "fixed/4096",
        Digest.of(b"image"),
        "https://host/rootfs.cba",
        bytes(range(32)),
        {"verity": b"\0\1"},
    )
    empty = Description(array("Q", [0]), DigestColumn(None), bytearray())
    return [b"", image_description.build(full), image_description.build(empty)]
