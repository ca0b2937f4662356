# SPDX-License-Identifier: Apache-2.0
"""`regraft apply`: a new image from its base and a delta."""

from __future__ import annotations

import os

import click

from regraft.cli._options import examples, json_option, progress_option, workers_option
from regraft.cli._output import emit_json, say, size
from regraft.cli._progress import meter
from regraft.errors import DigestError, UsageError


@click.command(
    epilog=examples(
        "regraft apply diff.img --base /dev/mmcblk0p2 -o /dev/mmcblk0p3",
        "regraft apply diff.img --base old.img -o new.img --sidecar elsewhere.sidecar",
        "regraft apply diff.img --base old.img -o new.img --sha256 2c26b46b68ffc68ff99b453c1d304134...",
    )
)
@click.argument("file", type=click.Path(exists=True))
@click.option("--base", required=True, type=click.Path(exists=True), help="The image that the delta was made from.")
@click.option("-o", "--output", required=True, help="Image file or block device to write.")
@click.option("--sidecar", type=click.Path(exists=True), default=None, help="Its sidecar.  [default: FILE.sidecar]")
@click.option("--sha256", default=None, help="Digest of the new image, in place of a sidecar or beside it.")
@workers_option
@progress_option
@json_option
def command(
    file: str, base: str, output: str, sidecar: str | None, sha256: str | None, workers: int, progress: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Make the image that FILE, a delta, makes of its base. What FILE is, is known by its first bytes.

    The base is compared with its digest before anything is written, and the image when all is. Interrupted, the same
    command continues. To change the base itself is another verb.
    """
    from regraft.engine.apply import apply
    from regraft.engine.blobs import LocalBlob
    from regraft.engine.deltas import find_sidecar, open_delta
    from regraft.engine.files import open_source, open_target
    from regraft.engine.seeds import base_seed
    from regraft.engine.state import state_of
    from regraft.model import Algorithm, Digest

    digest = Digest(Algorithm.SHA256, _hex(sha256)) if sha256 else None
    if os.path.exists(output) and any(os.path.samefile(output, path) for path in (file, base)):
        raise UsageError(f"{output} is the base or the delta", cure="write to another file or slot")
    blob = open_source(file)
    seed = open_source(base)
    try:
        found = find_sidecar(file, sidecar, needed=digest is None)
        if digest is not None and found is not None and found.target != digest:
            raise DigestError("the sidecar is that of another image than --sha256 asks for")
        delta = open_delta(blob, seed.size, found)
        target = open_target(output)
        try:
            with meter(progress) as shown:
                outcome = apply(
                    delta.recipe, [base_seed(seed)], [LocalBlob(blob)], target, state=state_of(output), digest=digest,
                    workers=workers, progress=shown,
                )  # fmt: skip
        finally:
            target.close()
    finally:
        seed.close()
        blob.close()
    facts = {"image": output, "size": delta.recipe.size, "fetched": outcome.fetched, "resumed": outcome.resumed}
    if as_json:
        emit_json("apply", facts)
    else:
        say(f"{output}: {size(delta.recipe.size)}, {size(outcome.fetched)} of it stored in {file}")


def _hex(text: str) -> bytes:
    try:
        value = bytes.fromhex(text.removeprefix("sha256:"))
    except ValueError:
        value = b""
    if len(value) != 32:
        raise UsageError(f"--sha256 {text!r}: 64 hexadecimal digits are needed")
    return value
