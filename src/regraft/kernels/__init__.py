# SPDX-License-Identifier: Apache-2.0
"""The hot loops. Native where `regraft_native` is installed, else their Python twins: the same results, slower.

Kernels take buffers and give back columns. They know no formats beyond a chunker's parameters, and no model.

`REGRAFT_KERNELS=python` in the environment forces the twins, `REGRAFT_KERNELS=native` makes their use an error.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

from regraft.kernels._choice import Buffer, choose

__all__ = [
    "NEVER", "Batches", "Rolling", "Rows", "build_info", "casync_index", "data_runs", "digest_ranges", "fixed_index",
    "merge_check", "merge_order", "native", "rolling_index", "zck_cuts", "zck_index",
]  # fmt: skip

_kernels, _reason = choose()

#: Whether the native kernels are active.
native: bool = _kernels.NATIVE


def zck_index(data: Buffer, *, final: bool, algorithm: str, threads: int = 0) -> tuple[array[int], bytes]:
    """Cut `data` as zchunk's automatic chunker does (libzck; window 48, mask 0x7fff, 8192 to 131072 bytes) and digest.

    `data` starts at a cut. Returns the lengths in bytes (array "I") of all complete chunks, and their digests joined;
    the sum of the lengths is what was consumed. A cut is known only when the byte after it is seen: the open chunk at
    the end is returned only if `final`. `algorithm` is "sha1", "sha256", "sha512", "sha512_128" (zchunk's: the first 16
    bytes of SHA-512), "sha512_256" (that of FIPS 180-4), "blake2b512", or "blake2b512_" and the number of bits kept.
    `threads` 0 means one for each core this process may use; the twin uses one.

    Raises ValueError for another algorithm; the twin MissingError for one that this Python was built without.
    """
    return _kernels.zck_index(_flat(data), final, algorithm, threads)


def zck_cuts(data: Buffer, *, final: bool) -> array[int]:
    """The lengths that `zck_index` gives, without digests."""
    return _kernels.zck_cuts(_flat(data), final)


@dataclass(frozen=True, slots=True)
class Rolling:
    """A chunker of bita: chunks end where the low `bits` bits (1 to 32) of a rolling hash are all set.

    kind: "rollsum" or "buzhash". window: the bytes hashed, at most 4096. minimum, maximum: of a chunk, in bytes.
    """

    kind: str
    bits: int
    minimum: int
    maximum: int
    window: int


def rolling_index(
    data: Buffer,
    chunker: Rolling,
    *,
    final: bool,
    algorithm: str | None,
    before: int = 0,
    searched: int = 0,
    carry: int = 0,
    threads: int = 0,
) -> tuple[array[int], bytes, int]:
    """Cut `data` from byte `before` on, which is where a chunk starts, exactly as bita 0.13 does, and digest.

    bita's hash rolls on across cuts: the `before` bytes are what comes before the chunk in the stream, `window` - 1 of
    them or all there are. `carry` is 0 at the start of the stream, else what the call before returned. `searched` is
    the number of bytes after `before` that an earlier call has had and found no end of a chunk in.

    Returns the lengths of all complete chunks and their digests as `zck_index` does, and the next `carry`. Algorithms
    and threads are those of `zck_index`; without an algorithm there are no digests. Raises ValueError for parameters
    that no chunker has.
    """
    parameters = (chunker.bits, chunker.minimum, chunker.maximum, chunker.window)
    place = (before, searched, carry)
    return _kernels.rolling_index(_flat(data), chunker.kind, parameters, place, final, algorithm, threads)


def casync_index(
    data: Buffer,
    minimum: int,
    maximum: int,
    discriminator: int,
    *,
    final: bool,
    algorithm: str | None,
    searched: int = 0,
    threads: int = 0,
) -> tuple[array[int], bytes]:
    """Cut `data`, which starts at a cut, exactly as casync 2 does, and digest.

    A chunk ends where the hash of its last 48 bytes has the remainder `discriminator` - 1 when divided by it, and when
    it has `maximum` bytes; not before it has `minimum` bytes, nor before it has 48. Sizes in bytes, below 2^32.
    `searched` is the number of bytes that an earlier call has had and found no end of a chunk in.

    Returns the lengths of all complete chunks and their digests as `zck_index` does; the open chunk at the end only if
    `final`. Algorithms and threads are those of `zck_index`. Raises ValueError for parameters that no chunker has.
    """
    parameters = (minimum, maximum, discriminator)
    return _kernels.casync_index(_flat(data), parameters, searched, final, algorithm, threads)


def fixed_index(
    data: Buffer, size: int, *, final: bool, algorithm: str | None, threads: int = 0
) -> tuple[array[int], bytes]:
    """Cut `data` every `size` bytes, and digest; what is left at the end is a chunk only if `final`.

    Raises ValueError if `size` is not positive.
    """
    if size <= 0:
        raise ValueError("a chunk has at least one byte")
    view = _flat(data)
    whole, rest = divmod(len(view), size)
    lengths = array("I", [size]) * whole
    if rest and final:
        lengths.append(rest)
    return lengths, b"" if algorithm is None else _kernels.digest_ranges(view, lengths, algorithm, threads)


def digest_ranges(data: Buffer, lengths: array[int], *, algorithm: str, threads: int = 0) -> bytes:
    """Digests, joined, of consecutive ranges of `data` that start at 0 and have these lengths (array "I", in bytes).

    Algorithms and threads are those of `zck_index`. Raises ValueError if the ranges end behind the data.
    """
    return _kernels.digest_ranges(_flat(data), lengths, algorithm, threads)


def data_runs(data: Buffer, block: int) -> array[int]:
    """Where to write a sparse file: the maximal runs of blocks of `data` that hold a byte other than zero.

    Returns start, end, start, end, ... in bytes (array "Q"). Blocks have `block` bytes, the last may be short.
    Raises ValueError if `block` is not positive.
    """
    if block <= 0:
        raise ValueError("a block has at least one byte")
    return _kernels.data_runs(_flat(data), block)


#: What it costs to convert a row that cannot be converted.
NEVER = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of an image that is written over its own base.

    Row r is the bytes bounds[r]..bounds[r + 1] (array "Q", ascending). role: a byte per row, 0: it is in its place
    already, 1: it is written and reads nothing of the base, 2: it reads as many bytes as it has from at[r] (array "Q").
    """

    bounds: array[int]
    at: array[int]
    role: bytes | bytearray


@dataclass(frozen=True, slots=True)
class Batches:
    """Rows in the order in which they are written, in batches.

    Batch b is order[starts[b]:starts[b + 1]] (arrays "I"). Where journaled[b] is 0, no row of it reads what another
    one, or itself, writes; where it is 1, all of it is read before any of it is written.
    """

    order: array[int]
    starts: array[int]
    journaled: bytes


def merge_order(
    rows: Rows, cost: array[int], *, window: int, batch: int, worth: int, edges: int
) -> tuple[Batches, array[int], int]:
    """An order in which no row is overwritten before it was read, and the rows that must be converted for it.

    cost: what it costs to convert a row, that is, to make it one that reads nothing of the base; `NEVER` if it cannot
    be (array "I"). window: bytes of a journaled batch. batch: bytes of a direct one, unless a row alone has more.
    worth: as many bytes of one level get a direct batch of their own. Rows that read nothing come last.

    Conversions are the cheapest there are where rows are blocks that read whole blocks, else few; none if every set of
    rows that wait for each other fits a window. Returns the batches, the rows to convert (array "I", ascending), and 0;
    or nothing and the bytes that a window would have to hold, if rows that cannot be converted need more than it has.
    Raises ValueError for columns that do not belong together, OverflowError if there are more conflicts than `edges`.
    """
    sizes = (window, batch, worth)
    order, starts, journaled, converted, needed = _kernels.merge_order(
        rows.bounds, rows.at, bytes(rows.role), cost, sizes, edges
    )
    return Batches(order, starts, journaled), converted, needed


def merge_check(rows: Rows, batches: Batches, *, window: int) -> int:
    """Replay an order: -1 if every read sees the base and every row that is not in its place is written once.

    Else the position in `batches.order` of the first fault, or its length if a row is missing. A window of more than
    `window` bytes is a fault. Raises ValueError for columns that do not belong together.
    """
    columns = (batches.order, batches.starts, batches.journaled)
    return _kernels.merge_check(rows.bounds, rows.at, bytes(rows.role), columns, window)


def build_info() -> dict[str, Any]:
    """Which kernels are active and why, and what they were built as; for `regraft doctor` and reports of faults."""
    return {"kernels": "native" if native else "python", "reason": _reason, **_kernels.build_info()}


def _flat(data: Buffer) -> memoryview:
    """The bytes of any contiguous buffer, without a copy."""
    view = memoryview(data)
    if view.format == "B" and view.ndim == 1 and view.contiguous:
        return view
    return view.cast("B") if view.nbytes else memoryview(b"")
