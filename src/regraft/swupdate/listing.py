# SPDX-License-Identifier: Apache-2.0
"""Which artifacts a description lists, for whatever board and software set, and with which digests."""

from __future__ import annotations

import re
from collections.abc import Mapping

from regraft.errors import DigestError, UnlistedError
from regraft.swupdate.bundle import DESCRIPTION
from regraft.swupdate.description import Tree

_SHA256 = re.compile(r"[0-9A-Fa-f]{64}", re.ASCII)


def listed_digests(tree: Tree) -> dict[str, frozenset[bytes]]:
    """The sha256 digests beside each `filename`, anywhere in the description; an empty set where there is none."""
    found: dict[str, set[bytes]] = {}
    stack: list[object] = [tree.software]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            name, digest = value.get("filename"), value.get("sha256")
            if isinstance(name, str) and name:
                digests = found.setdefault(name, set())
                if isinstance(digest, str) and _SHA256.fullmatch(digest):
                    digests.add(bytes.fromhex(digest))
            stack.extend(value.values())
        elif isinstance(value, list | tuple):
            stack.extend(value)
    return {name: frozenset(digests) for name, digests in found.items()}


def check_digest(name: str, sha256: bytes, listed: Mapping[str, frozenset[bytes]]) -> None:
    """Raise unless the artifact `name`, whose stored bytes have this digest, is listed with it and no other.

    Raises UnlistedError (no entry, or an entry without a digest), DigestError.
    """
    if name not in listed:
        raise UnlistedError(f"{name!r} is in the bundle, but not listed in its {DESCRIPTION}")
    if not listed[name]:
        raise UnlistedError(f"{name!r} has no sha256 in {DESCRIPTION}")
    if listed[name] != {sha256}:
        wanted = ", ".join(sorted(digest.hex() for digest in listed[name]))
        raise DigestError(f"{name!r} has the sha256 {sha256.hex()}, {DESCRIPTION} lists {wanted}")
