# SPDX-License-Identifier: Apache-2.0
"""What PATCH operations do: functions of a range of the base and decoded bytes. Pure."""

from __future__ import annotations

from functools import lru_cache

from regraft.errors import UnsupportedError
from regraft.model import Plan
from regraft.model.buffers import Buffer

#: What `Codec.patch` can be.
NAMES = ("xor", "add")


def xor(base: Buffer, data: Buffer) -> bytes:
    """Each byte of `base` xor the byte of `data` in its place. Raises ValueError unless they are equally long."""
    if len(base) != len(data):
        raise ValueError(f"{len(base)} bytes of a base, {len(data)} to join with them")
    return (int.from_bytes(base, "little") ^ int.from_bytes(data, "little")).to_bytes(len(base), "little")


def add(base: Buffer, data: Buffer) -> bytes:
    """Each byte of `base` plus the byte of `data` in its place, modulo 256, as bsdiff has it.

    Raises ValueError unless they are equally long.
    """
    if len(base) != len(data):
        raise ValueError(f"{len(base)} bytes of a base, {len(data)} to join with them")
    return b"".join(
        _added(base[start : start + _STEP], data[start : start + _STEP]) for start in range(0, len(base), _STEP)
    )


_STEP = 1 << 16


def _added(base: Buffer, data: Buffer) -> bytes:
    """Without carries from byte to byte: the low seven bits are added, the highest joined by hand."""
    low, high = _masks(len(base))
    one, other = int.from_bytes(base, "little"), int.from_bytes(data, "little")
    return ((one & low) + (other & low) ^ (one ^ other) & high).to_bytes(len(base), "little")


@lru_cache(maxsize=8)
def _masks(length: int) -> tuple[int, int]:
    return int.from_bytes(b"\x7f" * length, "little"), int.from_bytes(b"\x80" * length, "little")


def patched(name: str, base: Buffer, data: Buffer) -> memoryview:
    """The bytes that a PATCH gives. Raises UnsupportedError for a function that is not in `NAMES`."""
    if name not in NAMES:
        raise UnsupportedError(f"a PATCH by {name!r}: regraft knows {', '.join(NAMES)}")
    return memoryview(xor(base, data) if name == "xor" else add(base, data))


def by_plan(plan: Plan, number: int, base: memoryview, decoded: memoryview) -> memoryview:
    """Operation `number` of the plan's table, a PATCH, over the bytes of its base and those decoded for it, or more.

    The function is the one that the unit's codec names. Raises UnsupportedError.
    """
    recipe = plan.recipe
    name = recipe.codecs[recipe.units.codec[plan.table.unit[number]]].patch
    return patched(name, base, decoded[: len(base)])
