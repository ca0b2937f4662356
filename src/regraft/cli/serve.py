# SPDX-License-Identifier: Apache-2.0
"""`regraft serve`: static files with byte ranges."""

from __future__ import annotations

import json
import os
import sys

import click

from regraft.cli._options import examples


@click.command(
    help="Serve the files in DIR over HTTP with single and multiple byte ranges, until interrupted.",
    epilog=examples(
        "regraft serve .",
        "regraft serve /srv/updates --host 0.0.0.0 --port 80 --json | tee requests.log",
    ),
)
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one.")
@click.option("--quiet", is_flag=True, help="Do not report requests.")
@click.option(
    "--json", "as_json", is_flag=True, help="Report the address and each request as one JSON object per line."
)
def command(folder: str, host: str, port: int, quiet: bool, as_json: bool) -> None:
    from regraft.cli._output import SCHEMA, say
    from regraft.errors import UsageError
    from regraft.server.static import StaticServer

    def put(kind: str, **fields: object) -> None:
        sys.stdout.write(json.dumps({"schema": SCHEMA, "kind": kind, **fields}) + "\n")
        sys.stdout.flush()

    def log(line: str, status: int, body: int) -> None:
        if as_json:
            method, _, path = line.partition(" ")
            put("request", method=method, path=path, status=status, bytes=body)
        else:
            say(f"{status} {body:>12} {line}")

    try:
        server = StaticServer(folder, host=host, port=port, log=None if quiet else log)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror}", cure="give another --host or --port"
        ) from error
    if as_json:
        put("listening", url=server.url, directory=os.path.realpath(folder))
    else:
        say(f"serving {folder} at {server.url}/ - end with Ctrl-C")
    try:
        server.serve()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
