# SPDX-License-Identifier: Apache-2.0
"""Writing SWUpdate's bundles: sw-description, its signature, the artifacts; the same input gives the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

from regraft.crypto import cms, rsa
from regraft.crypto.algorithms import PrivateKey
from regraft.crypto.certificates import Certificate
from regraft.errors import LimitError, SourceError, UsageError
from regraft.formats import cpio
from regraft.limits import DEFAULT, MIB, Limits
from regraft.swupdate.bundle import DESCRIPTION, SIGNATURE

Content: TypeAlias = bytes | str | os.PathLike[str]  #: the bytes themselves, or the path of a file


class DescriptionSigner(Protocol):
    """Makes the content of `sw-description.sig`."""

    def sign(self, description: bytes, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class CmsSigner:
    """Signs with a certificate. `at` is the signing time, None to leave it out.

    Debian's SWUpdate 2022.12 ignores the `intermediates` here: it takes them only from the device's trust file.
    """

    certificate: Certificate
    key: PrivateKey = field(repr=False)
    intermediates: tuple[Certificate, ...] = ()
    at: datetime | None = None

    def sign(self, description: bytes, /) -> bytes:
        return cms.sign_detached(
            description, self.certificate, self.key, extra_certificates=self.intermediates, at=self.at
        )


@dataclass(frozen=True, slots=True)
class RsaSigner:
    """Signs with a bare RSA key, for SWUpdate built for `-k public.pem`. PSS is salted: its bytes always differ."""

    key: PrivateKey = field(repr=False)
    padding: rsa.Padding = "rsa"

    def sign(self, description: bytes, /) -> bytes:
        return rsa.sign(description, self.key, self.padding)


def signing_time(environment: dict[str, str], now: datetime) -> datetime:
    """The time in SOURCE_DATE_EPOCH (see reproducible-builds.org), else `now`. Raises UsageError for other content."""
    text = environment.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return now
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds", cure="unset it, or give seconds since 1970"
        ) from None


def write_bundle(
    write: Callable[[bytes], object],
    description: bytes,
    artifacts: Sequence[tuple[str, Content]],
    *,
    signer: DescriptionSigner | None,
    limits: Limits = DEFAULT,
) -> None:
    """Write a bundle piece by piece with `write`; files are read twice, first for their checksum.

    Raises UsageError (an empty artifact, keys that do not match), FormatError (a bad or doubled name, a file that
    changed meanwhile), LimitError (an artifact above 2^32 - 1 bytes, a description above the limit), SourceError.
    """
    if not 0 < len(description) <= limits.description_size:
        raise LimitError(f"{DESCRIPTION} has {len(description)} bytes, 1 to {limits.description_size} are allowed")
    members: list[tuple[str, Content]] = [(DESCRIPTION, description)]
    if signer is not None:
        members.append((SIGNATURE, signer.sign(description)))
    elif any(name == SIGNATURE for name, _ in artifacts):
        raise UsageError(f"{SIGNATURE} is made here, it is not an artifact", cure="give the keys, not the signature")
    archive = cpio.Writer(write)
    for name, content in (*members, *artifacts):
        size, check = _measure(name, content)
        archive.add(name, size, check, _pieces(name, content))
    archive.close()


def _measure(name: str, content: Content) -> tuple[int, int]:
    size = check = 0
    if not isinstance(content, bytes):
        try:
            size = os.stat(content).st_size
        except OSError as error:
            raise SourceError(f"{name!r} cannot be read: {error}", cure="give a readable file") from None
        if size > cpio.MAXIMUM_SIZE:
            return size, 0  # refused by the archive, without reading it all first
        size = 0
    for piece in _pieces(name, content):
        size += len(piece)
        check = cpio.checksum(piece, check)
    return size, check


def _pieces(name: str, content: Content) -> Iterable[bytes]:
    if isinstance(content, bytes):
        return (content,)
    return _file(name, content)


def _file(name: str, path: str | os.PathLike[str]) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            while piece := file.read(MIB):
                yield piece
    except OSError as error:
        raise SourceError(f"{name!r} cannot be read: {error}", cure="give a readable file") from None
