# SPDX-License-Identifier: Apache-2.0
"""`regraft inspect`: what a file is and says, known by its first bytes."""

from __future__ import annotations

from typing import Any

import click

from regraft.cli._network import Network, network_options
from regraft.cli._options import examples, json_option
from regraft.cli._output import emit_json, size


@click.command(
    epilog=examples(
        "regraft inspect rootfs.zck",
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
    """Show what FILE says about itself: a zchunk file or header (path or URL), a bundle, a kept index."""
    from regraft.cli._artifact import is_url, open_artifact, read_header
    from regraft.engine.files import open_source
    from regraft.formats import kept_index

    if is_url(file):
        with open_artifact(file, network) as artifact:
            _show(_zchunk(file, artifact.header, with_chunks), as_json)
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
        header, _ = read_header(medium)
        facts = _zchunk(file, header, with_chunks)
        facts["complete"] = medium.size == header.size + header.body_size
        _show(facts, as_json)
    finally:
        medium.close()


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
        "digest": f"{header.algorithm.label}:{header.digest.hex()}",
        "chunk_digest": header.chunk_algorithm.label,
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
                digest = chunk.get("digest", chunk["stored_digest"])
                stored = f"{chunk['stored_offset']:>12} {chunk['stored']:>8}"
                click.echo(f"{where:>12} {chunk['length']:>8} {stored} {digest}")
        else:
            shown = f"{value} ({size(value)})" if name.endswith("size") and value >= 1000 else value
            click.echo(f"{name.replace('_', ' '):<20} {shown}")
