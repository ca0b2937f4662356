# SPDX-License-Identifier: Apache-2.0
"""`regraft header`: the part of a chunked artifact that goes into a bundle."""

from __future__ import annotations

import os

import click

from regraft.cli._network import Network, network_options
from regraft.cli._options import examples
from regraft.cli._output import say
from regraft.errors import UsageError


@click.command(
    epilog=examples(
        "regraft header rootfs.zck -o rootfs.zck.header           for the bundle of SWUpdate's delta handler",
        "regraft header rootfs.zck -o rootfs.zhr --detached       with the magic of a detached header",
        "regraft header https://host/rootfs.caibx -o rootfs.caibx  a casync index is a header, all of it",
    )
)
@click.argument("file")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The header file to write.")
@click.option("--detached", is_flag=True, help="Write a detached header (ZHR1). SWUpdate wants the plain one.")
@network_options
def command(file: str, output: str, detached: bool, network: Network) -> None:
    """Write the header of FILE: digests and lengths of all chunks, without their bytes.

    FILE is a zchunk file, a bita archive or a casync index: a path or URL.
    """
    from regraft.cli._artifact import open_header
    from regraft.engine.files import FileDirectory
    from regraft.engine.medium import save
    from regraft.formats import zchunk

    header, content = open_header(file, network)
    count = len(header)
    if isinstance(header, zchunk.Header):
        count -= 1  # the dictionary
        if detached != header.detached:
            content = zchunk.build_header(header, detached=detached)
    elif detached:
        raise UsageError("only zchunk has detached headers", cure="leave --detached out")
    save(FileDirectory(os.path.dirname(os.path.realpath(output))), os.path.basename(output), content)
    say(f"{output}: {len(content)} bytes for {count} chunks")
