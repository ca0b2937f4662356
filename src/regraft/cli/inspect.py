# SPDX-License-Identifier: Apache-2.0
"""`regraft inspect`: what a file is and says, known by its first bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from regraft.cli._network import Network, network_options
from regraft.cli._options import examples, json_option
from regraft.cli._output import emit_json, size

if TYPE_CHECKING:
    from regraft.cli._artifact import Words

_SHOWN = 4096  # bytes of a value up to which it is shown whole


@click.command(
    epilog=examples(
        "regraft inspect rootfs.zck",
        "regraft inspect rootfs.cba",
        "regraft inspect https://host/rootfs.caibx",
        "regraft inspect https://host/rootfs.zck --chunks",
        "regraft inspect update.swu                                the same as `regraft swu inspect`",
        "regraft inspect rootfs.zck --json | jq .chunks",
    )
)
@click.argument("file")
@click.option("--chunks", "with_chunks", is_flag=True, help="List every chunk.")
@network_options
@json_option
def command(file: str, with_chunks: bool, network: Network, as_json: bool) -> None:
    """Show what FILE says about itself.

    FILE is a zchunk file or header, a bita archive, a casync index or an ihop description, also at a URL; a bundle; a
    delta: a diff of dm-update, a COW file of Android, a sidecar; an Android payload; an index that regraft keeps of a
    slot; or an image of a chunk store, as STORE/NAME.
    """
    from regraft.cli._artifact import is_url, open_artifact, read_any_header
    from regraft.engine.deltas import is_delta
    from regraft.engine.files import open_source
    from regraft.formats import kept_index, payload, sidecar
    from regraft.stores.places import stored

    if is_url(file) or stored(file) is not None:
        with open_artifact(file, network) as artifact:
            _show(_facts(file, artifact.header, with_chunks), as_json)
        return
    medium = open_source(file)
    try:
        head = bytearray(8)
        medium.read_into(0, memoryview(head))
        if head.startswith((b"070701", b"070702")):
            from regraft.cli.swu.inspect import command as bundle

            bundle.main(args=[file, *(["--json"] if as_json else [])], standalone_mode=False)
            return
        if bytes(head) == kept_index.MAGIC:
            from regraft.engine.medium import read_all
            from regraft.limits import DEFAULT

            index = kept_index.parse(read_all(medium, DEFAULT.header_size))
            algorithm = index.digests.algorithm
            facts = {
                "file": file, "format": "kept index", "size": index.size, "chunk_count": len(index),
                "chunker": index.chunker, "chunk_digest": algorithm.label if algorithm else "",
            }  # fmt: skip
            _show(facts, as_json)
            return
        if is_delta(bytes(head)):
            from regraft.cli._inspect_delta import delta_facts

            _show(delta_facts(file, medium, with_chunks), as_json)
            return
        if bytes(head).startswith(payload.MAGIC):
            from regraft.cli._inspect_delta import payload_facts

            _show(payload_facts(file, medium), as_json)
            return
        if bytes(head) == sidecar.MAGIC:
            from regraft.cli._inspect_delta import sidecar_facts

            _show(sidecar_facts(file, medium), as_json)
            return
        header = read_any_header(medium)
        facts = _facts(file, header, with_chunks)
        facts["complete"] = medium.size >= header.end
        _show(facts, as_json)
    finally:
        medium.close()


def _facts(file: str, header: Words, with_chunks: bool) -> dict[str, Any]:
    from regraft.formats import caibx, cba, ihop
    from regraft.formats.image_description import Description

    if isinstance(header, Description):
        return _stored(file, header, with_chunks)
    if isinstance(header, caibx.Header):
        return _casync(file, header, with_chunks)
    if isinstance(header, ihop.Header):
        return _ihop(file, header, with_chunks)
    return (_bita if isinstance(header, cba.Header) else _zchunk)(file, header, with_chunks)


def _casync(file: str, header: Any, with_chunks: bool) -> dict[str, Any]:
    facts = {
        "file": file,
        "format": "casync index",
        "image_size": header.image_size,
        "header_size": header.size,
        "chunk_count": len(header),
        "unique_chunks": len(set(header.digests)),
        "chunker": header.sizes.label,
        "digest": f"sha256:{header.digest.hex()}",
        "chunk_digest": header.algorithm.label,
        "feature_flags": f"{header.flags:#018x}",
    }
    if with_chunks:
        facts["chunks"] = _in_files(header.lengths, header.digests)
    return facts


def _stored(file: str, image: Any, with_chunks: bool) -> dict[str, Any]:
    facts = {
        "file": file,
        "format": "image of a chunk store",
        "image_size": image.size,
        "image_digest": str(image.digest or ""),
        "chunk_count": len(image),
        "unique_chunks": len({digest for digest, zero in zip(image.digests, image.zero, strict=True) if not zero}),
        "chunker": image.chunker,
        "chunk_digest": image.digests.algorithm.label,
        "source": image.source,
        "metadata": {key: _readable(value) for key, value in sorted(image.metadata.items())},
    }
    if with_chunks:
        facts["chunks"] = _in_files(map(image.length, range(len(image))), image.digests)
    return facts


def _ihop(file: str, header: Any, with_chunks: bool) -> dict[str, Any]:
    facts = {
        "file": file,
        "format": "ihop description",
        "image_size": header.image_size,
        "image_digest": str(header.digest or ""),
        "header_size": header.size,
        "chunk_count": len(header.order),
        "unique_chunks": len(header),
        "chunker": header.parameters.label,
        "digest": f"blake2b512:{header.checksum.hex()}",
        "chunk_digest": header.digests.algorithm.label,
        "written_by": _readable(header.writer.encode()),
    }
    if with_chunks:
        lengths = [header.lengths[number] for number in header.order]
        facts["chunks"] = _in_files(lengths, [header.digests[number] for number in header.order])
    return facts


def _in_files(lengths: Iterable[int], digests: Iterable[bytes]) -> list[dict[str, Any]]:
    """Chunks that lie in files of their own, so that nothing is said of how they are stored."""
    at, chunks = 0, []
    for length, digest in zip(lengths, digests, strict=True):
        chunks.append({"offset": at, "length": length, "digest": digest.hex()})
        at += length
    return chunks


def _bita(file: str, header: Any, with_chunks: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "file": file,
        "format": "bita archive (before 0.2)" if header.legacy else "bita archive",
        "image_size": header.image_size,
        "image_digest": str(header.digest or ""),
        "header_size": header.size,
        "body_size": header.body_size,
        "chunk_count": len(header.order),
        "unique_chunks": len(header),
        "compression": header.compression,
        "compression_level": header.level,
        "chunker": header.rule,
        "digest": f"blake2b512:{header.checksum.hex()}",
        "chunk_digest": header.digests.algorithm.label,
        "written_by": _readable(header.writer.encode()),
        "metadata": {key: _readable(value) for key, value in header.metadata},
    }
    if with_chunks:
        at, chunks = 0, []
        for number in header.order:
            chunks.append(
                {
                    "offset": at,
                    "length": header.lengths[number],
                    "stored_offset": header.data_offset + header.offsets[number],
                    "stored": header.stored[number],
                    "digest": header.digests[number].hex(),
                }
            )
            at += header.lengths[number]
        facts["chunks"] = chunks
    return facts


def _readable(value: bytes) -> str:
    """Printable text as it is, else hexadecimal; of what is longer than a screen, size and digest."""
    if len(value) > _SHOWN:
        return f"{len(value)} bytes, sha256:{hashlib.sha256(value).hexdigest()}"
    text = value.decode("utf-8", "replace")
    return text if text.isprintable() and "\ufffd" not in text else f"hex:{value.hex()}"


def _zchunk(file: str, header: Any, with_chunks: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "file": file,
        "format": "zchunk header (detached)" if header.detached else "zchunk",
        "image_size": header.image_size,
        "header_size": header.size,
        "body_size": header.body_size,
        "chunk_count": len(header) - 1,
        "compression": header.compression,
        "dictionary": header.dictionary_stored,
        "uncompressed_source": header.uncompressed_source,
        "chunker": header.rule,
        "digest": f"{header.algorithm.label}:{header.digest.hex()}",
        "chunk_digest": header.chunk_algorithm.label,
        "metadata": {key: _readable(value) for key, value in header.metadata},
    }
    if with_chunks:
        offset, at = header.size, 0
        chunks = []
        for chunk in range(len(header)):
            entry = {
                "offset": at if chunk else None,
                "length": header.lengths[chunk],
                "stored_offset": offset,
                "stored": header.stored[chunk],
                "stored_digest": header.stored_digests[chunk].hex(),
            }
            if header.uncompressed_source:
                entry["digest"] = header.digests[chunk].hex()
            if chunk or header.stored[chunk]:
                chunks.append(entry)
            offset += header.stored[chunk]
            at += header.lengths[chunk] if chunk else 0
        facts["chunks"] = chunks
    return facts


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json("inspect", facts)
        return
    for name, value in facts.items():
        if name == "chunks":
            for chunk in value:
                where = "dictionary" if chunk["offset"] is None else chunk["offset"]
                digest = chunk.get("digest") or chunk["stored_digest"]
                stored = f" {chunk['stored_offset']:>12} {chunk['stored']:>8}" if "stored" in chunk else ""
                click.echo(f"{where:>12} {chunk['length']:>8}{stored} {digest}")
        elif name == "partitions":
            for part in value:
                made_of = ", ".join(f"{count} {kind}" for kind, count in part["operations"].items())
                click.echo(f"{part['name']:<20} {size(part['new_size'])}: {made_of}")
        elif name == "metadata":
            for key, content in value.items():
                click.echo(f"{'metadata':<20} {_readable(key.encode())}: {content}")
        else:
            shown = f"{value} ({size(value)})" if name.endswith("size") and value >= 1000 else value
            click.echo(f"{name.replace('_', ' '):<20} {shown}")
