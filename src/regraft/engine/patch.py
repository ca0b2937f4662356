# SPDX-License-Identifier: Apache-2.0
"""What PATCH operations do: functions of a range of the base and decoded bytes. Pure."""

from __future__ import annotations

from regraft.errors import UnsupportedError
from regraft.model.buffers import Buffer

#: What `Codec.patch` can be.
NAMES = ("xor",)


def xor(base: Buffer, data: Buffer) -> bytes:
    """Each byte of `base` xor the byte of `data` in its place. Raises ValueError unless they are equally long."""
    if len(base) != len(data):
        raise ValueError(f"{len(base)} bytes of a base, {len(data)} to join with them")
    return (int.from_bytes(base, "little") ^ int.from_bytes(data, "little")).to_bytes(len(base), "little")


def patched(name: str, base: Buffer, data: Buffer) -> memoryview:
    """The bytes that a PATCH gives. Raises UnsupportedError for a function that is not in `NAMES`."""
    if name != "xor":
        raise UnsupportedError(f"a PATCH by {name!r}: regraft knows {', '.join(NAMES)}")
    return memoryview(xor(base, data))
