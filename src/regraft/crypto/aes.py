# SPDX-License-Identifier: Apache-2.0
"""AES as SWUpdate's `encrypted` artifacts use it: CBC with PKCS#7 padding, or CTR; keys of 128, 192 or 256 bits."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR

from regraft.errors import FormatError, UnsupportedError, UsageError

BLOCK = 16  #: bytes
_KEY_SIZES = (16, 24, 32)
_CIPHERS = {f"aes-{mode}{size}" for mode in ("cbc", "ctr") for size in ("", "-128", "-192", "-256")}


@dataclass(frozen=True, slots=True)
class AesKey:
    """A key of 16, 24 or 32 bytes and an initial vector of 16. Neither is ever shown."""

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)
    mode: Literal["cbc", "ctr"] = "cbc"

    def __post_init__(self) -> None:
        if len(self.key) not in _KEY_SIZES:
            raise UsageError(f"an AES key of {len(self.key)} bytes", cure="AES keys have 16, 24 or 32 bytes")
        if len(self.iv) != BLOCK:
            raise UsageError(f"an initial vector of {len(self.iv)} bytes", cure=f"give {2 * BLOCK} hexadecimal digits")

    def with_iv(self, iv: bytes) -> AesKey:
        """The same key with an artifact's own initial vector (attribute `ivt`)."""
        return replace(self, iv=iv)

    def for_cipher(self, name: str) -> AesKey:
        """The same key in the mode of a cipher as sw-description names it, e.g. `aes-ctr-256`.

        Raises UnsupportedError for another cipher, UsageError when the key has another length than the cipher's.
        """
        if name not in _CIPHERS:
            raise UnsupportedError(f"the cipher {name!r} is not known", cure="use aes-cbc or aes-ctr")
        _, mode, *size = name.split("-")
        if size and int(size[0]) != 8 * len(self.key):
            raise UsageError(f"{name} needs a key of {size[0]} bits, the one given has {8 * len(self.key)}")
        return replace(self, mode="cbc" if mode == "cbc" else "ctr")

    def _cipher(self) -> Cipher[CBC | CTR]:
        return Cipher(AES(self.key), CBC(self.iv) if self.mode == "cbc" else CTR(self.iv))


def load_key_file(text: bytes) -> AesKey:
    """From the file given with SWUpdate's `-K`: one line, the key and the initial vector in hexadecimal digits.

    Raises UsageError.
    """
    words = text.decode("latin-1").split()
    if len(words) != 2 or len(text) > 4096 or any(set(word) - set(string.hexdigits) or len(word) % 2 for word in words):
        raise UsageError(
            "the AES key file is not one line of key and initial vector in hexadecimal digits",
            cure="write e.g. `openssl rand -hex 32` and `openssl rand -hex 16` into it, with a blank between",
        )
    return AesKey(bytes.fromhex(words[0]), bytes.fromhex(words[1]))


def decrypt(pieces: Iterable[bytes], key: AesKey) -> Iterator[bytes]:
    """The plain bytes, as they become known; at most one block is held back.

    Raises FormatError for CBC when the padding is wrong, which is also how a wrong key shows.
    """
    context = key._cipher().decryptor()
    if key.mode == "ctr":
        for piece in pieces:
            yield context.update(piece)
        return
    total, held = 0, b""
    for piece in pieces:
        total += len(piece)
        plain = held + context.update(piece)
        if len(plain) > BLOCK:
            yield plain[:-BLOCK]
        held = plain[-BLOCK:]
    if total % BLOCK or len(held) != BLOCK:
        raise FormatError(f"encrypted data of {total} bytes, which are not whole blocks of {BLOCK}", offset=total)
    fill = held[-1]
    if not 1 <= fill <= BLOCK or held[-fill:] != bytes([fill]) * fill:
        raise FormatError(
            "encrypted data whose padding is wrong", offset=total - BLOCK, cure="give the right key file with -K"
        )
    yield held[:-fill]


def encrypt(pieces: Iterable[bytes], key: AesKey) -> Iterator[bytes]:
    """The encrypted bytes, as `openssl enc -aes-256-cbc -K … -iv …` makes them."""
    context = key._cipher().encryptor()
    total = 0
    for piece in pieces:
        total += len(piece)
        yield context.update(piece)
    if key.mode == "cbc":
        fill = BLOCK - total % BLOCK
        yield context.update(bytes([fill]) * fill)
