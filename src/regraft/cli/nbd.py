# SPDX-License-Identifier: Apache-2.0
"""`regraft nbd`: images as read-only network block devices."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from regraft.cli._merge_work import How, find_sidecar, is_local_delta, merge_options
from regraft.cli._network import Network, network_options
from regraft.cli._options import Places, examples, is_given, json_option, progress_option, seed_option, store_options
from regraft.cli._output import SCHEMA, say
from regraft.cli._progress import meter
from regraft.errors import UsageError

if TYPE_CHECKING:
    import socket

    from regraft.blockdev.export import Export
    from regraft.blockdev.nbd.server import Server


@click.command(
    epilog=examples(
        "regraft nbd rootfs.ext4                                    on 127.0.0.1, port 10809",
        "regraft nbd old.img new.img --socket /run/images.sock      nbd+unix:///new.img?socket=/run/images.sock",
        "regraft nbd rootfs.ext4 --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem --tls-ca devices.pem",
        "regraft nbd https://host/rootfs.zck --seed /dev/mmcblk0p2 --keep /data/rootfs.ext4    before it is downloaded",
        "regraft nbd diff.img --base /dev/mmcblk0p3 --merge --rate 5M      the new image at once",
        "regraft nbd https://host/rootfs.cba --keep images/v2      the same, as a clone into the chunk store `images`",
        "nbdcopy nbd://127.0.0.1/rootfs.ext4 copy.img",
    )
)
@click.argument("images", metavar="WHAT...", nargs=-1, required=True)
@seed_option
@store_options
@click.option(
    "--keep",
    metavar="FILE|STORE/NAME",
    help="Keep what was fetched: the file becomes the image, or the chunk store gets it. For a single artifact.",
)
@click.option("--no-read-ahead", is_flag=True, help="Fetch only what is read, when it is read.")
@click.option("--base", metavar="PATH", help="WHAT is a delta: serve what it makes of this file or device.")
@click.option("--merge", is_flag=True, help="Merge WHAT into the base meanwhile. It may be a chunked artifact, too.")
@merge_options
@click.option("--socket", "path", metavar="PATH", help="Listen on a Unix socket that only this user may connect to.")
@click.option("--port", type=click.IntRange(0, 65535), help="Listen on this TCP port, 0: a free one.  [default: 10809]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on, with --port.")
@click.option("--name", "names", multiple=True, metavar="NAME", help="Name of an export, in their order.")
@click.option("--tls-cert", metavar="FILE", help="Certificate chain (PEM): TLS is then required of every client.")
@click.option("--tls-key", metavar="FILE", help="Key of the certificate (PEM).")
@click.option("--tls-ca", metavar="FILE", help="Only clients with a certificate by these authorities (PEM).")
@network_options
@progress_option
@json_option
def command(
    images: tuple[str, ...],
    seeds: tuple[str, ...],
    stores: Places,
    keep: str | None,
    no_read_ahead: bool,
    base: str | None,
    merge: bool,
    how: How,
    path: str | None,
    port: int | None,
    host: str,
    names: tuple[str, ...],
    tls_cert: str | None,
    tls_key: str | None,
    tls_ca: str | None,
    network: Network,
    progress: str,
    as_json: bool,
) -> None:
    """Serve each WHAT as a read-only disk over NBD, until interrupted: an image (a file, a block device, or STORE/NAME
    in a chunk store), or a chunked artifact (a path or URL), of which each part is fetched and verified when it is
    first read. Or a delta with --base.

    With --merge the base becomes the new image while readers see nothing else. Ended early, the same command goes on,
    and so does `regraft merge`; when the merge fails, reads go on as far as they can, and the reason is said.

    Each is an export of its own, named like the file. Prints the URI of each, by which NBD clients find it.
    """
    from regraft.blockdev.nbd.exports import Exports
    from regraft.blockdev.nbd.server import Server
    from regraft.blockdev.nbd.tls import server_context
    from regraft.cli._export import open_export
    from regraft.cli._merge_export import open_merging

    if path is not None and (port is not None or is_given("host")):
        raise UsageError("--socket excludes --port and --host")
    if bool(tls_cert) != bool(tls_key) or (tls_ca and not tls_cert):
        raise UsageError("--tls-cert and --tls-key belong together, and --tls-ca to both")
    if len(names) > len(images):
        raise UsageError(f"{len(names)} names for {len(images)} exports")
    if keep and len(images) > 1:
        raise UsageError("--keep is for a single artifact")
    if merge and base is None:
        raise UsageError("--merge needs --base")
    if base is not None and (len(images) > 1 or seeds or keep):
        raise UsageError("--base is for a single WHAT, without --seed and --keep")
    if no_read_ahead and (base is not None or not any(map(_is_fetched, images))):
        raise UsageError("--no-read-ahead is for chunked artifacts: of anything else nothing is fetched")
    tls = server_context(tls_cert, tls_key, clients=tls_ca or "") if tls_cert and tls_key else None
    with ExitStack() as stack:
        exports: list[Export] = []
        merging = None
        if merge and base is not None:
            # It reports as long as it goes on.
            shown = stack.enter_context(meter(progress))
            opening = open_merging(images[0], base, how, network, name="".join(names), report=say, progress=shown)
            merging = stack.enter_context(opening)
            exports, images = [merging.export], ()
        with meter("none" if merging else progress) as shown:
            for row, what in enumerate(images):
                sidecar = find_sidecar(what, how) if base is not None and is_local_delta(what) else None
                opened = open_export(
                    what,
                    name=names[row] if row < len(names) else "",
                    network=network,
                    seeds=seeds,
                    stores=stores,
                    keep=keep,
                    base=base,
                    sidecar=sidecar,
                    read_ahead=not no_read_ahead,
                    report=say,
                    progress=shown,
                )
                exports.append(stack.enter_context(opened))
        named = Exports(exports)  # before anyone can connect
        server = Server(named, [_listen(path, host, port)], tls=tls, report=say)
        over = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: over.set())
        with server:
            _announce(server, as_json)
            if merging is not None:
                merging.background.start()
            over.wait()
            if merging is not None:
                merging.background.stop()


def _is_fetched(what: str) -> bool:
    from regraft.cli._artifact import is_artifact
    from regraft.stores.places import stored

    return stored(what) is None and is_artifact(what)


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
