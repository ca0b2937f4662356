# SPDX-License-Identifier: Apache-2.0
"""Entries of an sw-description: attributes, their types, defaults and order."""

from __future__ import annotations

import hashlib

import pytest

from regraft.errors import FormatError, LimitError
from regraft.swupdate.description import Description, Entry, installation_order, parse
from regraft.swupdate.selection import select

SHA = hashlib.sha256(b"x").hexdigest()


def described(body: str) -> Description:
    return select(parse(f'software = {{ version = "1.0"; hardware-compatibility = ["1.0"]; {body} }}'.encode()))


def image(attributes: str) -> Entry:
    return described(f'images: ( {{ filename = "a"; device = "/dev/a"; {attributes} }} );').images[0]


def test_all_attributes_of_an_entry_are_read() -> None:
    entry = image(
        f'type = "flash"; volume = "v"; mtdname = "m"; path = "/p"; filesystem = "ext4"; offset = "4K"; size = 7; '
        f'compressed = "zstd"; preserve-attributes = true; sha256 = "{SHA}"; encrypted = "aes-ctr-128"; '
        f'ivt = "{"0f" * 16}"; aes-key = "{"1f" * 24}"; name = "n"; version = "2"; install-if-different = true; '
        'install-if-higher = true; data = "d"; hook = "h"; preinstall = "i"; postinstall = "j"; '
        'properties: { one = "1"; many = ("a", "b"); array = ["c"]; };'
    )
    assert entry == Entry(
        kind="images", filename="a", type="flash", device="/dev/a", volume="v", mtdname="m", path="/p",
        filesystem="ext4", offset=4096, size=7, compressed="zstd", preserve_attributes=True, sha256=bytes.fromhex(SHA),
        encrypted=True, cipher="aes-ctr-128", ivt=b"\x0f" * 16, aes_key=b"\x1f" * 24, name="n", version="2",
        install_if_different=True, install_if_higher=True, data="d", hook="h", preinstall="i", postinstall="j",
        properties={"one": ("1",), "many": ("a", "b"), "array": ("c",)}, where="software.images[0]",
    )  # fmt: skip
    assert entry.setting("many") == "a"
    assert entry.setting("none", "default") == "default"


@pytest.mark.parametrize(
    ("text", "offset"),
    [("0", 0), ('"0"', 0), ("4096", 4096), ("5L", 5), ('"0x10M"', 16 << 20), ('"4k"', 4096), ('"1G"', 1 << 30),
     ('"1GiB"', 1 << 30), ('"2MB"', 2 << 20), ('"512"', 512)],
)  # fmt: skip
def test_an_offset_is_a_number_or_text_with_a_factor(text: str, offset: int) -> None:
    assert image(f"offset = {text};").offset == offset


@pytest.mark.parametrize("text", ['""', '"x"', '"-1"', "-1", '"010"', '"4 K"', '"4Kx"', '"9999999999G"', "1.5", "true"])
def test_an_offset_that_could_be_misread_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="offset"):
        image(f"offset = {text};")


@pytest.mark.parametrize(
    ("text", "compressed"),
    [("false", None), ("true", "zlib"), ('"zlib"', "zlib"), ('"xz"', "xz"), ('"zstd"', "zstd"), ('"lz4"', "lz4")],
)
def test_compression_is_named_or_the_old_boolean(text: str, compressed: str | None) -> None:
    assert image(f"compressed = {text};").compressed == compressed


@pytest.mark.parametrize(
    ("section", "handler"),
    [
        ('images: ( { filename = "a"; volume = "v"; device = "d"; } );', "ubivol"),
        ('images: ( { filename = "a"; device = "d"; } );', "raw"),
        ('files: ( { filename = "a"; } );', "rawfile"),
        ('scripts: ( { filename = "a"; } );', "lua"),
        ('partitions: ( { name = "n"; device = "d"; } );', "ubipartition"),
    ],
)
def test_the_handler_defaults_by_section(section: str, handler: str) -> None:
    assert [entry.type for entry in described(section).entries] == [handler]


@pytest.mark.parametrize(
    "attributes",
    [
        "type = 5;", "size = -1;", 'size = "5";', 'compressed = "brotli";', 'compressed = 1;',
        'installed-directly = "true";', "install-if-higher = 1;", 'sha256 = "00";', f'sha256 = "{"g" * 64}";',
        'encrypted = "des";', 'ivt = "00";', 'aes-key = "00";', "properties = 5;", "properties: { a = 5; };",
        'properties: { a = ("x", 5); };', "name = 1.0;",
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused_not_ignored(attributes: str) -> None:
    with pytest.raises(FormatError, match=r"software\.images\[0\]"):
        image(attributes)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../b", "..", "a\\nb", "a\\x1b", "x" * 300])
def test_a_filename_that_could_become_a_path_elsewhere_is_refused(name: str) -> None:
    with pytest.raises((FormatError, LimitError)):
        described(f'images: ( {{ filename = "{name}"; device = "d"; }} );')


def test_an_unknown_attribute_is_kept_aside() -> None:
    assert dict(image("install-directly = true; foo: { a = 1; };").extra) == {"install-directly": True, "foo": {"a": 1}}


def test_entries_without_a_filename_are_passed_over_and_told() -> None:
    found = described('images: ( { device = "d"; }, { filename = "a"; device = "d"; } );')
    assert [entry.filename for entry in found.images] == ["a"]
    assert found.ignored == ("software.images[0]",)


@pytest.mark.parametrize(
    "section",
    [
        'images: ( { filename = "a"; } );',
        'images: ( { filename = 5; device = "d"; } );',
        'partitions: ( { name = "n"; } );',
        'partitions: ( { device = "d"; } );',
        'images: { filename = "a"; device = "d"; };',
        "images: ( 5 );",
        "images: ();",
        "",
        'bootenv: ( { value = "x"; } );',
        'bootenv: ( { name = "a=b"; value = "x"; } );',
        'bootenv: ( { name = "a"; value = "x\\ny"; } );',
        'vars: ( { value = "x"; } ); bootenv: ( { name = "a"; } );',
    ],
)
def test_what_cannot_be_installed_is_refused(section: str) -> None:
    with pytest.raises(FormatError):
        described(section)


def test_the_first_of_two_equal_variables_counts_as_in_swupdate() -> None:
    found = described('bootenv: ( { name = "a"; value = "1"; }, { name = "b"; }, { name = "a"; value = "2"; } );')
    assert found.bootenv == (("a", "1"), ("b", ""))


def test_bootenv_wins_over_its_older_name() -> None:
    assert described('uboot: ( { name = "a"; value = "1"; } );').bootenv == (("a", "1"),)
    both = described('uboot: ( { name = "a"; value = "1"; } ); bootenv: ( { name = "b"; value = "2"; } );')
    assert both.bootenv == (("b", "2"),)


def test_a_boot_script_is_an_entry_of_its_own_kind() -> None:
    found = described('bootenv: ( { filename = "s"; type = "bootloader"; }, { name = "a"; value = "1"; } );')
    assert [(entry.kind, entry.filename) for entry in found.bootscripts] == [("bootenv", "s")]
    assert found.bootenv == (("a", "1"),)


def test_top_level_attributes_have_their_defaults_and_types() -> None:
    plain = described('bootenv: ( { name = "a"; } );')
    assert (plain.reboot, plain.transaction_marker, plain.state_marker) == (True, True, True)
    told = described(
        'reboot = "disabled"; bootloader_transaction_marker = false; bootloader_state_marker = false; '
        'update-type = "application"; description = "d"; output = "/o"; namespace-for-vars = "n"; '
        'embedded-script = "s"; foo = 1; vars: ( { name = "v"; value = "1"; } ); bootenv: ( { name = "a"; } );'
    )
    assert (told.reboot, told.transaction_marker, told.state_marker) == (False, False, False)
    assert (told.update_type, told.description, told.output) == ("application", "d", "/o")
    assert (told.namespace_for_vars, told.embedded_script, told.vars) == ("n", "s", (("v", "1"),))
    assert dict(told.extra) == {"foo": 1}


@pytest.mark.parametrize(
    "body", ["version = 1;", 'version = "";', 'version = "1\\n2";', 'reboot = "yes"; version = "1";']
)
def test_malformed_top_level_attributes_are_refused(body: str) -> None:
    with pytest.raises(FormatError):
        select(parse(f'software = {{ {body} bootenv: ( {{ name = "a"; }} ); }};'.encode()))


def test_installation_order_is_scripts_partitions_images_files_scripts() -> None:
    found = described(
        'files: ( { filename = "f1"; }, { filename = "f2"; } ); images: ( { filename = "i"; device = "d"; } ); '
        'partitions: ( { type = "diskpart"; device = "p"; } ); bootenv: ( { filename = "b"; type = "uboot"; } ); '
        'scripts: ( { filename = "s"; type = "shellscript"; }, { filename = "pre"; type = "preinstall"; }, '
        '{ filename = "post"; type = "postinstall"; } );'
    )
    steps = [(step.phase, step.entry.filename or step.entry.type) for step in installation_order(found)]
    assert steps == [
        ("preinst", "s"),
        ("preinst", "pre"),
        ("install", "diskpart"),
        ("install", "i"),
        ("install", "f1"),
        ("install", "f2"),
        ("install", "b"),
        ("postinst", "s"),
        ("postinst", "post"),
    ]


def test_json_and_libconfig_read_the_same() -> None:
    libconfig = described('images: ( { filename = "a"; device = "d"; properties: { p = ("x", "y"); }; } );')
    json = select(
        parse(
            b'{"software": {"version": "1.0", "hardware-compatibility": ["1.0"], "images": '
            b'[{"filename": "a", "device": "d", "properties": {"p": ["x", "y"]}}]}}'
        )
    )
    assert json == libconfig


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"a = 1;", b"software = 1;", b'{"software": []}', b"\xef\xbb\xbf{}"]
)
def test_a_text_without_the_root_element_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError):
        parse(text)
