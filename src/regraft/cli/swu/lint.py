# SPDX-License-Identifier: Apache-2.0
"""`regraft swu lint`: what would fail on a device?"""

from __future__ import annotations

import click

from regraft.cli._output import emit_json, say
from regraft.cli.swu._bundle import opened


@click.command(
    epilog="""Examples:

\b
  regraft swu lint update.swu
  regraft swu lint update.swu --generation 2022.12 --strict
  regraft swu lint update.swu --json | jq '.findings[].rule'
"""
)
@click.argument("bundle")
@click.option(
    "--generation",
    type=click.Choice(["2022.12", "current", "all"]),
    default="all",
    show_default=True,
    help="The release of SWUpdate that the devices run: Debian's 2022.12, or a current one.",
)
@click.option("--strict", is_flag=True, help="Fail on warnings, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def command(ctx: click.Context, bundle: str, generation: str, strict: bool, as_json: bool) -> None:
    """Say what would fail on a device that gets BUNDLE (`-` for standard input), why, and what to do.

    Exits with 0 if nothing fails, with 20 if something would. Signatures are not verified: `regraft swu verify` does.
    """
    from dataclasses import asdict

    from regraft.build.lint import lint, read_facts
    from regraft.cli.swu.inspect import printable
    from regraft.errors import VerificationError

    with opened(bundle) as stream:
        facts = read_facts(stream.read)
    findings = [finding for finding in lint(facts) if generation == "all" or generation in finding.generations]
    failing = [finding for finding in findings if finding.severity in ("error", "warning")[: 1 + strict]]
    if as_json:
        emit_json("lint", {"ok": not failing, "generation": generation, "findings": [asdict(f) for f in findings]})
    else:
        for finding in findings:
            which = "" if len(finding.generations) > 1 else f" ({finding.generations[0]} only)"
            click.echo(printable(f"{finding.severity}: {finding.where}: {finding.message} [{finding.rule}]{which}"))
            if finding.cure:
                click.echo(printable(f"    {finding.cure}"))
        count = {kind: sum(f.severity == kind for f in findings) for kind in ("error", "warning", "note")}
        say(f"{count['error']} errors, {count['warning']} warnings, {count['note']} notes")
    if failing:
        ctx.exit(VerificationError.exit_status)
