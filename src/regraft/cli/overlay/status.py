# SPDX-License-Identifier: Apache-2.0
"""`regraft overlay status`: how far overlays are."""

from __future__ import annotations

from typing import Any

import click

from regraft.cli._options import examples, json_option
from regraft.cli._output import emit_json, size


@click.command(
    epilog=examples("regraft overlay status", "regraft overlay status system --json | jq .overlays[0].merge")
)
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """Show overlays: blocks merged, blocks that differ, the name, the state, and what went wrong.

    The two numbers are equal only when all is merged, durable and read back. The state is `merging`, `verifying`,
    `paused`, `ready` (not told to merge), `stopped`, `complete`, `swapped` (complete, and without a daemon), `failed`
    (with its reason; `overlay merge` tries again), `dead` (the daemon is gone: create the overlay again), `gone` (the
    system was started since), `silent` (the daemon lives and does not answer).
    """
    from regraft.blockdev import records
    from regraft.blockdev.mounts import state_of
    from regraft.cli.overlay._ask import find

    wanted = [find(name)] if name is not None else [each for each in records.every() if each.kind == "overlay"]
    found = [state_of(record) for record in wanted]
    if as_json:
        emit_json("overlay-status", {"overlays": found})
        return
    for fields in found:
        click.echo(_line(fields))
        for error in fields.get("last_errors", [])[-3:]:
            click.echo(f"    {error['what']}")


def _line(fields: dict[str, Any]) -> str:
    merge: dict[str, Any] = fields.get("merge", {})
    state = merge.get("state", fields["state"]) if fields["state"] == "serving" else fields["state"]
    words = [f"{merge.get('merged', '?')} {merge.get('total', '?')} {fields['target'].rpartition('/')[2]}: {state}"]
    if merge.get("error"):
        words.append(merge["error"])
    if merge.get("rate"):
        left = (merge["size"] - merge["done"]) / merge["rate"]
        words.append(f"{size(merge['rate'])}/s, {left:.0f} s left")
    words.append(f"{fields['what']} over {fields['base']}")
    if fields.get("errors"):
        words.append(f"{fields['errors']} errors")
    return ", ".join(words)
