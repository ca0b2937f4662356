#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reference and the blocks of help elsewhere from the program itself.

    .venv/bin/python docs/generate.py            write what is not current
    .venv/bin/python docs/generate.py --check    name what is not current, and end with 1

The pages depend on regraft alone, not on the version of the library that prints `--help`.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import click

import regraft.cli
from regraft.cli._group import VerbGroup
from regraft.cli.explain import statuses
from regraft.errors import RegraftError, tree
from regraft.formats import (
    android_cow,
    bsdiff,
    chunk_rules,
    cow_v2,
    cow_v3,
    dm_update,
    journal,
    kept_index,
    merge_state,
    payload,
    sidecar,
)  # fmt: skip
from regraft.limits import DEFAULT

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
_HEAD = "<!-- made by docs/generate.py: edit the sources instead -->\n\n"
_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


# -- commands ----------------------------------------------------------------------------------------------------------


def commands() -> str:
    """Every verb with its arguments and options."""
    root = VerbGroup("regraft", regraft.cli.__path__, "regraft.cli")
    verbs = list(_verbs(root, ("regraft",)))
    text = "# Commands\n\nResults go to stdout, words to stderr. `--help` of each verb says the same as this page.\n"
    text += "An error shows its cause and its cure; the exit status is that of its class: [exit-statuses.md].\n\n"
    text += "".join(f"* [{' '.join(path)}](#{'-'.join(path)}): {_short(command)}\n" for path, command in verbs)
    text += "".join(_page(path, command) for path, command in verbs)
    return _HEAD + text + "\n[exit-statuses.md]: exit-statuses.md\n"


def _verbs(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _verbs(command, (*path, name))
        else:
            yield (*path, name), command


def _short(command: click.Command) -> str:
    return _paragraphs(command.short_help or command.help)[0].replace("|", "\\|")


def _paragraphs(text: str | None) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text or "").split("\n\n")]


def _page(path: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=path[-1])
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    options = [param for param in command.params if isinstance(param, click.Option)]
    words = [*path, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)]
    text = f"\n## {' '.join(path)}\n\n```\n{' '.join(words)}\n```\n\n" + "\n\n".join(_paragraphs(command.help)) + "\n"
    if options:
        text += "\n| option | meaning |\n|---|---|\n"
        text += "".join(f"| {_option(option)} | {_meaning(option, context)} |\n" for option in options)
    if command.epilog:
        lines = [line for line in inspect.cleandoc(command.epilog).splitlines() if line.strip() not in ("\b", "")]
        text += "\n" + "".join(_epilog(lines))
    return text


def _epilog(lines: list[str]) -> Iterator[str]:
    """Headings and the indented lines under them, as paragraphs and blocks of code."""
    block = False
    for line in lines:
        code = line.startswith(" ")
        if block and not code:
            yield "```\n\n"
        if code and not block:
            yield "\n```\n"
        block = code
        yield f"{line[2:] if code else line}\n"
    if block:
        yield "```\n"


def _argument(argument: click.Argument) -> str:
    name = argument.metavar or (argument.name or "").upper()
    if isinstance(argument.type, click.Choice) and not argument.metavar:
        name = "|".join(map(str, argument.type.choices))
    return name if argument.required else f"[{name}]"


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len))
    if option.secondary_opts:
        names += " / " + ", ".join(f"`{name}`" for name in sorted(option.secondary_opts, key=len))
    if option.is_flag:
        return names
    if option.metavar:
        value = option.metavar
    elif isinstance(option.type, click.Choice):
        value = "|".join(map(str, option.type.choices))
    elif isinstance(option.type, click.IntRange):
        bounds = [str(bound) if bound is not None else "" for bound in (option.type.min, option.type.max)]
        value = "..".join(bounds)
    else:
        value = option.type.name.upper()
    return f"{names} `{value}`".replace("|", "\\|")


def _meaning(option: click.Option, context: click.Context) -> str:
    words = " ".join((option.help or "").split())
    if option.required:
        words += " Required."
    if option.show_default is True:
        default = option.get_default(context)
        if option.is_flag and option.secondary_opts:
            default = (option.opts if default else option.secondary_opts)[-1]
        words += f" Default: `{default}`."
    if option.envvar:
        words += f" Environment: `{option.envvar}`."
    return words.strip().replace("|", "\\|")


# -- exit statuses -----------------------------------------------------------------------------------------------------


def exit_statuses() -> str:
    """The tree of errors as a table."""
    depth = {error.__name__: len(error.__mro__) - len(RegraftError.__mro__) for error in tree()}
    text = "# Exit statuses\n\n"
    text += "A status belongs to a class of errors, and a class to a cure. `regraft explain CODE` shows one of them,\n"
    text += "`regraft explain --json` all. A class is a kind of the class that it is indented under. The cure is the\n"
    text += "general one: an error that knows more says more.\n\n"
    text += "| status | error | meaning | cure |\n|---:|---|---|---|\n"
    for row in statuses():
        name = "&emsp;" * depth.get(row.name, 0) + (f"`{row.name}`" if row.name else "")
        text += f"| {row.status} | {name} | {row.meaning} | {row.cure} |\n"
    text += "\nA command that a signal ended has 128 + the signal's number, as with any program: 137 after SIGKILL.\n"
    text += "`regraft swu lint` ends with 20 when something would fail on a device.\n"
    return _HEAD + text


# -- limits ------------------------------------------------------------------------------------------------------------


def limits() -> str:
    """The fields of `Limits` with their defaults and the comments beside them."""
    module = inspect.getmodule(type(DEFAULT))
    assert module is not None
    source = inspect.getsource(module)
    lines = source.splitlines()
    (body,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    text = "# Limits\n\n"
    text += (
        "Nothing that a peer or a file claims is believed beyond these: what is above one of them is refused, most of\n"
    )
    text += (
        "it with `LimitError` (12). They are a parameter of regraft's functions. The command line uses the defaults;\n"
    )
    text += (
        "`--connections` sets `connections`, and the property `max-ranges` of an entry lowers `ranges_per_request`.\n"
    )
    last = body.lineno
    for node in body.body:
        if not isinstance(node, ast.AnnAssign):
            continue
        assert isinstance(node.target, ast.Name)
        assert node.value is not None
        group = [line.strip()[2:] for line in lines[last : node.lineno - 1] if line.strip().startswith("# ")]
        if group:
            text += f"\n## {group[-1][0].upper()}{group[-1][1:]}\n\n| limit | default | of what |\n|---|---:|---|\n"
        last = node.lineno
        line = lines[node.lineno - 1]
        comment = line.partition("#:")[2].strip()
        expression = ast.get_source_segment(source, node.value) or ""
        text += f"| `{node.target.id}` | {_amount(getattr(DEFAULT, node.target.id), expression)} | {comment} |\n"
    text += "\nSizes are in bytes, times in seconds, the rest are counts.\n"
    return _HEAD + text


def _amount(value: float, expression: str) -> str:
    """A default: with a unit if it is written with one, else with its thousands apart."""
    if any(sign in expression for sign in ("KIB", "MIB", "GIB", "<<")):
        for unit, name in _UNITS:
            if value % unit == 0:
                return f"{value // unit:g} {name}"
    return f"{value:,}".replace(",", " ")


# -- formats -----------------------------------------------------------------------------------------------------------


def formats() -> str:
    """The files of regraft's own, and pairwise deltas, from the docstrings of the modules that read and write them."""
    text = "# Formats\n\n## regraft's own files\n\n"
    text += (
        "Journals and the kept index lie beside the target: for a file as `NAME.regraft.journal`,\n"
        "`NAME.regraft.merge` and `NAME.regraft.index`, for a block device in `/var/lib/regraft`, or in the folder\n"
        "that `REGRAFT_STATE` names. Journal and index can be removed at any time: without the journal an interrupted\n"
        "update starts over, without the index the next one reads all of its source. The journal of a merge must stay\n"
        "until the merge is done: it holds what is nowhere else.\n"
    )
    own = (
        ("Journal", journal), ("Journal of a merge", merge_state), ("Kept index", kept_index),
        ("Sidecar of a delta", sidecar),
    )  # fmt: skip
    text += _pages_of(own) + "\n## Pairwise deltas\n\n"
    text += (
        "A delta makes one image of one other. regraft reads and writes diffs of dm-update and COW files, and reads\n"
        "payloads and the bsdiff patches in them. `regraft inspect` checks one as a whole.\n"
    )
    deltas = (
        ("dm-update", dm_update), ("Android COW", android_cow), ("Android COW, versions 1 and 2", cow_v2),
        ("Android COW, version 3", cow_v3), ("Android update payload", payload), ("bsdiff", bsdiff),
    )  # fmt: skip
    text += _pages_of(deltas)
    text += (
        "\n## What regraft adds to the formats of others\n\n"
        "zchunk files (version 1) and bita archives (0.1 to 0.13) are read and written as their own tools do it, and\n"
        "`regraft convert` makes one of the other. One thing is added where it is needed:\n"
    )
    text += _pages_of((("Rules for cutting", chunk_rules),))
    return _HEAD + text


def _pages_of(modules: Iterable[tuple[str, ModuleType]]) -> str:
    return "".join(
        f"\n### {title}\n\n{_markdown(inspect.cleandoc(module.__doc__ or ''))}\n" for title, module in modules
    )


def _markdown(text: str) -> str:
    """Paragraphs as they are, indented ones as blocks of code."""
    blocks = [
        f"```\n{inspect.cleandoc(block)}\n```" if block.startswith("    ") else block for block in text.split("\n\n")
    ]
    return "\n\n".join(blocks)


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "exit-statuses.md": exit_statuses,
    "limits.md": limits,
    "formats.md": formats,
}


# -- blocks of help ----------------------------------------------------------------------------------------------------

_BLOCK = re.compile(r"^```help (?P<words>[^\n]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def help_of(words: str) -> str:
    """What `words --help` prints, 100 columns wide."""
    command: click.Command = VerbGroup("regraft", regraft.cli.__path__, "regraft.cli")
    names = words.split()
    context = click.Context(command, info_name=names[0], terminal_width=100, **command.context_settings)
    for name in names[1:]:
        if not isinstance(command, click.Group) or (found := command.get_command(context, name)) is None:
            raise ValueError(f"there is no command {words!r}")
        command = found
        context = click.Context(command, parent=context, info_name=name, terminal_width=100)
    return command.get_help(context) + "\n"


def with_help(text: str) -> str:
    """The text with every block ```` ```help COMMAND ```` as the program has it."""
    return _BLOCK.sub(lambda found: f"```help {found['words']}\n{help_of(found['words'])}```", text)


def pages() -> dict[Path, str]:
    """Every page that is made here, in part or as a whole, as it should be."""
    made = {REFERENCE / name: make() for name, make in PAGES.items()}
    for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))):
        text = page.read_text(encoding="utf-8")
        if page not in made and _BLOCK.search(text):
            made[page] = with_help(text)
    return made


def stale() -> dict[Path, str]:
    """The pages that differ from what the program says, as they should be."""
    return {
        page: text for page, text in pages().items() if not page.is_file() or page.read_text(encoding="utf-8") != text
    }


def main() -> int:
    changed = stale()
    for page, text in changed.items():
        if "--check" in sys.argv[1:]:
            sys.stdout.write(f"{page.relative_to(ROOT)} is not current: run docs/generate.py\n")
        else:
            page.parent.mkdir(exist_ok=True)
            page.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{page.relative_to(ROOT)}\n")
    return bool(changed) if "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
