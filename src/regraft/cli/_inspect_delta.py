# SPDX-License-Identifier: Apache-2.0
"""What `regraft inspect` says about pairwise deltas and their sidecars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from regraft.engine.deltas import parse, read_sidecar
from regraft.engine.medium import Medium
from regraft.formats import android_cow, dm_update


def delta_facts(file: str, medium: Medium, with_chunks: bool) -> dict[str, Any]:
    """The fields of a delta, checked as a whole. with_chunks: with a list of its units."""
    parsed = parse(medium)
    found = _cow(parsed) if isinstance(parsed, android_cow.Cow) else _diff(parsed)
    facts = {"file": file, **found, "size": medium.size}
    if with_chunks:
        facts["chunks"] = list(_cow_chunks(parsed) if isinstance(parsed, android_cow.Cow) else _diff_chunks(parsed))
    return facts


def sidecar_facts(file: str, medium: Medium) -> dict[str, Any]:
    """The fields of a sidecar."""
    sidecar = read_sidecar(medium)
    return {
        "file": file,
        "format": "sidecar",
        "base_size": sidecar.base_size,
        "base_digest": str(sidecar.base),
        "image_size": sidecar.target_size,
        "image_digest": str(sidecar.target),
        "delta": sidecar.identity.hex(),
        "rows": len(sidecar.rows),
        "units": len(sidecar.units),
    }


def payload_facts(file: str, medium: Medium) -> dict[str, Any]:
    """The fields of an update payload of Android."""
    from regraft.build.payload import read_payload

    payload = read_payload(medium)
    return {
        "file": file,
        "format": "Android update payload",
        "block_size": payload.block_size,
        "minor_version": payload.minor,
        "partitions": [
            {
                "name": partition.name,
                "old_size": partition.old_size,
                "new_size": partition.new_size,
                "digest": str(partition.new or ""),
                "operations": dict(Counter(operation.name for operation in partition.operations)),
            }
            for partition in payload.partitions
        ],
    }


def _diff(diff: dm_update.Diff) -> dict[str, Any]:
    superblock = diff.superblock
    return {
        "format": "dm-update diff",
        "compression": superblock.compression,
        "block_size": superblock.block_size,
        "chunk_size": superblock.chunk_size,
        "changed_blocks": len(diff),
        "chunk_count": sum(1 for _ in diff.runs()),
        "directory_offset": superblock.directory_offset,
        "directory_size": superblock.directory_stored,
        "identity": diff.identity.hex(),
    }


def _cow(cow: android_cow.Cow) -> dict[str, Any]:
    header, ops = cow.header, cow.ops
    return {
        "format": f"Android COW {header.version}",
        "compression": cow.compression,
        "block_size": header.block_size,
        "unit_size": header.unit_size or header.block_size,
        "operations": len(ops),
        **{kind.name.lower(): ops.kind.count(kind) for kind in (*android_cow.STORED, *android_cow.ORDERED[:1])},
        "zero": ops.kind.count(android_cow.CowKind.ZERO),
        "in_sequence": len(cow.sequence),
        "merged": header.merged,
        "cluster_ops": header.cluster_ops,
        "scratch_size": header.buffer_size,
        "labels": [label for label, _ in cow.labels],
        "identity": cow.identity.hex(),
    }


def _diff_chunks(diff: dm_update.Diff) -> Iterator[dict[str, Any]]:
    for first, behind in diff.runs():
        yield {
            "offset": diff.blocks[first] * diff.superblock.block_size,
            "length": (behind - first) * diff.superblock.block_size,
            "stored_offset": diff.chunks[first],
            "stored": diff.stored(behind - 1),
            "stored_digest": "",
        }


def _cow_chunks(cow: android_cow.Cow) -> Iterator[dict[str, Any]]:
    ops, size = cow.ops, cow.header.block_size
    for number, kind in enumerate(ops.kind):
        yield {
            "offset": ops.block[number] * size,
            "length": size << ops.factor[number],
            "stored_offset": ops.data[number],
            "stored": ops.stored[number],
            "stored_digest": android_cow.CowKind(kind).name,
        }
