# SPDX-License-Identifier: Apache-2.0
"""Descriptions as swupdate 2022.12 takes them: accepted and refused alike, the same entries, or a reason why not."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import pytest
from stock_swupdate import Answer, Question, Stock

from regraft.build.description import Artifact, DeltaRequest, describe_delta
from regraft.build.findings import BundleFacts, MemberFacts
from regraft.build.lint import lint
from regraft.device.hardware import check_hardware, parse_option
from regraft.errors import RegraftError
from regraft.formats import libconfig
from regraft.swupdate.description import Description, parse
from regraft.swupdate.selection import select

BODY = b"hello"
SHA = hashlib.sha256(BODY).hexdigest()
HEAD = 'version = "1.0"; hardware-compatibility = ["1.0"];'


def to(device: str) -> str:
    return f'{{ filename = "a"; type = "raw"; sha256 = "{SHA}"; device = "/dev/{device}"; }}'


def image(attributes: str = "", top: str = HEAD) -> str:
    entry = f'filename = "a"; type = "raw"; device = "/dev/x"; sha256 = "{SHA}"; {attributes}'
    return f"software = {{ {top} images: ( {{ {entry} }} ); }};"


def body(text: str) -> str:
    return f"software = {{ {HEAD} {text} }};"


@dataclass(frozen=True)
class Case:
    text: str
    set_mode: tuple[str, str] | None = None
    hardware: str = "b:1.0"
    why: str = ""  #: why regraft refuses what swupdate takes

    def question(self) -> Question:
        options = ("-e", ",".join(self.set_mode)) if self.set_mode else ()
        return Question(self.text.encode(), (("a", BODY),), self.hardware, options)


PLACES = body(
    f"images: ( {to('plain')} ); b = {{ images: ( {to('board')} ); "
    f"stable = {{ main = {{ images: ( {to('bsm')} ); }}; }}; }}; stable = {{ main = {{ images: ( {to('sm')} ); }}; }};"
)
SILENT = "swupdate takes a value of another type for absent"
LINKS = "swupdate passes over a link that leads to nothing"
MAIN = ("stable", "main")

CASES = {
    "plain": Case(image()),
    # selection
    "board": Case(PLACES),
    "board, set and mode": Case(PLACES, MAIN),
    "set and mode": Case(PLACES, MAIN, "c:1.0"),
    "neither": Case(PLACES, None, "c:1.0"),
    "unknown mode": Case(PLACES, ("stable", "other")),
    # links
    "link to a list": Case(body(f'c: ( {to("c1")}, {to("c2")} ); images: ( {{ ref = "#./c"; }}, {to("x")} );')),
    "link by its whole path": Case(body(f'c: ( {to("c")} ); images: ( {{ ref = "#/software/c"; }} );')),
    "link to a link": Case(body(f'd: ( {to("d")} ); c: ( {{ ref = "#./d"; }} ); images: ( {{ ref = "#./c"; }} );')),
    "group as a link": Case(
        body(f's = {{ a = {{ images: ( {to("a")} ); }}; b = {{ ref = "#./a"; }}; }};'), ("s", "b")
    ),
    "group as a link upwards": Case(
        body(f't = {{ z = {{ images: ( {to("z")} ); }}; }}; s = {{ b = {{ ref = "#../t/z"; }}; }};'), ("s", "b")
    ),
    "section as a link": Case(
        body(f'c: ( {to("c")} ); s = {{ b = {{ images: {{ ref = "#../../c"; }}; }}; }};'), ("s", "b")
    ),
    "value as a link": Case(
        'software = { v = "1.5"; version = { ref = "#./v"; }; hardware-compatibility = ["1.0"]; '
        f"images: ( {to('x')} ); }};"
    ),
    "link to nothing": Case(body(f'images: ( {{ ref = "#./no"; }}, {to("x")} );'), why=LINKS),
    "link to a group": Case(body(f'c: {to("c")}; images: ( {{ ref = "#./c"; }}, {to("x")} );'), why=LINKS),
    "link without its mark": Case(body(f'c: ( {to("c")} ); images: ( {{ ref = "./c"; }}, {to("x")} );')),
    "link above the root": Case(body(f'images: ( {{ ref = "#../../../x"; }}, {to("x")} );')),
    # the language
    "escapes": Case(image(top=HEAD + 'description = "a\\x41\\\\" "b";')),
    "set twice": Case(image(top=HEAD + "foo = 1; foo = 2;")),
    "two terminators": Case(image(top=HEAD + "foo = 1;;")),
    "include": Case('@include "x"\n' + image()),
    "byte order mark": Case("\ufeff" + image()),
    "mixed array": Case(image(top=HEAD + "foo = [1, true];")),
    "leading zeros": Case(image(top=HEAD + "foo = 010;"), why="libconfig reads octal here, decimal elsewhere"),
    # top level
    "no version": Case(image(top='hardware-compatibility = ["1.0"];')),
    "version is a number": Case(image(top='version = 1; hardware-compatibility = ["1.0"];'), why=SILENT),
    "nothing to install": Case(body("")),
    "empty list": Case(body("images: ();")),
    "images is a group": Case(body(f"images: {to('x')};")),
    "only variables": Case(body('bootenv: ( { name = "a"; value = "1"; } );')),
    "only partitions": Case(body('partitions: ( { type = "diskpart"; device = "/dev/x"; } );')),
    # hardware
    "no hardware": Case(image(top='version = "1.0";')),
    "hardware list": Case(image(top='version = "1.0"; hardware-compatibility: ("2", "1.0");')),
    "hardware is text": Case(image(top='version = "1.0"; hardware-compatibility = "1.0";')),
    "hardware is empty": Case(image(top='version = "1.0"; hardware-compatibility = [];')),
    "other hardware": Case(image(), hardware="b:1.1"),
    "hardware expression": Case(image(top='version = "1.0"; hardware-compatibility = ["#RE:^(2|1)\\\\.[0-9]+$"];')),
    "part of it": Case(image(top='version = "1.0"; hardware-compatibility = ["#RE:0"];')),
    "another expression": Case(image(top='version = "1.0"; hardware-compatibility = ["#RE:^[2-9]{1,2}"];')),
    "malformed expression": Case(image(top='version = "1.0"; hardware-compatibility = ["#RE:("];')),
    # entries
    "size": Case(image("size = 5;")),
    "size as text": Case(image('size = "5";'), why=SILENT),
    "offset": Case(image("offset = 4096;")),
    "offset with a factor": Case(image('offset = "4K";')),
    "hexadecimal offset": Case(image('offset = "0x10M";')),
    "offset with a tail": Case(image('offset = "4Kx";'), why="swupdate ignores what follows the number"),
    "negative offset": Case(image('offset = "-1";'), why="swupdate makes 2^64 - 1 of it"),
    "offset is no number": Case(image('offset = "x";')),
    "unknown compression": Case(image('compressed = "brotli";')),
    "compression is a number": Case(image("compressed = 0;"), why=SILENT),
    "installed-directly as text": Case(image('installed-directly = "true";'), why=SILENT),
    "encrypted with a cipher": Case(image('encrypted = "aes-cbc";')),
    "digest in capitals": Case(image().replace(SHA, SHA.upper())),
    "digest too short": Case(image().replace(SHA, SHA[:-1])),
    "digest too long": Case(image().replace(SHA, SHA + "00")),
    "digest of other digits": Case(image().replace(SHA, "z" * 64)),
    "no handler": Case(image().replace('type = "raw"; device = "/dev/x";', "")),
    "property is a number": Case(image("properties: { a = 1; };"), why=SILENT),
    "properties": Case(image('properties: { a = "1"; b = ("2", "3"); image-sha256 = "00"; };')),
    "variables": Case(
        body(f'images: ( {to("x")} ); bootenv: ( {{ name = "a"; value = "1"; }}, {{ name = "b"; }}, '
             '{ name = "a"; value = "2"; } );')
    ),
    "both names for variables": Case(
        body('uboot: ( { name = "a"; value = "1"; } ); bootenv: ( { name = "b"; value = "2"; } );')
    ),
    "incomplete partition": Case(
        body(f'partitions: ( {{ type = "diskpart"; }} ); images: ( {to("x")} );'), why="swupdate reports it and goes on"
    ),
    # JSON
    "json": Case(
        '{"software": {"version": "1.0", "hardware-compatibility": ["1.0"], "c": [{"filename": "a", "type": "raw", '
        f'"device": "/dev/c", "sha256": "{SHA}", "size": 5, "properties": {{"p": ["q", "r"]}}}}], '
        '"images": [{"ref": "#./c"}]}}'
    ),
    "json with a mark": Case('\ufeff{"software": {}}'),
    "json set twice": Case(
        '{"software": {"version": "0", "version": "1", "hardware-compatibility": ["1.0"], "images": '
        f'[{{"filename": "a", "type": "raw", "device": "/dev/x", "sha256": "{SHA}"}}]}}}}',
        why="swupdate takes the last of two values with one name",
    ),
}  # fmt: skip


def ours(case: Case) -> Description | None:
    """What regraft would install, None if it refuses."""
    hardware = parse_option(case.hardware)
    try:
        found = select(parse(case.text.encode()), board=hardware.board, set_mode=case.set_mode)
        check_hardware(found.hardware, hardware)
    except RegraftError:
        return None
    return found if all(entry.sha256 for entry in found.artifacts()) else None


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return Stock(tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="module")
def answers(stock: Stock) -> dict[str, Answer]:
    return dict(zip(CASES, stock.ask_all([case.question() for case in CASES.values()]), strict=True))


def test_both_accept_and_refuse_the_same_but_for_explained_differences(answers: dict[str, Answer]) -> None:
    theirs = {name: answers[name].accepted for name in CASES}
    expected = {name: theirs[name] and not case.why for name, case in CASES.items()}
    assert {name: ours(case) is not None for name, case in CASES.items()} == expected
    assert [name for name, case in CASES.items() if case.why and not theirs[name]] == []


def test_both_select_the_same_images_in_the_same_order(answers: dict[str, Answer]) -> None:
    differing = {}
    for name, case in CASES.items():
        found = ours(case)
        if found is None:
            continue
        said = [re.search(r" : (\S+) for handler", line) for line in answers[name].lines("_parse_images")]
        theirs = [line[1] for line in reversed(said) if line]  # it reads the list from its end
        if theirs != [entry.device for entry in found.images]:
            differing[name] = theirs
    assert differing == {}


def test_both_set_the_same_variables(answers: dict[str, Answer]) -> None:
    for name in ("only variables", "variables", "both names for variables"):
        said = [line.partition(": ")[2].partition(" =") for line in answers[name].lines("_parse_bootloader")]
        theirs = {variable: value.strip() for variable, _, value in said}
        found = ours(CASES[name])
        assert found is not None
        assert dict(found.bootenv) == theirs


def test_swupdate_takes_what_regraft_describes_with_its_own_properties(stock: Stock) -> None:
    artifact = Artifact("a", len(BODY), hashlib.sha256(BODY).digest())
    request = DeltaRequest(
        artifact, "http://host/x.zck", "/dev/a", "1.0", device="/dev/b", hardware=("1.0", "#RE:^2\\."), board="b",
        set_mode=MAIN, image_sha256=bytes(32), image_size=5, properties=(("k", 'a "b" \\ ä'), ("l", "1"), ("l", "2")),
    )  # fmt: skip
    answer = stock.ask(Question(describe_delta(request), (("a", BODY),), options=("-e", "stable,main")))
    assert answer.accepted
    assert [line.strip().removeprefix("Property ") for line in answer.lines("add_properties_cb")] == [
        "url: http://host/x.zck", "source: /dev/a", "chain: raw", "max-ranges: 150", "zckloglevel: error",
        f"image-sha256: {'00' * 32}", "image-size: 5", 'k: a "b" \\ ä', "l: 1", "l: 2",
    ]  # fmt: skip


def test_swupdate_reads_what_regraft_dumps(stock: Stock) -> None:
    text = 'quote " backslash \\ tab \t line \n return \r bell \a del \x7f é☃ end'
    top = {"version": "1.0", "description": text, "hardware-compatibility": ("1.0",), "big": 1 << 40, "real": 1e-7}
    entry = {"filename": "a", "type": "raw", "device": "/dev/x", "sha256": SHA, "offset": 1 << 33, "size": 5}
    made = libconfig.dump({"software": {**top, "empty": [], "none": (), "images": [entry]}})
    answer = stock.ask(Question(made.encode(), (("a", BODY),)))
    assert answer.accepted
    assert "é☃ end" in answer.log
    assert any("8589934592 bytes" in line for line in answer.lines("__swupdate_copy"))


#: descriptions in which lint finds an error for 2022.12, with the rule; swupdate must refuse each
REFUSED = {
    "artifact.no-sha256": image().replace(f'sha256 = "{SHA}";', ""),
    "artifact.missing": image().replace('"a"', '"b"'),
    "artifact.sha256": image().replace(SHA, "0" * 64),
    "entry.compressed": image('compressed = "xz";'),
    "entry.section": image().replace('"raw"', '"shellscript"'),
    "entry.handler": image().replace('"raw"', '"copy"'),
    "description.libconfig": image(top=HEAD + "foo = (1, );"),
    "description.selection": body("images: ();"),
    "description.syntax": "software = {",
    "hardware.missing": image(top='version = "1.0";'),
    "hardware.pattern": image(top='version = "1.0"; hardware-compatibility = ["#RE:("];'),
}


@pytest.mark.slow
def test_swupdate_refuses_what_lint_says_it_refuses(stock: Stock) -> None:
    found = {}
    for rule, text in REFUSED.items():
        member = MemberFacts("sw-description", len(text), b"", content=text.encode())
        facts = BundleFacts(
            (member, MemberFacts("sw-description.sig", 1, b""), MemberFacts("a", 5, hashlib.sha256(BODY).digest()))
        )
        errors = [finding for finding in lint(facts) if finding.severity == "error"]
        found[rule] = any(finding.rule == rule and "2022.12" in finding.generations for finding in errors)
    questions = [Question(text.encode(), (("a", BODY),)) for text in REFUSED.values()]
    refused = [not answer.accepted for answer in stock.ask_all(questions)]
    assert found == dict.fromkeys(REFUSED, True)
    assert dict(zip(REFUSED, refused, strict=True)) == dict.fromkeys(REFUSED, True)


def test_swupdate_ignores_a_size_and_misreads_an_offset_in_json_as_lint_says(stock: Stock) -> None:
    json = (
        '{"software": {"version": "1.0", "hardware-compatibility": ["1.0"], "images": [{"filename": "a", '
        f'"type": "raw", "device": "/dev/x", "sha256": "{SHA}", "offset": "4K"}}]}}}}'
    )
    wrong_size, offset = stock.ask_all([
        Question(image("size = 6;").encode(), (("a", BODY),)),
        Question(json.encode(), (("a", BODY),)),
    ])  # fmt: skip
    assert wrong_size.accepted
    assert offset.accepted
    assert not any("defined: 4096 bytes" in line for line in offset.lines("__swupdate_copy"))
