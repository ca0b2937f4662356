# SPDX-License-Identifier: Apache-2.0
"""The report on a terminal: colours and blocks where they can be shown, letters where not."""

from __future__ import annotations

import sys
from pathlib import Path

from picture import BY_NUMBER, ORIGINS, cells
from results import Results, duration, size
from rich.console import Console
from rich.text import Text

_LINES = 8


def console() -> Console:
    """Standard output; 96 columns where it is no terminal."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 96)


class Teller:
    """Prints the demo as it goes: numbered steps, the commands, what they found."""

    def __init__(self, screen: Console, folder: Path) -> None:
        self.screen, self._folder, self._number = screen, str(folder), 0
        unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        self.colours = unicode and screen.color_system is not None and not screen.no_color
        self._full, self._rest = ("█", "·") if unicode else ("#", ".")

    def title(self, words: str) -> None:
        self.screen.print(Text(f"\n  {words}", "bold"))

    def step(self, words: str) -> None:
        self._number += 1
        self.screen.print()
        self.screen.print(Text.assemble((f"  {self._number}  ", "bold cyan"), (words, "bold")))

    def command(self, *arguments: str) -> None:
        """Show a command as one would type it in the demo's folder."""
        words = [argument.replace(self._folder, "$PWD") for argument in arguments]
        line, lines = "$ regraft", []
        for word, following in zip(words, [*words[1:], ""], strict=True):
            # an option and its value stay together
            if len(line) + len(word) + len(following if word.startswith("-") else "") > 84:
                lines.append(line + " \\")
                line = "     "
            line += " " + word
        for text in [*lines, line]:
            self.screen.print(Text(f"     {text}", "dim"))

    def found(self, words: str, mark: str = "") -> None:
        for line in words.rstrip().splitlines():
            self.screen.print(Text.assemble("     ", (mark, "bold green"), line))

    def right(self, words: str) -> None:
        self.found(words, "✓ " if self._full == "█" else "ok: ")

    # -- the report ----------------------------------------------------------------------------------------------------

    def report(self, results: Results) -> None:
        self._map(results)
        self._bars(results)

    def _map(self, results: Results) -> None:
        self.title("The new image, and where each of its bytes came from")
        self.screen.print()
        width = min(max(self.screen.width - 16, 20), 80)
        height = _LINES * (2 if self.colours else 1)
        found = cells(results.install["origins"], results.image, width * height)
        rows = [found[row * width : (row + 1) * width] for row in range(height)]
        for line in range(_LINES):
            text = Text.assemble((f"  {size(results.image * line // _LINES):>9}  ", "dim"))
            if self.colours:  # two rows of the picture in one line: the upper is the ink, the lower the paper
                for upper, lower in zip(rows[2 * line], rows[2 * line + 1], strict=True):
                    text.append("▀", f"{BY_NUMBER[upper].dark} on {BY_NUMBER[lower].dark}")
            else:
                text.append("".join(BY_NUMBER[origin].letter for origin in rows[line]))
            self.screen.print(text)
        self.screen.print()
        row = cells(results.killed.second["origins"], results.image, width)
        text = Text.assemble((f"  {'killed':>9}  ", "dim"))
        for number in row:
            text.append("█", BY_NUMBER[number].dark) if self.colours else text.append(BY_NUMBER[number].letter)
        self.screen.print(text)
        self.screen.print(Text(f"{'':13}the same, killed half-way: what the second run found and fetched", "dim"))
        self.screen.print()
        for origin in ORIGINS:
            sign = ("  ██ ", origin.dark) if self.colours else (f"  {origin.letter}  ", "")
            words = f"{size(results.install[origin.field]):>10}{results.share(origin.field):>7.0%}"
            if origin.field == "in_place":
                words = f"{size(results.killed.second[origin.field]):>10}  in the second run"
            self.screen.print(Text.assemble(sign, f"{origin.name:<10}{words}"))

    def _bars(self, results: Results) -> None:
        self.title("What passed the network, and how long it took (20 Mbit/s, 100 ms)")
        self.screen.print()
        bars = results.bars()
        longest = max(bar.total for bar in bars)
        room = min(max(self.screen.width - 64, 8), 34)
        for bar in bars:
            filled = round(room * bar.total / longest) or (1 if bar.total else 0)
            line = Text.assemble((f"  {bar.name:<27}{size(bar.total):>10}  ", "bold" if bar.own else ""))
            line.append(self._full * filled, "#ff922b" if bar.own else "")
            line.append(self._rest * (room - filled), "dim")
            line.append(f" {'measured' if bar.measured else 'computed':>9}{duration(bar.seconds):>12}"
                        if bar.seconds else f" {' + '.join(size(part) for part in bar.parts):>21}")  # fmt: skip
            self.screen.print(line)
        saved = 1 - results.moved / results.artifact
        self.screen.print()
        self.found(
            f"{size(results.artifact - results.moved)} ({saved:.0%}) less than the whole compressed image,"
            f" {1 - results.moved / results.image:.0%} less than the plain one."
        )
        for words in results.forecast_words():
            self.found(words)
        if results.memory:
            self.found(f"The device needed {results.memory / (1 << 20):.0f} MiB of memory at most.")
