# SPDX-License-Identifier: Apache-2.0
"""POSIX extended regular expressions (IEEE Std 1003.1, "Regular Expressions", section 9.4) in bounded time.

Python's `re` has another syntax and can take exponential time, so a pattern from a peer runs here instead: it becomes
an automaton without backtracking, whose work is at most the length of the text times the number of its states. Equal to
what `regexec` of the C library answers to "does it match anywhere?" in the C locale, for every pattern accepted here.

Refused, although some C libraries take it: back references, word boundaries (`\\b`, `\\<`), collating symbols,
a repetition of nothing, an unmatched `)`.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from regraft.errors import FormatError, LimitError, UnsupportedError

DEPTH: Final = 24  #: of groups and stacked repetitions
REPEAT: Final = 255  #: the largest number in `{m,n}` (RE_DUP_MAX of POSIX)

_CLASSES: Final = {
    "alpha": string.ascii_letters,
    "digit": string.digits,
    "alnum": string.ascii_letters + string.digits,
    "upper": string.ascii_uppercase,
    "lower": string.ascii_lowercase,
    "space": " \t\n\v\f\r",
    "blank": " \t",
    "punct": string.punctuation,
    "print": "".join(map(chr, range(32, 127))),
    "graph": "".join(map(chr, range(33, 127))),
    "cntrl": "".join(map(chr, [*range(32), 127])),
    "xdigit": string.hexdigits,
}
_WORD = frozenset(string.ascii_letters + string.digits + "_")
_SPACE = frozenset(_CLASSES["space"])
_ESCAPES = {"w": (_WORD, False), "W": (_WORD, True), "s": (_SPACE, False), "S": (_SPACE, True)}


@dataclass(frozen=True, slots=True)
class _One:
    """One character that is in `letters`, or that is not if `negated`."""

    letters: frozenset[str]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class _Edge:
    """The start of the text, or its end."""

    at_end: bool


@dataclass(frozen=True, slots=True)
class _Join:
    """One after the other; without items the empty text."""

    items: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Either:
    items: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    item: _Node
    least: int
    most: int | None


_Node: TypeAlias = "_One | _Edge | _Join | _Either | _Repeat"


@dataclass(slots=True)
class Pattern:
    """A compiled pattern. `size` is the number of its states."""

    _start: int = 0
    _tests: list[_One | _Edge | None] = field(default_factory=list)  # None: the state only leads on
    _next: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self._tests)

    def matches(self, text: str) -> bool:
        """Whether the pattern matches anywhere in `text`."""
        here: set[int] = set()
        for position in range(len(text) + 1):
            here.add(self._start)
            here = self._closure(here, at_start=position == 0, at_end=position == len(text))
            if 0 in here:
                return True
            if position == len(text):
                break
            letter = text[position]
            here = {
                self._next[state][0]
                for state in here
                if isinstance(test := self._tests[state], _One) and (letter in test.letters) is not test.negated
            }
            if 0 in here:
                return True
        return False

    def _closure(self, states: Iterable[int], *, at_start: bool, at_end: bool) -> set[int]:
        """All states reached without taking a character."""
        reached = set(states)
        waiting = list(reached)
        while waiting:
            state = waiting.pop()
            test = self._tests[state]
            if isinstance(test, _One) or (isinstance(test, _Edge) and not (at_end if test.at_end else at_start)):
                continue
            for other in self._next[state]:
                if other not in reached:
                    reached.add(other)
                    waiting.append(other)
        return reached


def compile_pattern(pattern: str, *, states: int = 4096) -> Pattern:
    """The automaton of `pattern`. Raises FormatError, UnsupportedError, or LimitError above `states`."""
    reader = _Reader(pattern)
    node = reader.either(0)
    if reader.more():
        raise reader.error("an unmatched ')'")
    return _Builder(states).pattern(node)


class _Reader:
    """Recursive descent over the pattern, at most `DEPTH` deep."""

    __slots__ = ("_at", "_text")

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def more(self) -> bool:
        return self._at < len(self._text)

    def error(self, cause: str) -> FormatError:
        return FormatError(
            f"{cause} at character {self._at + 1} of the regular expression {self._text[:60]!r}",
            cure="write a POSIX extended regular expression",
        )

    def _take(self) -> str:
        letter = self._text[self._at]
        self._at += 1
        return letter

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def either(self, depth: int) -> _Node:
        if depth > DEPTH:
            raise LimitError(f"a regular expression nested deeper than {DEPTH}")
        branches = [self._branch(depth)]
        while self._peek() == "|":
            self._at += 1
            branches.append(self._branch(depth))
        return branches[0] if len(branches) == 1 else _Either(tuple(branches))

    def _branch(self, depth: int) -> _Node:
        items: list[_Node] = []
        while self._peek() not in ("", "|", ")"):
            items.append(self._repeated(self._atom(depth)))
        return _Join(tuple(items))

    def _repeated(self, node: _Node) -> _Node:
        stacked = 0
        while self._peek() and self._peek() in "*+?{":
            if isinstance(node, _Edge):
                raise self.error("a repetition of nothing")
            stacked += 1
            if stacked > DEPTH:
                raise LimitError(f"more than {DEPTH} repetitions on one another in a regular expression")
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(sign := self._take(), (0, 0))
            if sign == "{":
                least, most = self._interval()
            node = _Repeat(node, least, most)
        return node

    def _interval(self) -> tuple[int, int | None]:
        end = self._text.find("}", self._at)
        least, comma, most = self._text[self._at : max(end, self._at)].partition(",")
        if end < 0 or not _is_count(least) or (most and not _is_count(most)):
            raise self.error("a malformed interval")
        low = int(least)
        high = int(most) if most else None if comma else low
        if low > REPEAT or (high is not None and not low <= high <= REPEAT):
            raise self.error("an interval out of range")
        self._at = end + 1
        return low, high

    def _atom(self, depth: int) -> _Node:
        letter = self._take()
        if letter == "(":
            node = self.either(depth + 1)
            if self._peek() != ")":
                raise self.error("an unmatched '('")
            self._at += 1
            return node
        if letter in "^$":
            return _Edge(at_end=letter == "$")
        if letter in "*+?{":
            raise self.error("a repetition of nothing")
        if letter == "[":
            return self._bracket()
        if letter == "\\":
            return self._escape()
        return _One(frozenset(), negated=True) if letter == "." else _One(frozenset(letter))

    def _escape(self) -> _Node:
        if not self.more():
            raise self.error("a trailing backslash")
        letter = self._take()
        if letter in _ESCAPES:
            return _One(*_ESCAPES[letter])
        if letter.isdigit() or letter in "bB<>`'":
            raise UnsupportedError(f"\\{letter} in the regular expression {self._text[:60]!r}", cure="write it without")
        return _One(frozenset(letter))

    def _bracket(self) -> _Node:
        negated = self._peek() == "^"
        self._at += negated
        letters: set[str] = set()
        first = True
        while first or self._peek() != "]":
            if not self.more():
                raise self.error("an unmatched '['")
            first = False
            if self._text.startswith("[:", self._at):
                letters.update(self._class())
                continue
            low = self._bracket_letter()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._bracket_letter()
                if not ord(low) <= ord(high) <= ord(low) + 256:
                    raise self.error("a range that ends before it starts, or is too wide")
                letters.update(map(chr, range(ord(low), ord(high) + 1)))
            else:
                letters.add(low)
        self._at += 1
        return _One(frozenset(letters), negated)

    def _bracket_letter(self) -> str:
        if self._text.startswith(("[.", "[=", "[:"), self._at):
            raise UnsupportedError(f"collating symbols in the regular expression {self._text[:60]!r}")
        return self._take()

    def _class(self) -> str:
        end = self._text.find(":]", self._at)
        letters = _CLASSES.get(self._text[self._at + 2 : end]) if end > 0 else None
        if letters is None:
            raise self.error("an unknown character class")
        self._at = end + 2
        return letters


def _is_count(digits: str) -> bool:
    return 0 < len(digits) <= 3 and digits.isascii() and digits.isdigit()


class _Builder:
    """Builds the automaton from its end: every part is given the state that follows it. State 0 is the match."""

    __slots__ = ("_limit", "_pattern")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pattern = Pattern()

    def pattern(self, node: _Node) -> Pattern:
        final = self._add(None, ())
        self._pattern._start = self._part(node, final)
        return self._pattern

    def _add(self, test: _One | _Edge | None, following: tuple[int, ...]) -> int:
        if self._pattern.size >= self._limit:
            raise LimitError(
                f"a regular expression of more than {self._limit} states", cure="write it with less repetition"
            )
        self._pattern._tests.append(test)
        self._pattern._next.append(following)
        return self._pattern.size - 1

    def _part(self, node: _Node, then: int) -> int:
        if isinstance(node, (_One, _Edge)):
            return self._add(node, (then,))
        if isinstance(node, _Join):
            for item in reversed(node.items):
                then = self._part(item, then)
            return then
        if isinstance(node, _Either):
            return self._add(None, tuple(self._part(item, then) for item in node.items))
        return self._repeat(node, then)

    def _repeat(self, node: _Repeat, then: int) -> int:
        start = then
        if node.most is None:
            start = self._add(None, ())
            self._pattern._next[start] = (self._part(node.item, start), then)
        else:
            for _ in range(node.most - node.least):
                start = self._add(None, (self._part(node.item, start), then))
        for _ in range(node.least):
            start = self._part(node.item, start)
        return start
