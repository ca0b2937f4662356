# SPDX-License-Identifier: Apache-2.0
"""Options and parts that the verbs about existing bundles share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import click

from regraft.errors import UsageError
from regraft.limits import DEFAULT, KIB

if TYPE_CHECKING:
    from regraft.crypto.aes import AesKey
    from regraft.crypto.trust import Purpose
    from regraft.swupdate.bundle import Mode, SignaturePolicy


def trust_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say whose signature counts, with the letters and words that swupdate uses."""
    options = (
        click.option("-k", "--key", "key", metavar="FILE", help="Trusted certificates, or the public key: a PEM file."),
        click.option(
            "-K", "--key-aes", "key_aes", metavar="FILE", help="AES key file, for an encrypted sw-description."
        ),
        click.option(
            "--mode",
            type=click.Choice(["auto", "cms", "rsa", "rsa-pss"]),
            default="auto",
            show_default=True,
            help="Kind of signature; auto goes by the content of -k.",
        ),
        click.option(
            "--purpose",
            "--cert-purpose",
            "purpose",
            type=click.Choice(["emailProtection", "codeSigning", "any"]),
            default="emailProtection",
            show_default=True,
            help="What the signer's certificate must be meant for.",
        ),
        click.option(
            "--signer-name", "--forced-signer-name", "signer_name", metavar="CN", help="The signer's common name."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class TrustChoice:
    """What the trust options were set to."""

    key: str | None
    key_aes: str | None
    mode: str
    purpose: str
    signer_name: str | None

    def policy(self) -> SignaturePolicy | None:
        """None without -k. Raises UsageError for an unreadable file, FormatError for what is wrong inside."""
        if self.key is None:
            return None
        from datetime import UTC, datetime

        from regraft.crypto.trust import Trust
        from regraft.swupdate.bundle import SignaturePolicy

        return SignaturePolicy(
            Trust.load(small_file(self.key)),
            datetime.now(UTC),
            cast("Mode", self.mode),
            cast("Purpose", self.purpose),
            self.signer_name,
        )

    def description_key(self) -> AesKey | None:
        if self.key_aes is None:
            return None
        from regraft.crypto.aes import load_key_file

        return load_key_file(small_file(self.key_aes))


def small_file(path: str) -> bytes:
    """The content of a key or certificate file. Raises UsageError."""
    maximum = DEFAULT.certificates * 16 * KIB
    try:
        with open(path, "rb") as file:
            content = file.read(maximum + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", cure="give a readable file") from None
    if len(content) > maximum:
        raise UsageError(f"{path} is larger than {maximum} bytes", cure="give a file of keys or certificates")
    return content


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """The bundle's bytes; `-` is the standard input. Raises UsageError."""
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", cure="give the path of a bundle") from None
    with file:
        yield file
