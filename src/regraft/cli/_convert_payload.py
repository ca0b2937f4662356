# SPDX-License-Identifier: Apache-2.0
"""The part of `regraft convert` that knows Android's update payloads."""

from __future__ import annotations


def convert_payload(
    file: str, partition: str, base: str, output: str, compression: str | None, level: int | None, workers: int,
    progress: str, as_json: bool,
) -> None:  # fmt: skip
    """Write the COW file of one partition, version 3, and its sidecar; say what they are."""
    from regraft.build import android_cow
    from regraft.build.payload import to_cow
    from regraft.cli._progress import meter
    from regraft.cli.delta import cow_facts, refuse_same, report
    from regraft.engine.files import open_source, replacing
    from regraft.formats import sidecar as sidecars
    from regraft.limits import DEFAULT

    options = android_cow.Options(compression=compression or "zstd", level=level, workers=workers)
    options.check(DEFAULT)
    refuse_same(output, file, base)
    blobs, old = open_source(file), open_source(base)
    try:
        with replacing(output) as out, meter(progress) as shown:
            made = to_cow(blobs, partition, old, out, options, progress=shown)
        with replacing(output + sidecars.SUFFIX) as out:
            out.write(0, sidecars.build(made.sidecar))
    finally:
        old.close()
        blobs.close()
    report("convert", cow_facts(output, made, options.block_size), as_json)
