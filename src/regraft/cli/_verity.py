# SPDX-License-Identifier: Apache-2.0
"""Where the hash tree of an image is found: in its artifact or, from there, in its description in a chunk store; in a
file of its own; or behind the image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from regraft.cli._network import Network
from regraft.errors import DigestError, FormatError, MissingError, RegraftError, UsageError
from regraft.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from regraft.blockdev.export import Export
    from regraft.blockdev.views import Joined
    from regraft.formats.verity import Verity

#: Entries of metadata: of a bita archive, and of an image in a chunk store.
ROOT, SALT, TREE = "verity.root", "verity.salt", "verity.tree"


@contextmanager
def with_tree(
    what: str, image: Export, *, root: str, offset: int, tree: str, network: Network, limits: Limits = DEFAULT
) -> Iterator[tuple[Joined, Verity]]:
    """The image with the hash tree behind it as one export, and what the tree says of itself.

    root: the root hash in hexadecimal, "" for that of the artifact, or of the description of an image in a store.
    offset: where in the image the superblock is, 0 if not there. tree: a file with superblock and tree, "" for what the
    artifact or description has. Digests of the tree are checked up to the root, unless it is part of the image. Raises
    UsageError, FormatError, DigestError, MissingError.
    """
    from regraft.blockdev.views import Stored, joined
    from regraft.formats import verity

    if offset:
        found = _in_image(image, offset, _root(root))
        yield joined([image], name=image.name), found
        return
    content, stated = _file(tree, limits), b""
    if not tree:
        entries = _metadata(what, network, limits)
        content, stated = entries.get(TREE, b""), _hex(entries.get(ROOT, b"").decode("ascii", "replace"), ROOT)
        if not content or not stated:
            raise MissingError(
                f"{what} has no hash tree", cure="pack it with --verity, or give --tree or --hash-offset"
            )
    wanted = _root(root) if root or tree else stated
    if stated and wanted != stated:
        raise DigestError(f"{what}: its hash tree has the root {stated.hex()}, not {wanted.hex()}")
    found = verity.check_tree(content, wanted, limits=limits)
    if found.data_size != -(-image.size // found.data_block) * found.data_block:
        raise FormatError(f"a hash tree over {found.data_size} bytes, for an image of {image.size}")
    stored = Stored(content, name="verity tree")
    try:
        whole = joined([image, stored], name=image.name)
        yield whole, replace(found, hash_offset=whole.starts[1])
    finally:
        stored.close()


def hash_tree(image: str, salt: str | None, *, limits: Limits = DEFAULT) -> dict[str, bytes]:
    """The entries of metadata that carry the hash tree of the image at a path.

    salt: in hexadecimal, "-" for none; without one it is derived from the image, so that the same image always has the
    same tree. Raises UsageError, LimitError, SourceError.
    """
    import hashlib

    from regraft.engine.files import open_source
    from regraft.errors import ChangedError
    from regraft.formats import verity

    source = open_source(image)
    try:
        size = source.size

        def read(offset: int, view: memoryview) -> None:
            if source.read_into(offset, view) < len(view):
                raise ChangedError(f"{image} became shorter while it was packed", cure="pack a file at rest")

        if salt is None:
            hasher, buffer = hashlib.sha256(b"regraft verity salt\0"), memoryview(bytearray(limits.batch))
            for start in range(0, size, limits.batch):
                piece = buffer[: min(limits.batch, size - start)]
                read(start, piece)
                hasher.update(piece)
            salted = hasher.digest()
        else:
            try:
                salted = b"" if salt == "-" else bytes.fromhex(salt)
            except ValueError:
                raise UsageError(f"--verity-salt {salt!r} is not hexadecimal") from None
            if len(salted) > verity.SALT_SIZE:
                raise UsageError(f"--verity-salt has {len(salted)} bytes, {verity.SALT_SIZE} are possible")
        found, tree = verity.build(read, size, salted, limits=limits)
    finally:
        source.close()
    return {ROOT: found.root.hex().encode(), SALT: found.salt.hex().encode(), TREE: tree}


def _in_image(image: Export, offset: int, root: bytes) -> Verity:
    from regraft.formats import verity

    head = bytearray(verity.SUPERBLOCK.size)
    if offset % verity.BLOCK or offset + verity.BLOCK > image.size:
        raise UsageError(f"--hash-offset {offset}: it is a multiple of {verity.BLOCK} within the image of {image.size}")
    image.read_into(offset, memoryview(head))
    found = replace(verity.parse_superblock(head), root=root, hash_offset=offset)
    if found.data_size > offset or offset + found.tree_size > image.size:
        raise FormatError(
            f"a hash tree over {found.data_size} bytes at {offset} does not fit the image of {image.size}"
        )
    return found


def _root(text: str) -> bytes:
    if not text:
        raise UsageError("--verity needs --root-hash for a tree that is not in an artifact")
    return _hex(text, "--root-hash")


def _hex(text: str, what: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"{what} {text!r} is not hexadecimal") from None
    if len(found) not in (0, 32):
        raise UsageError(f"{what} has {len(found)} bytes, SHA-256 has 32")
    return found


def _file(path: str, limits: Limits) -> bytes:
    from regraft.engine.files import open_source
    from regraft.engine.medium import read_all

    if not path:
        return b""
    source = open_source(path)
    try:
        return read_all(source, limits.verity_tree)
    except ValueError as error:
        raise UsageError(f"{error} (limits.verity_tree)") from None
    finally:
        source.close()


def _metadata(what: str, network: Network, limits: Limits) -> dict[str, bytes]:
    from regraft.cli._artifact import open_artifact
    from regraft.cli._store import metadata_of

    try:
        with open_artifact(what, network, limits=limits) as artifact:
            return metadata_of(artifact)
    except RegraftError as error:
        raise MissingError(
            f"{what} has no hash tree: {error}", cure="pack it with --verity, or give --tree or --hash-offset"
        ) from None
