# SPDX-License-Identifier: Apache-2.0
"""Any bytes as libconfig text; what is read must be written so that it reads back."""

from __future__ import annotations

from regraft.errors import RegraftError
from regraft.formats.libconfig import dump, parse


def target(data: bytes) -> None:
    try:
        value = parse(data)
    except RegraftError:
        return
    if parse(dump(value).encode()) != value:
        raise AssertionError(f"read differently the second time: {value!r:.200}")


def seeds() -> list[bytes]:
    return [
        b'software = { version = "1.0"; hardware-compatibility = ["1.0"]; images: ( { size = 5L; } ); };',
        b'a = "x\\n\\x41\\\\" "y"; b : [1, 2, 0x1F]; c = (true, 1.5e3, { d = -1; }, [],); # c\n/* d */ // e\n',
        b"a = { b = { c = ( ( ( ) ) ) } }",
        b'@include "x"',
        b"",
    ]
