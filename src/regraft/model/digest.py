# SPDX-License-Identifier: Apache-2.0
"""Digests, and columns of equally long digests."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol, overload

from regraft.errors import MissingError
from regraft.model.buffers import Buffer


class Hasher(Protocol):
    """What `Algorithm.hasher` returns: feed bytes, then take the digest."""

    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...


class _Truncated:
    """The first `size` bytes of another hash, e.g. zchunk's SHA-512/128 (not NIST's SHA-512/t)."""

    __slots__ = ("_inner", "_size")

    def __init__(self, inner: Hasher, size: int) -> None:
        self._inner, self._size = inner, size

    def update(self, data: Buffer, /) -> None:
        self._inner.update(data)

    def digest(self) -> bytes:
        return self._inner.digest()[: self._size]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A digest algorithm of the formats: what the kernels call it, and its size in bytes.

    BLAKE2b comes in as many sizes as bita truncates it to: see `blake2b`.
    """

    label: str
    size: int

    SHA1: ClassVar[Algorithm]
    SHA256: ClassVar[Algorithm]
    SHA512: ClassVar[Algorithm]
    SHA512_128: ClassVar[Algorithm]  #: zchunk's
    SHA512_256: ClassVar[Algorithm]  #: that of FIPS 180-4, with initial values of its own
    BLAKE2B: ClassVar[Algorithm]

    @classmethod
    def blake2b(cls, size: int) -> Algorithm:
        """The first `size` bytes, 4 to 64, of BLAKE2b-512: another value than BLAKE2b with that parameter has."""
        if not 4 <= size <= 64:
            raise ValueError(f"a digest of {size} bytes")
        return cls("blake2b512" if size == 64 else f"blake2b512_{8 * size}", size)

    def hasher(self) -> Hasher:
        """Raises MissingError for SHA-512/256 where OpenSSL, which Python has it from, is too old."""
        if self.label.startswith("blake2b512"):
            whole: Hasher = hashlib.blake2b()
            return whole if self.size == 64 else _Truncated(whole, self.size)
        if self.label == "sha512_128":
            return _Truncated(hashlib.sha512(), 16)
        if self.label == "sha512_256" and self.label not in hashlib.algorithms_available:
            raise MissingError("this Python's OpenSSL has no SHA-512/256", cure="install OpenSSL 1.1.1 or later")
        return hashlib.new(self.label, usedforsecurity=self.label != "sha1")

    def of(self, data: Buffer) -> bytes:
        """The digest of `data`."""
        hasher = self.hasher()
        hasher.update(data)
        return hasher.digest()

    @classmethod
    def named(cls, label: str) -> Algorithm:
        """The algorithm called `label`; raises KeyError for any other word."""
        return _NAMED[label]


Algorithm.SHA1 = Algorithm("sha1", 20)
Algorithm.SHA256 = Algorithm("sha256", 32)
Algorithm.SHA512 = Algorithm("sha512", 64)
Algorithm.SHA512_128 = Algorithm("sha512_128", 16)
Algorithm.SHA512_256 = Algorithm("sha512_256", 32)
Algorithm.BLAKE2B = Algorithm.blake2b(64)

_NAMED = {
    algorithm.label: algorithm
    for algorithm in (
        Algorithm.SHA1,
        Algorithm.SHA256,
        Algorithm.SHA512,
        Algorithm.SHA512_128,
        Algorithm.SHA512_256,
        *(Algorithm.blake2b(size) for size in range(4, 65)),
    )
}


@dataclass(frozen=True, slots=True)
class Digest:
    """An algorithm and its value. Compare with `matches`, which takes constant time."""

    algorithm: Algorithm
    value: bytes

    def __post_init__(self) -> None:
        if len(self.value) != self.algorithm.size:
            raise ValueError(f"{self.algorithm.label} has {self.algorithm.size} bytes, not {len(self.value)}")

    @classmethod
    def of(cls, data: Buffer, algorithm: Algorithm = Algorithm.SHA256) -> Digest:
        return cls(algorithm, algorithm.of(data))

    @property
    def hex(self) -> str:
        return self.value.hex()

    def matches(self, data: Buffer) -> bool:
        return hmac.compare_digest(self.algorithm.of(data), self.value)

    def __str__(self) -> str:
        return f"{self.algorithm.label}:{self.hex}"


class DigestColumn:
    """Digests of one algorithm, end to end in one buffer. The column may be absent: `algorithm` None and length 0."""

    __slots__ = ("algorithm", "data")

    def __init__(self, algorithm: Algorithm | None, data: Buffer = b"") -> None:
        self.algorithm = algorithm
        self.data = bytearray(data)
        if len(self.data) % (algorithm.size if algorithm else 1) or (algorithm is None and self.data):
            raise ValueError("a digest column holds whole digests")

    def append(self, value: bytes) -> None:
        if self.algorithm is None or len(value) != self.algorithm.size:
            raise ValueError("digest of another size than the column's")
        self.data += value

    def __len__(self) -> int:
        return len(self.data) // self.algorithm.size if self.algorithm else 0

    @overload
    def __getitem__(self, row: int) -> bytes: ...
    @overload
    def __getitem__(self, row: slice) -> bytes: ...
    def __getitem__(self, row: int | slice) -> bytes:
        """The digest of one row, or the joined digests of a run of rows."""
        size = self.algorithm.size if self.algorithm else 0
        if isinstance(row, slice):
            start, stop, step = row.indices(len(self))
            if step != 1:
                raise ValueError("a run of rows has step 1")
            return bytes(self.data[start * size : stop * size])
        if not 0 <= row < len(self):
            raise IndexError(row)
        return bytes(self.data[row * size : (row + 1) * size])

    def __iter__(self) -> Iterator[bytes]:
        size, data = self.algorithm.size if self.algorithm else 1, self.data
        return (bytes(data[at : at + size]) for at in range(0, len(data), size))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DigestColumn):
            return NotImplemented
        return self.algorithm == other.algorithm and self.data == other.data

    __hash__ = None  # type: ignore[assignment]  # mutable, like a list
