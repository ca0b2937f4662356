# SPDX-License-Identifier: Apache-2.0
"""`regraft swu build`: a bundle from an artifact, or from a description and its files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from regraft.cli._options import examples, json_option
from regraft.cli._output import emit_json, say, size
from regraft.cli.swu._bundle import small_file
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.build.bundle import DescriptionSigner
    from regraft.build.description import Artifact

_PIECE = 1 << 20


@click.command(
    epilog=examples(
        "regraft swu build --delta rootfs.zck --device /dev/mmcblk0p3 --source /dev/mmcblk0p2 \\",
        "    --url https://host/rootfs.zck --hardware 1.0 --version 2.1.0 --key key.pem --cert cert.pem -o update.swu",
        "regraft swu build --description sw-description.in --file rootfs.zck.header --file boot.img \\",
        "    --key key.pem --cert cert.pem -o update.swu",
    )
)
@click.option("--delta", metavar="FILE.zck", help="Make the description for a delta update of this artifact.")
@click.option("--device", default="", help="Target device of the chained handler, e.g. /dev/mmcblk0p3.")
@click.option("--path", default="", help="Target file, with --chain rawfile.")
@click.option("--source", default="", help="Where the device finds the old image.")
@click.option("--url", default="", help="Where the device fetches FILE.zck.")
@click.option("--chain", default=None, help="Handler that takes the image.  [default: raw, or rawfile with --path]")
@click.option("--version", default="", help="Of the release.")
@click.option("--hardware", multiple=True, metavar="REVISION", help="Compatible hardware revision. Repeatable.")
@click.option("--board", default="", help="Put the entry under this board.")
@click.option("--set", "set_mode", default="", metavar="SET,MODE", help="Put the entry under this selection.")
@click.option("--max-ranges", type=click.IntRange(1), default=None, help="Ranges that a device asks for at once.")
@click.option("--property", "properties", multiple=True, metavar="NAME=VALUE", help="Further property. Repeatable.")
@click.option("--description", metavar="FILE", help="sw-description, or a template of it.")
@click.option("--file", "files", multiple=True, metavar="FILE", help="Artifact for --description. Repeatable.")
@click.option("--encrypt", "encrypted", multiple=True, metavar="FILE", help="The same, encrypted. Repeatable.")
@click.option("-K", "--key-aes", metavar="FILE", help="AES key file for --encrypt: one line, key and IV in hex.")
@click.option("--set-variable", "variables", multiple=True, metavar="NAME=VALUE", help="For @@NAME@@ in a template.")
@click.option("--key", metavar="PEM", help="Private key to sign with.")
@click.option("--cert", metavar="PEM", help="Certificate of the key: signs with CMS. Without: bare RSA.")
@click.option("--rsa-pss", is_flag=True, help="Without --cert: RSA-PSS instead of PKCS#1 v1.5.")
@click.option("--unsigned", is_flag=True, help="Leave the bundle unsigned; most devices refuse that.")
@click.option("-o", "--output", required=True, metavar="FILE.swu", help="The bundle to write.")
@json_option
def command(output: str, as_json: bool, **options: Any) -> None:
    """Build a bundle that stock swupdate installs, from a zchunk file or from a description.

    Signed with CMS, the signing time is the current one or SOURCE_DATE_EPOCH.
    """
    from regraft.build.bundle import write_bundle
    from regraft.engine.files import replacing

    if bool(options["delta"]) == bool(options["description"]):
        raise UsageError("give either --delta FILE.zck or --description FILE")
    if options["delta"] and (options["encrypted"] or options["key_aes"] or options["files"]):
        raise UsageError("--file, --encrypt and --key-aes go with --description")
    signer = _signer(options["key"], options["cert"], options["rsa_pss"], options["unsigned"])
    written = 0
    with ExitStack() as scratch, replacing(output) as medium:
        if options["delta"]:
            description, artifacts = _delta(options)
        else:
            description, artifacts = _from_template(options, scratch)

        def write(piece: bytes) -> None:
            nonlocal written
            medium.write(written, piece)
            written += len(piece)

        write_bundle(write, description, artifacts, signer=signer)
    if as_json:
        emit_json("swu-build", {"file": output, "size": written, "members": [name for name, _ in artifacts]})
    else:
        say(f"{output}: {size(written)}, {'signed' if signer else 'NOT SIGNED'}; `regraft swu lint {output}` checks it")


def _signer(key: str | None, cert: str | None, pss: bool, unsigned: bool) -> DescriptionSigner | None:
    from datetime import UTC, datetime

    from regraft.build.bundle import CmsSigner, RsaSigner, signing_time
    from regraft.crypto.trust import load_certificate, load_private_key

    if unsigned != (key is None):
        raise UsageError("a bundle is signed with --key, or left --unsigned on purpose")
    if key is None:
        return None
    private = load_private_key(small_file(key))
    if cert is None:
        return RsaSigner(private, "rsa-pss" if pss else "rsa")
    certificate, intermediates = load_certificate(small_file(cert))
    at = signing_time(dict(os.environ), datetime.now(UTC))
    return CmsSigner(certificate, private, intermediates, at)


def _delta(options: dict[str, Any]) -> tuple[bytes, list[tuple[str, Any]]]:
    import hashlib

    from regraft.build import description as builder
    from regraft.cli._artifact import open_artifact, read_header
    from regraft.cli._network import Network
    from regraft.engine.files import open_source
    from regraft.engine.match import match
    from regraft.engine.stream import Streamer

    path = options["delta"]
    medium = open_source(path)
    try:
        _, header = read_header(medium)
    finally:
        medium.close()
    image = hashlib.sha256()
    with open_artifact(path, Network()) as artifact:  # decoding all of it also proves that the artifact is whole
        for piece in Streamer(match(artifact.recipe, []), [], [artifact.blob]).pieces():
            image.update(piece)
        image_size = artifact.recipe.size
    name = os.path.basename(path) + ".header"
    request = builder.DeltaRequest(
        header=builder.Artifact(name, len(header), hashlib.sha256(header).digest()),
        url=options["url"],
        source=options["source"],
        version=options["version"],
        device=options["device"],
        path=options["path"],
        chain=options["chain"] or ("rawfile" if options["path"] else "raw"),
        hardware=options["hardware"],
        board=options["board"],
        set_mode=set_mode_of(options["set_mode"]),
        max_ranges=options["max_ranges"] or builder.MAX_RANGES,
        properties=tuple(pair(text) for text in options["properties"]),
        image_sha256=image.digest(),
        image_size=image_size,
    )
    return builder.describe_delta(request), [(name, header)]


def set_mode_of(text: str) -> tuple[str, str] | None:
    """SET,MODE as given with -e; None for nothing. Raises UsageError."""
    if not text:
        return None
    words = text.split(",")
    if len(words) != 2 or not all(words):
        raise UsageError(f"{text!r} is not SET,MODE", cure="give it as e.g. stable,copy1")
    return words[0], words[1]


def pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UsageError(f"{text!r} is not NAME=VALUE")
    return name, value


def _from_template(options: dict[str, Any], scratch: ExitStack) -> tuple[bytes, list[tuple[str, Any]]]:
    from regraft.build.description import fill_template

    paths = _encrypted(options["files"], options["encrypted"], options["key_aes"], scratch)
    template = small_file(options["description"])
    described = [_measured(path) for path in paths]
    description = fill_template(template, described, variables=dict(pair(text) for text in options["variables"]))
    _check_marks(description, {os.path.basename(path) for path in options["encrypted"]})
    return description, [(artifact.name, path) for artifact, path in zip(described, paths, strict=True)]


def _encrypted(plain: Sequence[str], encrypted: Sequence[str], key_file: str | None, scratch: ExitStack) -> list[str]:
    """All paths, where those of `encrypted` lead to encrypted copies under the same names."""
    import tempfile

    from regraft.crypto.aes import encrypt, load_key_file

    if bool(encrypted) != (key_file is not None):
        raise UsageError("artifacts are encrypted with --encrypt FILE and --key-aes KEYFILE together")
    paths = list(plain)
    if key_file is None:
        return paths
    key = load_key_file(small_file(key_file))
    for number, path in enumerate(encrypted):
        folder = scratch.enter_context(tempfile.TemporaryDirectory(prefix="regraft-"))
        copy = os.path.join(folder, os.path.basename(path))
        with open(path, "rb") as source, open(copy, "wb") as out:
            out.writelines(encrypt(_pieces(source), key))
        paths.insert(number, copy)
    return paths


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    while piece := source.read(_PIECE):
        yield piece


def _check_marks(description: bytes, encrypted: set[str]) -> None:
    """A device must be told which artifacts to decrypt, and only those."""
    from regraft.swupdate.description import parse
    from regraft.swupdate.selection import select, selections

    tree = parse(description)
    for board, set_mode in selections(tree):
        for entry in select(tree, board=board, set_mode=set_mode).artifacts():
            if entry.encrypted != (entry.filename in encrypted):
                told = "is marked as encrypted, but not given" if entry.encrypted else "is encrypted, but not marked so"
                raise UsageError(
                    f"{entry.filename!r} {told}", cure="`encrypted = true;` in its entry and --encrypt FILE go together"
                )


def _measured(path: str) -> Artifact:
    import hashlib

    from regraft.build.description import Artifact
    from regraft.engine.files import open_source

    medium = open_source(path)
    hasher, offset, buffer = hashlib.sha256(), 0, memoryview(bytearray(1 << 20))
    try:
        while count := medium.read_into(offset, buffer):
            hasher.update(buffer[:count])
            offset += count
    finally:
        medium.close()
    return Artifact(os.path.basename(path), offset, hasher.digest())
