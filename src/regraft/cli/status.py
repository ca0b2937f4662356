# SPDX-License-Identifier: Apache-2.0
"""`regraft status`: which mounts there are, and how they are."""

from __future__ import annotations

from typing import Any

import click

from regraft.cli._options import examples, json_option
from regraft.cli._output import emit_json, size


@click.command(
    epilog=examples("regraft status", "regraft status --json | jq '.mounts[] | select(.state != \"serving\")'")
)
@click.argument("targets", metavar="[DEV|FILE...]", nargs=-1)
@json_option
def command(targets: tuple[str, ...], as_json: bool) -> None:
    """Show the mounts of this machine, or those given: what is mounted, which process serves it, and what went wrong.

    The state is `serving`; `dead`: its daemon is gone, and readers wait for a new one (run `regraft mount` again) or
    get errors; `gone`: the device was detached by others; `silent`: the daemon lives and does not answer.
    """
    from regraft.blockdev import records
    from regraft.blockdev.mounts import state_of
    from regraft.cli._store import without_secrets

    wanted = {records.stem_of(target) for target in targets}
    found = [state_of(record) for record in records.every() if not targets or record.stem in wanted]
    for fields in found:
        fields["what"] = without_secrets(fields["what"])
    if as_json:
        emit_json("status", {"mounts": found})
        return
    for fields in found:
        click.echo(_line(fields))
        for error in fields.get("last_errors", [])[-3:]:
            click.echo(f"    {error['what']}")


def _line(fields: dict[str, Any]) -> str:
    errors = f", {fields['errors']} errors" if fields.get("errors") else ""
    above = f", verified as {fields['verity']['device']}" if fields["verity"] else ""
    who = f"process {fields['pid']}" if fields["state"] in ("serving", "silent") else "no process"
    return f"{fields['target']}: {fields['state']}, {fields['what']}, {size(fields['size'])}, {who}{above}{errors}"
