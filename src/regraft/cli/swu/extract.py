# SPDX-License-Identifier: Apache-2.0
"""`regraft swu extract`: take a bundle apart."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Self

import click

from regraft.cli._output import say
from regraft.cli.swu._bundle import TrustChoice, opened, trust_options
from regraft.errors import MediumError, RegraftError, SpaceError, UsageError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


@click.command(
    epilog="""Examples:

\b
  regraft swu extract update.swu -C parts -k cert.pem
  regraft swu extract update.swu -C parts --unsigned
"""
)
@click.argument("bundle")
@click.option("-C", "--directory", required=True, metavar="DIR", help="Where to; made if it is not there.")
@click.option("--unsigned", is_flag=True, help="Extract without a trusted key: nothing is verified.")
@trust_options
def command(
    bundle: str,
    directory: str,
    unsigned: bool,
    key: str | None,
    key_aes: str | None,
    mode: str,
    purpose: str,
    signer_name: str | None,
) -> None:
    """Extract the members of BUNDLE (`-` for standard input) as they are stored, into new files.

    With -k the signature is verified first, and a file gets its name only when the signed sw-description lists it
    with its digest. Nothing that exists is overwritten.
    """
    from regraft.swupdate.bundle import DESCRIPTION, SIGNATURE, read_bundle
    from regraft.swupdate.description import parse
    from regraft.swupdate.listing import listed_digests

    choice = TrustChoice(key, key_aes, mode, purpose, signer_name)
    policy = choice.policy()
    if policy is None and not unsigned:
        raise UsageError(
            "without a trusted key nothing can be verified",
            cure="give the certificate or public key with -k, or --unsigned to extract all the same",
        )
    if policy is not None and unsigned:
        raise UsageError("--unsigned and -k exclude each other", cure="give one of the two")
    if unsigned:
        say("NOT VERIFIED: no -k was given, anybody may have made this bundle")
    with opened(bundle) as stream:
        reader = read_bundle(stream, policy, unsigned=unsigned, description_key=choice.description_key())
        listed = None if unsigned else listed_digests(parse(reader.description))
        with _Folder(directory) as folder:
            folder.put(DESCRIPTION, [reader.description], None)
            if reader.signature is not None:
                folder.put(SIGNATURE, [reader.signature], None)
            for artifact in reader.members():
                folder.put(artifact.name, artifact.pieces(), listed)
    say(f"extracted {folder.count} files into {directory}")


class _Folder:
    """New files below one directory, which is held open so that nobody can put another in its place."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.count = 0

    def __enter__(self) -> Self:
        try:
            os.makedirs(self._path, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise UsageError(f"{self._path} cannot be used: {error.strerror}", cure="give a folder with -C") from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def put(self, name: str, pieces: Iterable[bytes], listed: Mapping[str, frozenset[bytes]] | None) -> None:
        """Write a file under a temporary name, and give it its own when its sha256 is the one `listed` (None: any).

        Components of `name` were checked by the archive's reader; links on the way are not followed.
        """
        import hashlib

        from regraft.swupdate.listing import check_digest

        *parents, last = name.split("/")
        temporary = f".{os.getpid()}.{self.count}.part"
        descriptor = os.dup(self._descriptor)
        try:
            for parent in parents:
                descriptor = _below(descriptor, parent)
            os.close(os.open(last, _NEW, 0o644, dir_fd=descriptor))
            done = False
            try:
                hasher = hashlib.sha256()
                with open(os.open(temporary, _NEW, 0o644, dir_fd=descriptor), "wb") as out:
                    for piece in pieces:
                        hasher.update(piece)
                        out.write(piece)
                if listed is not None:
                    check_digest(name, hasher.digest(), listed)
                os.replace(temporary, last, src_dir_fd=descriptor, dst_dir_fd=descriptor)
                done = True
            finally:
                for leftover in () if done else (temporary, last):
                    with suppress(OSError):
                        os.unlink(leftover, dir_fd=descriptor)
        except FileExistsError:
            raise UsageError(f"{name!r} is already in {self._path}", cure="give an empty folder with -C") from None
        except OSError as error:
            raise _error(error, name) from None
        finally:
            os.close(descriptor)
        self.count += 1


def _below(descriptor: int, parent: str) -> int:
    """Descend into `parent`, made if need be; closes the descriptor given when that worked."""
    with suppress(FileExistsError):
        os.mkdir(parent, 0o755, dir_fd=descriptor)
    inner = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
    os.close(descriptor)
    return inner


def _error(error: OSError, name: str) -> RegraftError:
    import errno

    kind = SpaceError if error.errno == errno.ENOSPC else MediumError
    return kind(f"{name!r} cannot be written: {error.strerror}", cure="check the folder given with -C and its space")
