# SPDX-License-Identifier: Apache-2.0
"""`regraft nbd`: images as read-only network block devices."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from regraft.cli._network import Network, network_options
from regraft.cli._options import Places, examples, json_option, progress_option, seed_option, store_options
from regraft.cli._output import SCHEMA, say
from regraft.cli._progress import meter
from regraft.errors import UsageError

if TYPE_CHECKING:
    import socket

    from regraft.blockdev.nbd.server import Server


@click.command(
    epilog=examples(
        "regraft nbd rootfs.ext4                                    on 127.0.0.1, port 10809",
        "regraft nbd old.img new.img --socket /run/images.sock      nbd+unix:///new.img?socket=/run/images.sock",
        "regraft nbd rootfs.ext4 --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem --tls-ca devices.pem",
        "regraft nbd https://host/rootfs.zck --seed /dev/mmcblk0p2 --keep /data/rootfs.ext4    before it is downloaded",
        "nbdcopy nbd://127.0.0.1/rootfs.ext4 copy.img",
    )
)
@click.argument("images", metavar="WHAT...", nargs=-1, required=True)
@seed_option
@click.option(
    "--keep", metavar="FILE", help="Keep what was fetched: the file becomes the image. For a single artifact."
)
@click.option("--no-read-ahead", is_flag=True, help="Fetch only what is read, when it is read.")
@click.option("--socket", "path", metavar="PATH", help="Listen on a Unix socket that only this user may connect to.")
@click.option("--port", type=click.IntRange(0, 65535), help="Listen on this TCP port, 0: a free one.  [default: 10809]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on, with --port.")
@click.option("--name", "names", multiple=True, metavar="NAME", help="Name of an export, in their order.")
@click.option("--tls-cert", metavar="FILE", help="Certificate chain (PEM): TLS is then required of every client.")
@click.option("--tls-key", metavar="FILE", help="Key of the certificate (PEM).")
@click.option("--tls-ca", metavar="FILE", help="Only clients with a certificate by these authorities (PEM).")
@store_options
@network_options
@progress_option
@json_option
def command(
    images: tuple[str, ...],
    seeds: tuple[str, ...],
    keep: str | None,
    no_read_ahead: bool,
    path: str | None,
    port: int | None,
    host: str,
    names: tuple[str, ...],
    tls_cert: str | None,
    tls_key: str | None,
    tls_ca: str | None,
    stores: Places,
    network: Network,
    progress: str,
    as_json: bool,
) -> None:
    """Serve each WHAT as a read-only disk over NBD, until interrupted: an image (a file or block device), or a chunked
    artifact (a path or URL), of which each part is fetched and verified when it is first read.

    Each is an export of its own, named like the file. Prints the URI of each, by which NBD clients find it.
    """
    from regraft.blockdev.nbd.exports import Exports
    from regraft.blockdev.nbd.server import Server
    from regraft.blockdev.nbd.tls import server_context
    from regraft.cli._export import open_export

    if path is not None and port is not None:
        raise UsageError("--socket and --port exclude each other")
    if bool(tls_cert) != bool(tls_key) or (tls_ca and not tls_cert):
        raise UsageError("--tls-cert and --tls-key belong together, and --tls-ca to both")
    if len(names) > len(images):
        raise UsageError(f"{len(names)} names for {len(images)} exports")
    if keep and len(images) > 1:
        raise UsageError("--keep is for a single artifact")
    tls = server_context(tls_cert, tls_key, clients=tls_ca or "") if tls_cert and tls_key else None
    with ExitStack() as stack:
        exports = []
        with meter(progress) as shown:
            for row, what in enumerate(images):
                opening = open_export(
                    what,
                    name=names[row] if row < len(names) else "",
                    network=network,
                    stores=stores,
                    seeds=seeds,
                    keep=keep,
                    read_ahead=not no_read_ahead,
                    report=say,
                    progress=shown,
                )
                exports.append(stack.enter_context(opening))
        named = Exports(exports)  # before anyone can connect
        server = Server(named, [_listen(path, host, port)], tls=tls, report=say)
        over = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: over.set())
        with server:
            _announce(server, as_json)
            over.wait()


def _listen(path: str | None, host: str, port: int | None) -> socket.socket:
    from regraft.blockdev.nbd.protocol import PORT
    from regraft.blockdev.nbd.server import listen_tcp, listen_unix

    return listen_unix(path) if path is not None else listen_tcp(host, PORT if port is None else port)


def _announce(server: Server, as_json: bool) -> None:
    import json
    import sys

    for export in server.exports:
        for uri in server.uris(export):
            if as_json:
                fields = {"schema": SCHEMA, "kind": "export", "name": export.name, "size": export.size, "uri": uri}
                sys.stdout.write(json.dumps(fields) + "\n")
            else:
                sys.stdout.write(uri + "\n")
    sys.stdout.flush()
