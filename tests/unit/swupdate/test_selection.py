# SPDX-License-Identifier: Apache-2.0
"""Which part of an sw-description concerns a device, and where links lead."""

from __future__ import annotations

import pytest

from regraft.errors import FormatError, LimitError
from regraft.swupdate.description import parse
from regraft.swupdate.selection import select, selections

HEAD = 'version = "1.0"; hardware-compatibility = ["1.0"];'


def to(device: str) -> str:
    return f'{{ filename = "a"; type = "raw"; device = "{device}"; }}'


def devices(text: str, board: str = "", set_mode: tuple[str, str] | None = None) -> list[str]:
    return [entry.device for entry in select(parse(text.encode()), board=board, set_mode=set_mode).images]


ALL_PLACES = (
    f"software = {{ {HEAD} images: ( {to('plain')} ); "
    f"b = {{ images: ( {to('board')} ); stable = {{ main = {{ images: ( {to('board-set')} ); }}; }}; }}; "
    f"stable = {{ main = {{ images: ( {to('set')} ); }}; }}; }};"
)


@pytest.mark.parametrize(
    ("board", "set_mode", "device"),
    [
        ("", None, "plain"),
        ("b", None, "board"),
        ("c", None, "plain"),
        ("b", ("stable", "main"), "board-set"),
        ("c", ("stable", "main"), "set"),
        ("b", ("stable", "other"), "board"),
        ("c", ("stable", "other"), "plain"),
        ("b", ("stable", ""), "board"),
    ],
)
def test_the_first_place_that_has_the_section_counts(board: str, set_mode: tuple[str, str] | None, device: str) -> None:
    assert devices(ALL_PLACES, board, set_mode) == [device]


def test_each_key_is_searched_for_itself() -> None:
    text = f'software = {{ {HEAD} images: ( {to("x")} ); b = {{ version = "2.0"; }}; }};'
    found = select(parse(text.encode()), board="b")
    assert (found.version, [entry.device for entry in found.images]) == ("2.0", ["x"])


def test_selections_lists_every_place_with_sections() -> None:
    assert selections(parse(ALL_PLACES.encode())) == [
        ("", None), ("b", None), ("b", ("stable", "main")), ("", ("stable", "main")),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "ref",
    ["#./common", "#software/common", "#/software/common", "#./x/../common", "#././common", "#../software/common"],
)
def test_a_link_in_a_list_stands_for_the_linked_entries(ref: str) -> None:
    text = f'software = {{ {HEAD} common: ( {to("c1")}, {to("c2")} ); images: ( {{ ref = "{ref}"; }}, {to("x")} ); }};'
    assert devices(text) == ["c1", "c2", "x"]


def test_a_link_may_lead_to_a_list_with_links() -> None:
    text = (
        f'software = {{ {HEAD} d: ( {to("d")} ); c: ( {to("c")}, {{ ref = "#./d"; }} ); '
        f'images: ( {{ ref = "#./c"; }}, {{ ref = "#./d"; }} ); }};'
    )
    assert devices(text) == ["c", "d", "d"]


def test_a_group_may_be_a_link_to_another_mode() -> None:
    text = f'software = {{ {HEAD} stable = {{ a = {{ images: ( {to("a")} ); }}; b = {{ ref = "#./a"; }}; }}; }};'
    assert devices(text, set_mode=("stable", "b")) == ["a"]


def test_a_group_may_be_a_link_to_another_set() -> None:
    text = (
        f"software = {{ {HEAD} alt = {{ z = {{ images: ( {to('z')} ); }}; }}; "
        'stable = { b = { ref = "#../alt/z"; }; }; };'
    )
    assert devices(text, set_mode=("stable", "b")) == ["z"]


def test_a_section_and_a_value_may_be_links() -> None:
    text = (
        f'software = {{ ver = "1.5"; version = {{ ref = "#./ver"; }}; hardware-compatibility = ["1.0"]; '
        f'common: ( {to("c")} ); images: {{ ref = "#./common"; }}; }};'
    )
    found = select(parse(text.encode()))
    assert (found.version, [entry.device for entry in found.images]) == ("1.5", ["c"])


@pytest.mark.parametrize(
    "body",
    [
        'images: ( { ref = "#./images"; } );',
        'a: ( { ref = "#./b"; } ); b: ( { ref = "#./a"; } ); images: ( { ref = "#./a"; } );',
        'images: { ref = "#./a"; }; a: { ref = "#./images"; };',
        'images: ( { ref = "#./nothing"; } );',
        'images: { ref = "#./nothing"; };',
        'images: ( { ref = "./common"; } ); common: ();',
        'images: ( { ref = "#"; } );',
        "images: ( { ref = 5; } );",
        'images: ( { ref = "#../../../x"; } );',
        'images: ( { ref = "#./common"; } ); common: { filename = "a"; };',
        'images: ( { ref = "#./common"; } ); common = 5;',
    ],
)
def test_links_in_a_circle_or_to_nothing_are_refused(body: str) -> None:
    with pytest.raises(FormatError):
        devices(f"software = {{ {HEAD} {body} }};")


def test_links_that_multiply_are_stopped() -> None:
    levels = "".join(f'l{n}: ( {{ ref = "#./l{n + 1}"; }}, {{ ref = "#./l{n + 1}"; }} ); ' for n in range(25))
    with pytest.raises(LimitError):
        devices(f'software = {{ {HEAD} {levels} l25: (); images: ( {{ ref = "#./l0"; }} ); }};')


def test_a_long_list_linked_often_is_stopped() -> None:
    many = ", ".join(['{ name = "n"; }'] * 500)
    links = ", ".join(['{ ref = "#./many"; }'] * 500)
    with pytest.raises(LimitError):
        devices(f"software = {{ {HEAD} many: ( {many} ); bootenv: ( {links} ); }};")
