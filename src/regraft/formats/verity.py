# SPDX-License-Identifier: Apache-2.0
"""dm-verity's superblock and hash tree, as `veritysetup format` writes them (cryptsetup's "DMVerity on-disk format").

A salted digest of each block of data; of each block of digests a digest, and so on, up to the root hash. All lies
behind a superblock of one block: the levels from the top down. Version 1, where the salt comes first.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct

from regraft.errors import DigestError, FormatError, LimitError, UnsupportedError
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

MAGIC = b"verity\0\0"
SUPERBLOCK = Struct("<8sII16s32sIIQH6x256s168x")
BLOCK = 4096
ALGORITHMS = ("sha256", "sha512", "sha1")
SALT_SIZE = 256  #: bytes at most
_READ = 1 << 20
#: Fill the view from this offset of the image on.
Read = Callable[[int, memoryview], None]


@dataclass(frozen=True, slots=True)
class Verity:
    """A hash tree: what it covers, and where it lies. Sizes in bytes.

    hash_offset: where the superblock is on the device with the tree.
    """

    root: bytes
    salt: bytes
    data_blocks: int
    algorithm: str = "sha256"
    data_block: int = BLOCK
    hash_block: int = BLOCK
    hash_offset: int = 0
    uuid: bytes = bytes(16)

    @property
    def tree_block(self) -> int:
        """Where the tree begins, in hash blocks from the start of its device: behind the superblock."""
        return self.hash_offset // self.hash_block + 1

    @property
    def tree_size(self) -> int:
        """Of superblock and tree."""
        return self.hash_block * (1 + sum(levels(self.data_blocks)))

    @property
    def data_size(self) -> int:
        return self.data_blocks * self.data_block


def levels(data_blocks: int) -> list[int]:
    """Blocks of digests in each level, from that just above the data up to the one block at the top."""
    found, count = [], data_blocks
    while count > 1:
        count = -(-count // (BLOCK // 32))
        found.append(count)
    return found


def parse_superblock(data: Buffer, *, limits: Limits = DEFAULT) -> Verity:
    """What a superblock says; the root hash is not in it. Raises FormatError, UnsupportedError, LimitError."""
    view = memoryview(data).cast("B")
    if len(view) < SUPERBLOCK.size:
        raise FormatError(f"verity superblock: {len(view)} bytes, it has {SUPERBLOCK.size}", offset=0)
    magic, version, kind, uuid, name, data_block, hash_block, blocks, salt_size, salt = SUPERBLOCK.unpack_from(view)
    if magic != MAGIC:
        raise FormatError(f"no verity superblock: it starts with {magic.hex(' ')}", offset=0)
    if version != 1 or kind != 1:
        raise UnsupportedError(f"verity superblock: version {version}, hash type {kind}; only 1 and 1 are known")
    algorithm = name.partition(b"\0")[0].decode("ascii", "replace")
    if algorithm != "sha256":
        raise UnsupportedError(f"verity superblock: digests by {algorithm!r}", cure="format with --hash sha256")
    if data_block != BLOCK or hash_block != BLOCK:
        raise UnsupportedError(
            f"verity superblock: blocks of {data_block} and {hash_block} bytes",
            cure=f"format with --data-block-size {BLOCK} --hash-block-size {BLOCK}",
        )
    if salt_size > SALT_SIZE:
        raise FormatError(f"verity superblock: a salt of {salt_size} bytes, {SALT_SIZE} have room", offset=80)
    if not 1 <= blocks <= limits.image_size // BLOCK:
        raise LimitError(f"verity superblock: {blocks} blocks of data")
    return Verity(b"", bytes(salt[:salt_size]), blocks, algorithm, uuid=uuid)


def build_superblock(verity: Verity) -> bytes:
    """The superblock, padded to a block."""
    head = SUPERBLOCK.pack(
        MAGIC, 1, 1, verity.uuid, verity.algorithm.encode(), verity.data_block, verity.hash_block, verity.data_blocks,
        len(verity.salt), verity.salt,
    )  # fmt: skip
    return head + bytes(verity.hash_block - len(head))


def build(
    read: Read,
    size: int,
    salt: bytes,
    *,
    uuid: bytes | None = None,
    advance: Callable[[int], None] = lambda _: None,
    limits: Limits = DEFAULT,
) -> tuple[Verity, bytes]:
    """The hash tree of an image of `size` bytes, whose last block is padded with zeros: superblock and tree.

    Without a `uuid` it is one derived from the root hash. Memory: the tree itself, 1/127 of the image.
    Raises LimitError if the tree is above `limits.verity_tree`, FormatError for an empty image or a salt above 256
    bytes, and what `read` raises.
    """
    if len(salt) > SALT_SIZE:
        raise FormatError(f"a salt of {len(salt)} bytes, {SALT_SIZE} are possible")
    if size < 1:
        raise FormatError("an empty image has no hash tree")
    blocks = -(-size // BLOCK)
    if (1 + sum(levels(blocks))) * BLOCK > limits.verity_tree:
        raise LimitError(f"a hash tree over {size} bytes is larger than limits.verity_tree = {limits.verity_tree}")
    salted = hashlib.sha256(salt)
    lowest = bytearray()
    for digests in _digests(read, size, salted, advance):
        lowest += digests
    tree = [lowest]
    while len(tree[-1]) > 32:
        below = tree[-1]
        below += bytes(-len(below) % BLOCK)
        above = bytearray()
        for at in range(0, len(below), BLOCK):
            hasher = salted.copy()
            hasher.update(memoryview(below)[at : at + BLOCK])
            above += hasher.digest()
        tree.append(above)
    root = bytes(tree.pop())
    if uuid is None:
        made = bytearray(hashlib.sha256(b"regraft verity uuid\0" + root).digest()[:16])
        made[6], made[8] = made[6] & 0x0F | 0x80, made[8] & 0x3F | 0x80  # RFC 9562, version 8
        uuid = bytes(made)
    verity = Verity(root, salt, blocks, uuid=uuid)
    return verity, build_superblock(verity) + b"".join(reversed(tree))


def _digests(read: Read, size: int, salted: hashlib._Hash, advance: Callable[[int], None]) -> Iterator[bytes]:
    buffer = memoryview(bytearray(_READ))
    for start in range(0, size, _READ):
        count = min(_READ, size - start)
        read(start, buffer[:count])
        whole = count + -count % BLOCK
        buffer[count:whole] = bytes(whole - count)
        found = bytearray()
        for at in range(0, whole, BLOCK):
            hasher = salted.copy()
            hasher.update(buffer[at : at + BLOCK])
            found += hasher.digest()
        yield bytes(found)
        advance(count)


def check_tree(tree: Buffer, root: bytes, *, limits: Limits = DEFAULT) -> Verity:
    """Superblock and tree whose digests lead up to the root hash. Raises FormatError, LimitError, DigestError."""
    verity = parse_superblock(tree, limits=limits)
    view = memoryview(tree).cast("B")
    sizes = levels(verity.data_blocks)
    if len(view) != BLOCK * (1 + sum(sizes)):
        raise FormatError(f"verity tree of {len(view)} bytes, {BLOCK * (1 + sum(sizes))} belong to its blocks")
    if len(root) != 32:
        raise FormatError(f"a root hash of {len(root)} bytes, SHA-256 has 32")
    salted = hashlib.sha256(verity.salt)
    expected, at = bytearray(root), BLOCK
    for count in reversed(sizes):
        level = view[at : at + count * BLOCK]
        for block in range(count):
            hasher = salted.copy()
            hasher.update(level[block * BLOCK : (block + 1) * BLOCK])
            if not hmac.compare_digest(hasher.digest(), bytes(expected[32 * block : 32 * block + 32])):
                raise DigestError(f"verity tree: block {at // BLOCK + block} differs from its digest")
        expected, at = bytearray(level), at + count * BLOCK
    return Verity(root, verity.salt, verity.data_blocks, verity.algorithm, uuid=verity.uuid)
