# SPDX-License-Identifier: Apache-2.0
"""Making an sw-description: for a delta update, and from a template."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from regraft.build.description import Artifact, DeltaRequest, describe_delta, fill_template
from regraft.errors import DigestError, FormatError, LimitError, UnlistedError, UsageError
from regraft.swupdate.description import parse
from regraft.swupdate.selection import select

HEADER = Artifact("root.zck.header", 1234, hashlib.sha256(b"header").digest())
SCRIPT = Artifact("post.sh", 7, hashlib.sha256(b"script").digest())
REQUEST = DeltaRequest(
    header=HEADER, url="http://host/root.zck", source="/dev/a", device="/dev/b", version="2.0", hardware=("1.0",)
)


def test_a_delta_update_is_described_with_every_property_set() -> None:
    request = dataclasses.replace(
        REQUEST, image_sha256=b"\xab" * 32, image_size=4096, properties=(("k", "v"), ("l", "1"), ("l", "2"))
    )
    found = select(parse(describe_delta(request)))
    (entry,) = found.images
    assert (found.version, found.hardware) == ("2.0", ("1.0",))
    assert (entry.filename, entry.type, entry.device, entry.sha256) == (HEADER.name, "delta", "/dev/b", HEADER.sha256)
    assert not entry.installed_directly
    assert dict(entry.properties) == {
        "url": ("http://host/root.zck",),
        "source": ("/dev/a",),
        "chain": ("raw",),
        "max-ranges": ("150",),
        "zckloglevel": ("error",),
        "image-sha256": ("ab" * 32,),
        "image-size": ("4096",),
        "k": ("v",),
        "l": ("1", "2"),
    }


def test_a_chain_to_a_file_goes_into_files() -> None:
    request = dataclasses.replace(REQUEST, chain="rawfile", device="", path="/data/root.img")
    (entry,) = select(parse(describe_delta(request))).files
    assert (entry.path, entry.setting("chain")) == ("/data/root.img", "rawfile")


@pytest.mark.parametrize(
    ("board", "set_mode"), [("", None), ("gw", None), ("", ("stable", "copy-1")), ("gw", ("stable", "copy-1"))]
)
def test_board_and_set_say_where_the_entry_goes(board: str, set_mode: tuple[str, str] | None) -> None:
    tree = parse(describe_delta(dataclasses.replace(REQUEST, board=board, set_mode=set_mode)))
    assert len(select(tree, board=board, set_mode=set_mode).images) == 1
    if board or set_mode:
        with pytest.raises(FormatError, match="installs nothing"):
            select(tree)


def test_the_same_request_makes_the_same_bytes() -> None:
    assert describe_delta(REQUEST) == describe_delta(REQUEST)


@pytest.mark.parametrize(
    "change",
    [
        {"version": ""},
        {"hardware": ()},
        {"chain": "delta"},
        {"url": ""},
        {"source": ""},
        {"device": ""},
        {"chain": "rawfile", "device": ""},
        {"max_ranges": 0},
        {"board": "my board"},
        {"board": "version"},
        {"set_mode": ("images", "x")},
        {"properties": (("url", "x"),)},
    ],
)
def test_a_request_that_no_device_could_accept_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        describe_delta(dataclasses.replace(REQUEST, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["../x", "/x", "a\nb", "x" * 300])
def test_an_artifact_needs_a_name_that_devices_take(name: str) -> None:
    with pytest.raises((FormatError, LimitError)):
        describe_delta(dataclasses.replace(REQUEST, header=dataclasses.replace(HEADER, name=name)))


def test_quotes_and_backslashes_survive() -> None:
    request = dataclasses.replace(REQUEST, hardware=("#RE:^1\\.[0-9]$",), description='a "b" \\ c')
    found = select(parse(describe_delta(request)))
    assert (found.hardware, found.description) == (("#RE:^1\\.[0-9]$",), 'a "b" \\ c')


# templates


def template(attributes: str, more: str = "") -> bytes:
    return (
        f'# kept\nsoftware = {{ version = "1.0"; hardware-compatibility = ["1.0"]; '
        f'images: ( {{ filename = "{HEADER.name}"; type = "raw"; device = "/dev/b"; {attributes} }} ); {more} }};\n'
    ).encode()


def filled(text: bytes) -> tuple[bytes | None, int | None]:
    entry = select(parse(fill_template(text, [HEADER, SCRIPT]))).images[0]
    return entry.sha256, entry.size


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        'sha256 = "";',
        'sha256 = "@root.zck.header";',
        'sha256 = "$swupdate_get_sha256(root.zck.header)";',
        "sha256 = \"$swupdate_get_sha256( 'root.zck.header' )\";",
        f'sha256 = "{HEADER.sha256.hex().upper()}";',
    ],
)
def test_a_digest_is_filled_in_or_checked(attributes: str) -> None:
    assert filled(template(attributes)) == (HEADER.sha256, None)


@pytest.mark.parametrize(
    "attributes",
    ['size = "@root.zck.header";', "size = $swupdate_get_size(root.zck.header);", "size = 1234;", 'size = "1234";'],
)
def test_a_size_is_filled_in_or_checked(attributes: str) -> None:
    assert filled(template(attributes)) == (HEADER.sha256, 1234)


def test_comments_and_layout_survive_when_nothing_is_added() -> None:
    text = template('sha256 = "$swupdate_get_sha256(root.zck.header)";')
    assert fill_template(text, [HEADER]) == text.replace(
        b"$swupdate_get_sha256(root.zck.header)", HEADER.sha256.hex().encode()
    )


def test_variables_are_replaced() -> None:
    text = template("").replace(b'"1.0"; hard', b'"@@VERSION@@"; hard')
    assert select(parse(fill_template(text, [HEADER], variables={"VERSION": "3"}))).version == "3"
    with pytest.raises(UsageError, match="VERSION"):
        fill_template(text, [HEADER])


def test_all_entries_anywhere_get_their_digest() -> None:
    more = 'b = { scripts: ( { filename = "post.sh"; type = "shellscript"; } ); };'
    found = select(parse(fill_template(template("", more), [HEADER, SCRIPT])), board="b")
    assert [entry.sha256 for entry in found.artifacts()] == [HEADER.sha256, SCRIPT.sha256]


def test_a_json_template_stays_json() -> None:
    text = (
        b'{"software": {"version": "1.0", "hardware-compatibility": ["1.0"], '
        b'"images": [{"filename": "root.zck.header", "device": "/dev/b"}]}}'
    )
    made = fill_template(text, [HEADER])
    assert parse(made).syntax == "json"
    assert select(parse(made)).images[0].sha256 == HEADER.sha256


@pytest.mark.parametrize(
    "attributes",
    [f'sha256 = "{SCRIPT.sha256.hex()}";', 'sha256 = "@post.sh";', "size = 5;", 'size = "@post.sh";', "sha256 = 5;"],
)
def test_a_digest_or_size_of_something_else_is_an_error(attributes: str) -> None:
    with pytest.raises(DigestError):
        filled(template(attributes))


@pytest.mark.parametrize(
    "text",
    [template('sha256 = "$swupdate_get_sha256(nothing)";'), template("", 'scripts: ( { filename = "nothing"; } );')],
)
def test_an_artifact_that_is_not_there_is_an_error(text: bytes) -> None:
    with pytest.raises(UnlistedError, match="nothing"):
        filled(text)


@pytest.mark.parametrize("text", [b"\xff", b"software", template("ref = 5;"), template("type = 5;")])
def test_a_malformed_template_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError):
        filled(text)
