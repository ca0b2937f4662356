# SPDX-License-Identifier: Apache-2.0
"""`regraft header`: the part of a chunked artifact that goes into a bundle."""

from __future__ import annotations

import os

import click

from regraft.cli._options import examples
from regraft.cli._output import say


@click.command(
    epilog=examples(
        "regraft header rootfs.zck -o rootfs.zck.header           for the bundle of SWUpdate's delta handler",
        "regraft header rootfs.zck -o rootfs.zhr --detached       with the magic of a detached header",
    )
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The header file to write.")
@click.option("--detached", is_flag=True, help="Write a detached header (ZHR1). SWUpdate wants the plain one.")
def command(file: str, output: str, detached: bool) -> None:
    """Write the header of the zchunk file FILE: digests and lengths of all chunks, without their bytes."""
    from regraft.cli._artifact import read_header
    from regraft.engine.files import FileDirectory, open_source
    from regraft.engine.medium import save
    from regraft.formats import zchunk

    medium = open_source(file)
    try:
        header, content = read_header(medium)
    finally:
        medium.close()
    if detached != header.detached:
        content = zchunk.build_header(header, detached=detached)
    save(FileDirectory(os.path.dirname(os.path.realpath(output))), os.path.basename(output), content)
    say(f"{output}: {len(content)} bytes for {len(header) - 1} chunks")
