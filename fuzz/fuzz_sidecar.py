# SPDX-License-Identifier: Apache-2.0
"""Sidecars, as they come and with the right checksum put behind them: what is read is written the same."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace

from regraft.errors import RegraftError
from regraft.formats import sidecar
from regraft.formats.sidecar import Sidecar
from regraft.limits import DEFAULT
from regraft.model import Algorithm, Digest, DigestColumn

LIMITS = replace(DEFAULT, image_size=1 << 20, chunks=100)


def target(data: bytes) -> None:
    for content in (data, data[:-32] + hashlib.sha256(data[:-32]).digest()):
        with suppress(RegraftError):
            assert sidecar.build(sidecar.parse(content, limits=LIMITS)) == content


def seeds() -> list[bytes]:
    digest = Digest(Algorithm.SHA256, bytes(range(32)))
    found = []
    for rows, units in ((0, 0), (3, 2)):
        columns = (DigestColumn(Algorithm.SHA256, bytes(32 * count)) for count in (rows, units))
        found.append(sidecar.build(Sidecar(1000, digest, 2000, digest, digest.value, *columns)))
    return found
