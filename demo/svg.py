# SPDX-License-Identifier: Apache-2.0
"""The report as one SVG file: self-contained, for a light and for a dark ground."""

from __future__ import annotations

from html import escape

from picture import ORIGINS, cells, joined
from results import Results, duration, size

WIDTH, MARGIN = 960, 40
INNER = WIDTH - 2 * MARGIN
_LABEL = 72  # room for the byte scale, left of the map
_ROWS, _ROW, _GAP = 12, 15, 4
_CELL = 0.5  # width of the smallest thing drawn, in pixels

_INK = {
    "ground": ("#ffffff", "#0d1117"),
    "panel": ("#f6f8fa", "#161b22"),
    "line": ("#d0d7de", "#30363d"),
    "ink": ("#1f2328", "#e6edf3"),
    "soft": ("#59636e", "#9198a1"),
    "other": ("#afb8c1", "#484f58"),
    "own": ("#d9480f", "#ff922b"),
    "own2": ("#f4a574", "#a85a14"),
}


def draw(results: Results) -> str:
    """The whole picture, as the text of an SVG file."""
    parts: list[str] = []
    y = _heading(parts, results)
    y = _figures(parts, results, y)
    y = _map(parts, results, y)
    y = _killed(parts, results, y)
    y = _legend(parts, results, y)
    y = _bars(parts, results, y)
    y = _foot(parts, results, y)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img" '
        f"font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\">\n"
        f"<title>regraft: {size(results.moved)} moved for an image of {size(results.image)}</title>\n"
        f"<style>\n{_style()}</style>\n"
        f'<rect class="ground" width="{WIDTH}" height="{y}" rx="12"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _style() -> str:
    def rules(which: int) -> str:
        inks = "".join(f".{name}{{fill:{colours[which]}}}" for name, colours in _INK.items())
        return inks + "".join(f".o{o.number}{{fill:{(o.light, o.dark)[which]}}}" for o in ORIGINS)

    sizes = (
        ".t{font-size:24px;font-weight:700}.h{font-size:15px;font-weight:600}.n{font-size:30px;font-weight:700}"
        ".s{font-size:13px}.x{font-size:11.5px}text{font-variant-numeric:tabular-nums}.b{font-weight:600}"
    )
    return f"{sizes}\n{rules(0)}\n@media (prefers-color-scheme:dark){{{rules(1)}}}\n"


def _text(x: float, y: float, words: str, classes: str, anchor: str = "start") -> str:
    end = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:g}" y="{y:g}" class="{classes}"{end}>{escape(words)}</text>'


def _rect(x: float, y: float, width: float, height: float, classes: str, radius: float = 0) -> str:
    round_ = f' rx="{radius:g}"' if radius else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" class="{classes}"{round_}/>'


def _heading(parts: list[str], results: Results) -> int:
    parts.append(_text(MARGIN, 56, "One delta update, from end to end", "t ink"))
    words = f"{results.story[0].upper()}{results.story[1:]}, {size(results.image)}"
    parts.append(_text(MARGIN, 80, words, "s soft"))
    return 104


def _figures(parts: list[str], results: Results, y: int) -> int:
    """The four numbers one remembers."""
    figures = [
        (size(results.moved), "over the network", "own"),
        (f"{1 - results.moved / results.artifact:.0%}", "less than a full download", "ink"),
        (duration(results.install_seconds), "at 20 Mbit/s and 100 ms", "ink"),
        (
            (f"{results.memory / (1 << 20):.0f} MiB", "of memory on the device")
            if results.memory
            else (f"{results.chunks}", "chunks, each verified")
        )
        + ("ink",),
    ]
    width = (INNER - 3 * 16) / 4
    for number, (figure, words, ink) in enumerate(figures):
        x = MARGIN + number * (width + 16)
        parts.append(_rect(x, y, width, 84, "panel", 10))
        parts.append(_text(x + 16, y + 44, figure, f"n {ink}"))
        parts.append(_text(x + 16, y + 67, words, "x soft"))
    return y + 84 + 44


def _map(parts: list[str], results: Results, y: int) -> int:
    parts.append(_text(MARGIN, y, "The new image, and where each of its bytes came from", "h ink"))
    y += 18
    width = INNER - _LABEL
    count = int(width / _CELL)
    found = cells(results.install["origins"], results.image, count * _ROWS)
    for row in range(_ROWS):
        parts.append(
            _text(
                MARGIN + _LABEL - 12, y + _ROW - 3.5, size(results.image * row / _ROWS) if row else "0", "x soft", "end"
            )
        )
        for first, number, origin in joined(found[row * count : (row + 1) * count]):
            parts.append(_rect(MARGIN + _LABEL + first * _CELL, y, number * _CELL, _ROW, f"o{origin}"))
        y += _ROW + _GAP
    parts.append(
        _text(
            MARGIN + INNER,
            y + 14,
            f"read like text: {size(results.image / _ROWS)} a line, {size(results.image)} in all",
            "x soft",
            "end",
        )
    )
    return y + 14 + 32


def _killed(parts: list[str], results: Results, y: int) -> int:
    """The whole image in one line, as the second run of the killed installation saw it."""
    parts.append(
        _text(
            MARGIN,
            y,
            "The same, killed half-way: what the second run found and fetched (all of the image in one line)",
            "h ink",
        )
    )
    y += 18
    width = INNER - _LABEL
    parts.append(_text(MARGIN + _LABEL - 12, y + _ROW - 3.5, "0", "x soft", "end"))
    row = cells(results.killed.second["origins"], results.image, int(width / _CELL))
    for first, number, origin in joined(row):
        parts.append(_rect(MARGIN + _LABEL + first * _CELL, y, number * _CELL, _ROW, f"o{origin}"))
    return y + _ROW + 34


def _legend(parts: list[str], results: Results, y: int) -> int:
    x = float(MARGIN + _LABEL)
    for origin in ORIGINS:
        parts.append(_rect(x, y - 11, 13, 13, f"o{origin.number}", 3))
        parts.append(_text(x + 21, y, origin.name, "s b ink"))
        words = f"{size(results.install[origin.field])}, {results.share(origin.field):.0%}"
        if origin.field == "in_place":
            words = f"{size(results.killed.second[origin.field])} in the second run"
        parts.append(_text(x + 21, y + 18, words, "s soft"))
        x += 170
    return y + 18 + 48


def _bars(parts: list[str], results: Results, y: int) -> int:
    parts.append(_text(MARGIN, y, "What passes the network at 20 Mbit/s, and how long it takes", "h ink"))
    y += 20
    bars = results.bars()
    longest = max(bar.total for bar in bars)
    left, room, height = MARGIN + 204, INNER - 204 - 230, 22
    for bar in bars:
        parts.append(_text(left - 14, y + 15.5, bar.name, f"s {'b ink' if bar.own else 'soft'}", "end"))
        x = float(left)
        for number, part in enumerate(bar.parts):
            width = max(room * part / longest, 2.0 if part else 0.0)
            ink = ("own", "own2")[number] if bar.own else "other"
            if width:
                parts.append(_rect(x, y, width, height, ink, 3))
            x += width + (2 if number + 1 < len(bar.parts) else 0)
        words = size(bar.total)
        if len(bar.parts) > 1:
            words = " + ".join(size(part) for part in bar.parts)
        elif bar.seconds:
            words += f" · {duration(bar.seconds)}" + ("" if bar.measured else ", computed")
        parts.append(_text(x + 10, y + 15.5, words, f"s {'ink' if bar.own else 'soft'}"))
        y += height + 9
    for words in results.forecast_words():
        parts.append(_text(MARGIN, y + 22, words, "s soft"))
        y += 20
    return y + 2 + 32


def _foot(parts: list[str], results: Results, y: int) -> int:
    parts.append(_rect(MARGIN, y, INNER, 1, "line"))
    words = f"regraft, {results.kernels} kernels; {results.chunks} chunks, packed in {duration(results.pack_seconds)}."
    parts.append(_text(MARGIN, y + 26, words, "x soft"))
    parts.append(_text(MARGIN + INNER, y + 26, "made by `make demo`", "x soft", "end"))
    return y + 46
