# SPDX-License-Identifier: Apache-2.0
"""Reading SWUpdate's bundles (`.swu`): strictly forward, and verified before anything is believed.

A bundle is a cpio archive that begins with `sw-description`, then `sw-description.sig` when it is signed, then the
artifacts in any order (SWUpdate's documentation, "SWU image"). The signature is checked over the description's bytes
before anybody parses them; an artifact counts for nothing until its sha256 is the one in the verified description.
"""

from __future__ import annotations

import hashlib
import hmac
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from errno import ENOSPC
from typing import BinaryIO, Literal, Protocol, TypeAlias

from regraft.crypto import cms, rsa
from regraft.crypto.aes import AesKey, decrypt
from regraft.crypto.signer import Signer
from regraft.crypto.trust import Purpose, Trust
from regraft.errors import (
    DigestError,
    FormatError,
    LimitError,
    MediumError,
    SignatureError,
    SourceError,
    SpaceError,
    UnlistedError,
    UsageError,
)
from regraft.formats import cpio
from regraft.formats.compression import Codec, decompress
from regraft.limits import DEFAULT, Limits

DESCRIPTION, SIGNATURE = "sw-description", "sw-description.sig"
Mode: TypeAlias = Literal["auto", "cms", "rsa", "rsa-pss"]


class Readable(Protocol):
    """What a bundle is read from: a file, a pipe, a response."""

    def read(self, count: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """Whose signature counts. `mode` auto means CMS with trusted certificates, either RSA padding with a public key.

    `at` is the time, with its zone, at which certificates must be valid; `signer_name` a required common name.
    """

    trust: Trust
    at: datetime
    mode: Mode = "auto"
    purpose: Purpose = "emailProtection"
    signer_name: str | None = None

    def verify(self, signature: bytes, content: bytes, *, limits: Limits = DEFAULT) -> Signer:
        """Who signed `content`. Raises SignatureError."""
        if not signature:
            raise SignatureError("the signature is empty")
        if self.mode == "cms" or (self.mode == "auto" and self.trust.certificates):
            return cms.verify_detached(
                signature,
                content,
                self.trust,
                purpose=self.purpose,
                signer_name=self.signer_name,
                at=self.at,
                limits=limits,
            )
        if self.signer_name is not None:
            raise SignatureError(
                "a bare public key has no signer's name to compare", cure="give certificates with -k, or no name"
            )
        return rsa.verify(signature, content, self.trust, None if self.mode == "auto" else self.mode)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A member of the bundle, its bytes as stored: perhaps encrypted, perhaps compressed. Nothing of it is verified.

    `read(n)` gives 1 to n bytes, b"" at the end; it works until the next artifact is asked for.
    """

    member: cpio.Member
    read: Callable[[int], bytes]

    @property
    def name(self) -> str:
        return self.member.name

    @property
    def size(self) -> int:
        return self.member.size

    def pieces(self, count: int = DEFAULT.batch) -> Iterator[bytes]:
        """The rest of the stored bytes in pieces of at most `count`."""
        while piece := self.read(count):
            yield piece


class BundleReader:
    """An opened bundle: `description` are the bytes of sw-description, `signer` who signed them.

    `signer` is None only for a bundle that was opened as unsigned on purpose. `signature` are its bytes, if any.
    """

    def __init__(
        self,
        archive: cpio.Reader,
        description: bytes,
        signature: bytes | None,
        signer: Signer | None,
        head: tuple[cpio.Member, ...],
        waiting: cpio.Member | None,
    ) -> None:
        self.description = description
        self.signature = signature
        self.signer = signer
        self.head = head  #: the members that are no artifacts: sw-description and its signature
        self._archive = archive
        self._waiting = waiting
        self._current: cpio.Member | None = None

    def members(self) -> Iterator[Artifact]:
        """The artifacts in the order of the archive; once, and only forward.

        What the caller leaves unread is read here, so that every checksum and the archive's end are verified.
        Raises FormatError, LimitError, SourceError.
        """
        member, self._waiting = self._waiting, None
        while member is not None:
            if member.name == SIGNATURE:
                raise FormatError(f"{SIGNATURE} is not the second member", offset=member.offset)
            self._current = member
            yield Artifact(member, self._reader(member))
            member = self._archive.next()
        self._current = None

    def _reader(self, member: cpio.Member) -> Callable[[int], bytes]:
        def read(count: int) -> bytes:
            if self._current is not member:
                raise ValueError(f"{member.name} can no longer be read: the bundle went on")
            return self._archive.read(count)

        return read


def read_bundle(
    stream: Readable,
    policy: SignaturePolicy | None = None,
    *,
    unsigned: bool = False,
    description_key: AesKey | None = None,
    limits: Limits = DEFAULT,
) -> BundleReader:
    """Open the bundle that `stream` brings and verify its description's signature.

    Without a policy `unsigned=True` must say that this is meant; then nothing in the bundle is verified, whether or not
    it has a signature. `description_key` decrypts an encrypted sw-description, before the signature is checked, which
    covers the plain text. Raises FormatError, LimitError, SignatureError, SourceError, UsageError.
    """
    if (policy is None) != unsigned:
        raise UsageError(
            "a bundle is opened either with trusted keys or, on purpose, unsigned",
            cure="give the trusted certificate or public key with -k",
        )

    def read(count: int) -> bytes:
        try:
            return stream.read(count)
        except OSError as error:
            raise SourceError(f"the bundle cannot be read: {error}", cure="give the bundle again") from None

    archive = cpio.Reader(read, limits=limits)
    first = archive.next()
    if first is None or first.name != DESCRIPTION:
        found = "nothing" if first is None else repr(first.name)
        raise FormatError(f"the first member of a bundle is {DESCRIPTION}, here it is {found}", offset=0)
    stored = _whole(archive, first, limits.description_size, "description_size")
    description = b"".join(decrypt([stored], description_key)) if description_key else stored
    if not description:
        raise FormatError(f"{DESCRIPTION} is empty", offset=first.data_offset)

    signature = None
    head: tuple[cpio.Member, ...] = (first,)
    waiting = archive.next()
    if waiting is not None and waiting.name == SIGNATURE:
        signature = _whole(archive, waiting, limits.signature_size, "signature_size")
        head = (first, waiting)
    if policy is None:
        signer = None
    elif signature is None:
        raise SignatureError(f"the bundle has no signature: its second member is not {SIGNATURE}")
    else:
        signer = policy.verify(signature, description, limits=limits)
    if signature is not None:
        waiting = archive.next()
    return BundleReader(archive, description, signature, signer, head, waiting)


def _whole(archive: cpio.Reader, member: cpio.Member, maximum: int, limit: str) -> bytes:
    if member.size > maximum:
        raise LimitError(f"{member.name} has {member.size} bytes, more than {maximum} (limit {limit})")
    pieces = []
    while piece := archive.read(member.size):
        pieces.append(piece)
    return b"".join(pieces)


def open_artifact(
    stored: Iterable[bytes],
    *,
    name: str,
    sha256: bytes,
    encrypted: AesKey | None = None,
    compressed: Codec | None = None,
    maximum: int | None = None,
    limits: Limits = DEFAULT,
) -> Iterator[bytes]:
    """The content of an artifact, from its bytes as stored: hashed, then decrypted, then decompressed, as they come.

    `sha256` is the digest of the stored bytes from the verified description. The end is reached only when the whole
    was hashed and the digest is right: who wrote the pieces elsewhere must undo that when DigestError comes instead.
    At most `maximum` bytes come out (the limits' `image_size` by default).

    Raises DigestError, UnlistedError (no digest to compare with), FormatError (data whose digest is right), LimitError.
    """
    _need_digest(sha256, name)
    return _opened(stored, name, sha256, encrypted, compressed, maximum, limits)


def _opened(
    stored: Iterable[bytes],
    name: str,
    sha256: bytes,
    encrypted: AesKey | None,
    compressed: Codec | None,
    maximum: int | None,
    limits: Limits,
) -> Iterator[bytes]:
    hasher = hashlib.sha256()
    broken = False  # whether the stored bytes themselves stopped with an error

    def hashed() -> Iterator[bytes]:
        nonlocal broken
        broken = True
        for piece in stored:
            hasher.update(piece)
            yield piece
        broken = False

    source = hashed()
    pieces: Iterator[bytes] = source
    if encrypted is not None:
        pieces = decrypt(pieces, encrypted)
    bound = limits.image_size if maximum is None else maximum
    try:
        if compressed is not None:
            pieces = decompress(pieces, compressed, maximum=bound, limits=limits)
        total = 0
        for piece in pieces:
            total += len(piece)
            if total > bound:
                raise LimitError(f"{name!r} has more than {bound} bytes of content (limit image_size)")
            if piece:
                yield piece
    except FormatError:
        # A decoder's complaint about bytes that are not the signed ones is beside the point.
        for _ in source:
            pass
        if not broken:
            _compare(hasher.digest(), sha256, name)
        raise
    _compare(hasher.digest(), sha256, name)


def spool(
    stored: Iterable[bytes], *, name: str, sha256: bytes, directory: str | None = None, limits: Limits = DEFAULT
) -> BinaryIO:
    """Copy an artifact's stored bytes into a nameless temporary file, and give that only if the digest is right.

    The file is at its beginning; it vanishes when closed. `directory` is where, the system's by default (TMPDIR).
    Raises DigestError, UnlistedError, LimitError, SpaceError, MediumError.
    """
    _need_digest(sha256, name)
    hasher, total = hashlib.sha256(), 0
    try:
        file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - the caller's to close
    except OSError as error:
        raise MediumError(f"no temporary file for {name!r}: {error}", cure="set TMPDIR to a writable folder") from None
    try:
        for piece in stored:
            total += len(piece)
            if total > limits.image_size:
                raise LimitError(f"{name!r} has more than {limits.image_size} bytes (limit image_size)")
            hasher.update(piece)
            _write(file, piece, name)
        _compare(hasher.digest(), sha256, name)
        _write(file, None, name)
    except BaseException:
        file.close()
        raise
    return file


def _write(file: BinaryIO, piece: bytes | None, name: str) -> None:
    try:
        if piece is None:
            file.seek(0)
        else:
            file.write(piece)
    except OSError as error:
        kind = SpaceError if error.errno == ENOSPC else MediumError
        raise kind(f"the temporary copy of {name!r} cannot be written: {error}") from None


def _need_digest(sha256: bytes, name: str) -> None:
    if len(sha256) != hashlib.sha256().digest_size:
        raise UnlistedError(f"{name!r} has no sha256 in the description")


def _compare(found: bytes, wanted: bytes, name: str) -> None:
    if not hmac.compare_digest(found, wanted):
        raise DigestError(f"{name!r} has the sha256 {found.hex()}, the description says {wanted.hex()}")


def check_complete(listed: Iterable[str], members: Collection[str]) -> None:
    """Raise FormatError for the first artifact that is listed but not in the bundle."""
    for name in listed:
        if name not in members:
            raise FormatError(f"{name!r} is listed in {DESCRIPTION}, but not in the bundle")
