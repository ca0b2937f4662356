# SPDX-License-Identifier: Apache-2.0
"""Install a bundle as swupdate would: verify, select, check the device, then hand each artifact to its handler.

Everything that can be refused is refused before anything is written: signature, hardware, version, handlers, targets,
digests that are missing. What is left to fail later is an artifact that is not as signed, the network, and the media.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from regraft.crypto.aes import AesKey
from regraft.crypto.signer import Signer
from regraft.device.hardware import Hardware, check_hardware
from regraft.device.versions import Installed, VersionPolicy, check_version, skip_reason
from regraft.errors import FormatError, MissingError, UnlistedError, UnsupportedError, UsageError
from regraft.limits import DEFAULT, Limits
from regraft.swupdate.bundle import (
    Artifact,
    BundleReader,
    Readable,
    SignaturePolicy,
    open_artifact,
    read_bundle,
    spool,
)
from regraft.swupdate.description import Description, Entry, installation_order, parse
from regraft.swupdate.handlers import Context, Forecast, Handler, Report, handler_for
from regraft.swupdate.listing import check_digest, listed_digests
from regraft.swupdate.selection import select

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Device:
    """What a device knows and demands. hardware: None if unknown. bootloader: "" if variables cannot be set at all."""

    hardware: Hardware | None = None
    installed: Installed = ()
    versions: VersionPolicy = field(default_factory=VersionPolicy)
    set_mode: tuple[str, str] | None = None
    bootloader: str = ""


@dataclass(frozen=True, slots=True)
class Keys:
    """Whom to trust, and how to decrypt. policy None: an unsigned bundle is installed on purpose."""

    policy: SignaturePolicy | None = None
    aes: AesKey | None = None
    encrypted_description: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A bundle that passed every check that needs no artifact."""

    reader: BundleReader
    description: Description
    handlers: tuple[tuple[Entry, Handler], ...]
    skipped: tuple[tuple[Entry, str], ...]
    listed: Mapping[str, frozenset[bytes]]  #: of the whole description, all boards and selections

    @property
    def signer(self) -> Signer | None:
        return self.reader.signer


def prepare(
    stream: Readable,
    device: Device,
    keys: Keys,
    context: Context,
    *,
    limits: Limits = DEFAULT,
) -> Prepared:
    """Read and verify the bundle's head, and check that this device can install all of it.

    Raises SignatureError, FormatError, HardwareError, VersionError, UnlistedError, MissingError, MediumError.
    """
    reader = read_bundle(
        stream,
        keys.policy,
        unsigned=keys.policy is None,
        description_key=keys.aes if keys.encrypted_description else None,
        limits=limits,
    )
    board = device.hardware.board if device.hardware else ""
    tree = parse(reader.description, limits=limits)
    description = select(tree, board=board, set_mode=device.set_mode, limits=limits)
    check_hardware(description.hardware, device.hardware, limits=limits)
    check_version(description.version, device.versions)
    _check_parts(description, device)
    handlers, skipped = [], []
    for entry in description.entries:
        reason = skip_reason(
            entry.name,
            entry.version,
            different=entry.install_if_different,
            higher=entry.install_if_higher,
            installed=device.installed,
        )
        if reason:
            skipped.append((entry, reason))
            continue
        _check_entry(entry, keys)
        handler = handler_for(entry, context)
        handler.check()
        handlers.append((entry, handler))
    if not handlers and not skipped:
        raise FormatError("nothing in the bundle is for this selection", cure="choose another with -e SET,MODE")
    return Prepared(reader, description, tuple(handlers), tuple(skipped), listed_digests(tree))


def _check_parts(description: Description, device: Device) -> None:
    if description.embedded_script:
        raise MissingError("the bundle has an embedded Lua script, which regraft does not run")
    if (description.bootenv or description.vars) and device.bootloader != "none":
        raise MissingError(
            "the bundle sets bootloader variables, for which regraft has no interface",
            cure="set them otherwise and install with -B none, which leaves them alone as swupdate does",
        )


def _check_entry(entry: Entry, keys: Keys) -> None:
    if entry.sha256 is None:
        raise UnlistedError(f"{entry.filename!r} has no sha256 in the signed description")
    if entry.encrypted and keys.aes is None:
        raise UsageError(f"{entry.filename!r} is encrypted", cure="give the AES key file with -K")
    if entry.preinstall or entry.postinstall or entry.hook:
        raise MissingError(f"{entry.filename!r} has Lua functions around it, which regraft does not run")
    if entry.compressed == "lz4":
        raise UnsupportedError(f"{entry.filename!r} is compressed with lz4, which regraft does not read")


def install(prepared: Prepared, keys: Keys, *, limits: Limits = DEFAULT) -> list[Report]:
    """Install everything, in SWUpdate's order: streamed artifacts as they arrive, then partitions, images, files.

    Artifacts that are not streamed are first copied (as stored) to TMPDIR, and used only when their digest is right.
    """
    reports = [Report(entry, "", 0, skipped=reason) for entry, reason in prepared.skipped]
    for handler, content in _with_content(prepared, keys, limits):
        reports.append(handler.install(content()))
    return reports


def forecast(prepared: Prepared, keys: Keys, *, limits: Limits = DEFAULT) -> list[Forecast]:
    """What `install` would do. Reads the bundle and the sources; writes and fetches nothing."""
    return [handler.forecast(content()) for handler, content in _with_content(prepared, keys, limits)]


def check(prepared: Prepared, keys: Keys, *, limits: Limits = DEFAULT) -> None:
    """Read the whole bundle and verify every artifact in it (swupdate -c)."""
    for _, content in _with_content(prepared, keys, limits):
        for _ in content():
            pass


def _with_content(
    prepared: Prepared, keys: Keys, limits: Limits
) -> Iterator[tuple[Handler, Callable[[], Iterator[bytes]]]]:
    """Each handler with its artifact's content, in the order of installation."""
    waiting: dict[str, list[Entry]] = {}
    for entry, _ in prepared.handlers:
        waiting.setdefault(entry.filename, []).append(entry)
    handlers = {id(entry): handler for entry, handler in prepared.handlers}
    spooled: dict[str, BinaryIO] = {}
    with ExitStack() as files:
        for member in prepared.reader.members():
            entries = waiting.pop(member.name, [])
            if not entries:
                _check_unused(member, prepared.listed)
            _check_sizes(member, entries)
            if len(entries) == 1 and entries[0].installed_directly:
                entry, pieces = entries[0], member.pieces()
                yield handlers.pop(id(entry)), partial(_content, entry, pieces, keys, limits)
            elif entries:
                digest = entries[0].sha256 or b""
                file = spool(member.pieces(), name=member.name, sha256=digest, limits=limits)
                spooled[member.name] = files.enter_context(file)
        for name in waiting:
            raise FormatError(f"{name!r} is listed in sw-description, but not in the bundle", cure="build it again")
        for step in installation_order(prepared.description):
            entry = step.entry
            if id(entry) in handlers:
                pieces = _pieces(spooled[entry.filename])
                yield handlers[id(entry)], partial(_content, entry, pieces, keys, limits)


def _check_unused(member: Artifact, listed: Mapping[str, frozenset[bytes]]) -> None:
    """An artifact that nothing here wants may be meant for another board or selection, but signed it must be."""
    hasher = hashlib.sha256()
    for piece in member.pieces():
        hasher.update(piece)
    check_digest(member.name, hasher.digest(), listed)


def _check_sizes(member: Artifact, entries: list[Entry]) -> None:
    for entry in entries:
        if entry.size is not None and entry.size != member.size:
            raise FormatError(f"{member.name!r} has {member.size} bytes, the description says {entry.size}")
        if entry.sha256 != entries[0].sha256:
            raise FormatError(f"{member.name!r} is listed twice, with different digests")


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(_PIECE):
        yield piece


def _content(entry: Entry, pieces: Iterator[bytes], keys: Keys, limits: Limits) -> Iterator[bytes]:
    """The artifact's bytes: hashed, decrypted, decompressed."""
    aes = None
    if entry.encrypted and keys.aes is not None:
        aes = keys.aes
        if entry.aes_key is not None:
            aes = AesKey(entry.aes_key, aes.iv)
        if entry.cipher:
            aes = aes.for_cipher(entry.cipher)
        if entry.ivt is not None:
            aes = aes.with_iv(entry.ivt)
    return open_artifact(
        pieces,
        name=entry.filename,
        sha256=entry.sha256 or b"",
        encrypted=aes,
        compressed=None if entry.compressed == "lz4" else entry.compressed,
        limits=limits,
    )
