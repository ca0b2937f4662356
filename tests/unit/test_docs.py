# SPDX-License-Identifier: Apache-2.0
"""The documentation says what the program says, and its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

import regraft.cli
from regraft.cli._group import VerbGroup
from regraft.cli.explain import statuses

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_FENCE = re.compile(r"^```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^]]*\]\((?P<target>[^)\s]+)\)")


def _names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def _generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_and_blocks_of_help_are_current() -> None:
    # Words only: where lines break in --help is a matter of the library's version.
    generate = _generate()
    old = [
        str(page.relative_to(ROOT))
        for page, text in generate.pages().items()
        if not page.is_file() or page.read_text(encoding="utf-8").split() != text.split()
    ]
    assert not old, "run docs/generate.py"


def test_a_changed_block_of_help_is_noticed() -> None:
    generate = _generate()
    right = generate.with_help("```help regraft doctor\n```\n")
    assert "--json" in right
    assert generate.with_help(right.replace("--json", "--xml")) == right
    with pytest.raises(ValueError, match="no command"):
        generate.with_help("```help regraft teleport\n```\n")


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in (found["target"] for found in _LINK.finditer(text)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(linked), f"{page.name} links to {target}"


def _commands(text: str) -> Iterator[list[str]]:
    """The calls of regraft in blocks of shell: lines that begin with `$ regraft`, continued with a backslash."""
    for fence in _FENCE.finditer(text):
        for line in fence["text"].replace("\\\n", " ").splitlines():
            if line.startswith("$ regraft "):
                yield shlex.split(line.partition(";")[0])[2:]


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_commands_that_are_shown_exist_with_their_options(page: Path) -> None:
    for words in _commands(page.read_text(encoding="utf-8")):
        command: click.Command = VerbGroup("regraft", regraft.cli.__path__, "regraft.cli")
        rest = list(words)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            found = command.get_command(click.Context(command), rest[0])
            assert found is not None, f"{page.name} shows `regraft {' '.join(words)}`"
            command, rest = found, rest[1:]
        known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"-h", "--help"}
        for word in rest:
            assert not word.startswith("-") or word == "-" or word in known, f"{page.name}: regraft {' '.join(words)}"


def test_commands_are_found_in_the_pages() -> None:
    shown = [words[0] for page in PAGES for words in _commands(page.read_text(encoding="utf-8"))]
    assert {"pack", "swu", "install", "plan", "serve"} <= set(shown)


def test_the_guide_names_statuses_by_their_numbers() -> None:
    guide = (ROOT / "docs/guides/first-delta-update.md").read_text(encoding="utf-8")
    named = [int(number) for number in re.findall(r"^\| `[^|]*\| (\d+) \|", guide, re.MULTILINE)]
    assert named
    assert set(named) <= {row.status for row in statuses()}


def test_what_the_compatibility_table_claims_has_a_test() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## Compatibility")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| what")]
    assert len(rows) > 5
    for row in rows:
        assert re.search(r"\]\(tests/[\w/]+\.py\)", row), row


@pytest.mark.parametrize("picture", sorted(ROOT.glob("docs/pictures/*.svg")), ids=lambda path: path.name)
def test_pictures_are_whole_and_refer_to_nothing_outside(picture: Path) -> None:
    text = picture.read_text(encoding="utf-8")
    ET.fromstring(text)
    assert text.count("http") == 1, "the name of SVG's namespace, and nothing else"
    assert "prefers-color-scheme:dark" in text


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_no_page_names_a_path_of_the_machine_it_was_written_on(page: Path) -> None:
    assert not re.search(r"(?<![\w.])/(work|tmp|home|root)/", page.read_text(encoding="utf-8"))
