# SPDX-License-Identifier: Apache-2.0
"""From the tree of an sw-description to what one board with one software set installs.

Follows SWUpdate's documentation, chapter "SWUpdate: syntax and tags with the default parser", sections "Handling
configuration differences", "Software collections" and "Using links". Where SWUpdate passes over a mistake in silence
(a link that leads nowhere, an attribute of the wrong type), this module refuses the description.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from regraft.errors import FormatError, LimitError
from regraft.formats.libconfig import Value
from regraft.limits import DEFAULT, Limits
from regraft.swupdate.attributes import Attributes, read_entry, read_variable
from regraft.swupdate.description import Description, Entry, Kind, Tree

SECTIONS = ("images", "files", "scripts", "partitions", "bootenv", "uboot", "vars")
_SINGLE = [
    "version",
    "description",
    "hardware-compatibility",
    "update-type",
    "reboot",
    "output",
    "bootloader_transaction_marker",
    "bootloader_state_marker",
    "namespace-for-vars",
    "embedded-script",
]
_TOP = frozenset((*SECTIONS, *_SINGLE, "ref"))
_ROOT = "software"
Path = tuple[str, ...]


def select(
    tree: Tree, *, board: str = "", set_mode: tuple[str, str] | None = None, limits: Limits = DEFAULT
) -> Description:
    """What a device of type `board` installs when `set_mode` (software set, running mode) is asked for.

    Each key is taken from the first of board.set.mode, set.mode, board and the root that has it. Raises FormatError for
    a description that SWUpdate refuses or would misread, LimitError above `limits.artifacts` entries or
    `limits.nesting` links in a row.
    """
    return _Selection(tree, board, set_mode, limits).description()


def selections(tree: Tree) -> list[tuple[str, tuple[str, str] | None]]:
    """Every (board, set_mode) for which the tree has a place of its own; the plain root first if it has sections."""
    found: list[tuple[str, tuple[str, str] | None]] = [("", None)] if _holds(tree.software) else []
    for one, outer in _groups(tree.software):
        if _holds(outer):
            found.append((one, None))
        for two, middle in _groups(outer):
            if _holds(middle):
                found.append(("", (one, two)))
            found += [(one, (two, three)) for three, inner in _groups(middle) if _holds(inner)]
    return found or [("", None)]


def _groups(group: Mapping[str, Value]) -> Iterator[tuple[str, dict[str, Value]]]:
    return ((name, value) for name, value in group.items() if isinstance(value, dict) and name not in _TOP)


def _holds(group: Mapping[str, Value]) -> bool:
    return "ref" in group or any(section in group for section in SECTIONS)


class _Selection:
    __slots__ = ("_candidates", "_follows", "_ignored", "_limits", "_root", "_spent")

    def __init__(self, tree: Tree, board: str, set_mode: tuple[str, str] | None, limits: Limits) -> None:
        self._root: dict[str, Value] = {_ROOT: tree.software}
        self._spent = 0
        self._limits = limits
        self._follows = 0
        self._ignored: list[str] = []
        pair = set_mode if set_mode and all(set_mode) else ()
        boards = (board,) if board else ()
        paths: list[Path] = [(_ROOT, *boards, *pair), (_ROOT, *pair), (_ROOT, *boards), (_ROOT,)]
        self._candidates = list(dict.fromkeys(paths))

    def description(self) -> Description:
        top = self._top()
        found = Description(
            version=top.required("version"),
            description=top.text("description"),
            hardware=top.texts("hardware-compatibility"),
            update_type=top.text("update-type"),
            reboot=top.switch("reboot", default=True),
            transaction_marker=top.flag("bootloader_transaction_marker", default=True),
            state_marker=top.flag("bootloader_state_marker", default=True),
            output=top.text("output"),
            namespace_for_vars=top.text("namespace-for-vars"),
            embedded_script=top.text("embedded-script"),
            partitions=self._entries("partitions"),
            images=self._entries("images"),
            files=self._entries("files"),
            scripts=self._entries("scripts"),
            bootscripts=self._boot_scripts(),
            bootenv=self._variables("bootenv"),
            vars=self._variables("vars"),
            extra=MappingProxyType(self._unknown()),
            ignored=tuple(self._ignored),
        )
        if not found.entries and not found.bootenv:
            raise FormatError(
                "the description installs nothing on this device with this selection",
                cure="check the board's name, and the software set and mode (-e SET,MODE)",
            )
        return found

    # where things are

    def _find(self, key: str) -> tuple[Value, Path] | None:
        """The value of `key` and its path, links followed, in the order of the candidates."""
        for candidate in self._candidates:
            group = self._follow(candidate)
            if group is None or not isinstance(group[0], dict):
                continue
            found = self._follow((*group[1], key))
            if found is not None:
                return found
        return None

    def _follow(self, path: Path) -> tuple[Value, Path] | None:
        """What lies at `path`; a group with a `ref` stands for what it points to. None if nothing lies there."""
        seen: set[Path] = set()
        while True:
            value = self._at(path)
            if value is None:
                if seen:
                    raise FormatError(f"a link leads to {_show(path)}, which does not exist", cure="mend the ref")
                return None
            if not isinstance(value, dict) or "ref" not in value:
                return value, path
            if path in seen or len(seen) >= self._limits.nesting:
                raise FormatError(f"links go round in a circle at {_show(path)}", cure="mend the ref")
            seen.add(path)
            path = self._target(path, value["ref"])

    def _at(self, path: Path) -> Value | None:
        value: Value | None = self._root
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def _target(self, path: Path, ref: Value) -> Path:
        """The absolute path that `ref` means inside the element at `path`: `.` is that element's parent."""
        self._follows += 1
        if self._follows > self._limits.artifacts:
            raise LimitError(f"more links than `artifacts` allows ({self._limits.artifacts})")
        words = [word for word in ref[1:].split("/") if word] if isinstance(ref, str) and ref.startswith("#") else []
        if not words:
            raise FormatError(f"{ref!r} in {_show(path)} is no link", cure="write a link as #./name or #../name")
        target = list(path[:-1]) if words[0] in (".", "..") else []
        for word in words:
            if word == "..":
                if not target:
                    raise FormatError(f"the link {ref!r} in {_show(path)} leads above the root", cure="mend the ref")
                target.pop()
            elif word != ".":
                target.append(word)
        if len(target) > self._limits.nesting:
            raise LimitError(f"a path longer than `nesting` allows ({self._limits.nesting})")
        return tuple(target)

    def _elements(self, section: str) -> Iterator[tuple[dict[str, Value], str]]:
        """The elements of a section, those of linked lists in the place of the link."""
        found = self._find(section)
        if found is None:
            return
        yield from self._spliced(*found, ())

    def _spliced(self, items: Value, path: Path, outer: tuple[Path, ...]) -> Iterator[tuple[dict[str, Value], str]]:
        if path in outer or len(outer) > self._limits.nesting:
            raise FormatError(f"links go round in a circle at {_show(path)}", cure="mend the ref")
        if not isinstance(items, (list, tuple)):
            raise FormatError(f"{_show(path)} must be a list", cure="put its entries into ( ... ), or [ ... ] in JSON")
        for number, item in enumerate(items):
            where = f"{_show(path)}[{number}]"
            self._spent += 1
            if self._spent > self._limits.settings:
                raise LimitError(f"links multiply to more entries than `settings` allows ({self._limits.settings})")
            if not isinstance(item, dict):
                raise FormatError(f"{where} must be a group, not {item!r:.40}", cure="put its attributes into { ... }")
            if "ref" not in item:
                yield item, where
                continue
            linked = self._follow(self._target(path, item["ref"]))
            if linked is None:
                raise FormatError(f"the link {item['ref']!r} in {where} leads nowhere", cure="mend the ref")
            yield from self._spliced(*linked, (*outer, path))

    # what they say

    def _top(self) -> Attributes:
        group: dict[str, Value] = {}
        for key in _SINGLE:
            found = self._find(key)
            if found is not None:
                group[key] = found[0]
        return Attributes(group, _ROOT)

    def _entries(self, kind: Kind) -> tuple[Entry, ...]:
        entries: list[Entry] = []
        for group, where in self._elements(kind):
            if kind in ("images", "files") and "filename" not in group:
                self._ignored.append(where)
                continue
            entries.append(read_entry(kind, group, where, self._limits))
            if len(entries) > self._limits.artifacts:
                raise LimitError(f"more entries in '{kind}' than `artifacts` allows ({self._limits.artifacts})")
        return tuple(entries)

    def _boot_section(self) -> str:
        return "bootenv" if self._find("bootenv") is not None else "uboot"

    def _boot_scripts(self) -> tuple[Entry, ...]:
        elements = self._elements(self._boot_section())
        scripts = [(group, where) for group, where in elements if "name" not in group and "filename" in group]
        return tuple(read_entry("bootenv", group, where, self._limits) for group, where in scripts)

    def _variables(self, section: str) -> tuple[tuple[str, str], ...]:
        """Names and values; of two with one name SWUpdate keeps the first, since it reads the list from its end."""
        variables: dict[str, str] = {}
        for group, where in self._elements(self._boot_section() if section == "bootenv" else section):
            if "name" in group:
                name, value = read_variable(group, where)
                variables.setdefault(name, value)
            elif section == "vars":
                raise FormatError(f"{where} has no name", cure="give every variable a name")
            elif "filename" not in group:
                self._ignored.append(where)
        return tuple(variables.items())

    def _unknown(self) -> dict[str, Value]:
        """Attributes at the places searched that mean nothing; groups and lists are places of other selections."""
        unknown: dict[str, Value] = {}
        for candidate in reversed(self._candidates):
            group = self._at(candidate)
            if isinstance(group, dict):
                unknown |= {k: v for k, v in group.items() if k not in _TOP and not isinstance(v, (dict, list))}
        return unknown


def _show(path: Path) -> str:
    return ".".join(path)
