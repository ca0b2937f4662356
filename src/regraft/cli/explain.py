# SPDX-License-Identifier: Apache-2.0
"""`regraft explain`: what an exit status means, and what to do about it."""

from __future__ import annotations

import re
import signal
from dataclasses import asdict, dataclass

import click

import regraft.errors
from regraft.cli._options import examples, json_option
from regraft.cli._output import emit_json
from regraft.errors import RegraftError, UsageError, tree

#: A line of the tree that heads `regraft.errors`: branches, name, status, meaning.
_LINE = re.compile(r"^[│├└─ ]*(?P<name>\w+) +(?P<status>\d+) +(?P<meaning>\S.*)$", re.MULTILINE)

_AGAIN = "run the same command again: it continues where it stopped"


@dataclass(frozen=True, slots=True)
class Status:
    """One exit status. `name` is the class of the error, `parent` the class it is a kind of; both may be empty.

    `cure` is what errors of the class say when they know nothing more precise.
    """

    status: int
    name: str
    parent: str
    meaning: str
    cure: str


def statuses() -> list[Status]:
    """Every exit status: success, those of the tree of errors, and the two that a shell has conventions for."""
    meanings = {found["name"]: found["meaning"] for found in _LINE.finditer(regraft.errors.__doc__ or "")}
    rows = [Status(0, "", "", "success", "")]
    for error in tree():
        parent = error.__bases__[0].__name__ if error is not RegraftError else ""
        meaning = meanings.get(error.__name__, "")
        rows.append(Status(error.exit_status, error.__name__, parent, meaning, error.default_cure))
    rows.append(Status(130, "", "", "interrupted with Ctrl-C", _AGAIN))
    rows.append(Status(141, "", "", "nobody read the output to its end (a closed pipe)", ""))
    return rows


def look_up(code: str) -> Status:
    """The status for a number or the name of a class. Raises UsageError if there is none."""
    for row in statuses():
        if code and code in (str(row.status), row.name):
            return row
    if code.isdecimal() and len(code) < 4 and int(code) - 128 in set(signal.Signals):
        name = signal.Signals(int(code) - 128).name
        return Status(int(code), "", "", f"ended by the signal {name}", _AGAIN)
    raise UsageError(f"regraft never exits with {code!r}", cure="`regraft explain` lists every exit status")


@click.command(
    short_help="What an exit status means, and what helps.",
    epilog=examples(
        "regraft explain 22",
        "regraft explain DigestError",
        "regraft install -i update.swu -k cert.pem || regraft explain $?",
    ),
)
@click.argument("code", required=False)
@json_option
def command(code: str | None, as_json: bool) -> None:
    """Say what the exit status CODE (or the error of that name) means and what helps; without CODE, list them all."""
    rows = [look_up(code)] if code is not None else statuses()
    if as_json:
        emit_json("explain", {"statuses": [asdict(row) for row in rows]})
    elif code is None:
        click.echo("\n".join(f"{row.status:>4}  {row.name:<18}  {row.meaning}".rstrip() for row in rows))
    else:
        click.echo("\n".join(_page(rows[0])))


def _page(row: Status) -> list[str]:
    lines = [f"exit status  {row.status}" + (f", {row.name}" if row.name else "")]
    if row.parent and row.parent != RegraftError.__name__:
        status = next(other.status for other in statuses() if other.name == row.parent)
        lines.append(f"a kind of    {row.parent} ({status})")
    lines.append(f"meaning      {row.meaning}")
    if row.cure:
        lines.append(f"cure         {row.cure}")
    return lines
