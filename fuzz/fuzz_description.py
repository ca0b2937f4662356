# SPDX-License-Identifier: Apache-2.0
"""Any bytes as sw-description: parsed, every selection made, hardware checked, linted."""

from __future__ import annotations

from regraft.build.findings import BundleFacts, MemberFacts
from regraft.build.lint import lint
from regraft.device.hardware import Hardware, check_hardware
from regraft.device.versions import compare, skip_reason
from regraft.errors import RegraftError
from regraft.swupdate.description import installation_order, parse
from regraft.swupdate.selection import select, selections


def target(data: bytes) -> None:
    lint(BundleFacts((MemberFacts("sw-description", len(data), b"", content=data),)))
    try:
        tree = parse(data)
        for board, set_mode in selections(tree)[:20]:
            found = select(tree, board=board, set_mode=set_mode)
            installation_order(found)
            for entry in found.entries:
                rule = {"different": entry.install_if_different, "higher": entry.install_if_higher}
                skip_reason(entry.name, entry.version, installed=(("a", "1.0"),), **rule)
            compare(found.version, "1.0")
            check_hardware(found.hardware, Hardware("b", "1.0"))
    except RegraftError:
        return


def seeds() -> list[bytes]:
    entry = b'{ filename = "a"; type = "raw"; device = "/dev/a"; sha256 = "%s"; offset = "4K"; }' % (b"0f" * 32)
    delta = (
        b'{ filename = "h"; type = "delta"; device = "/dev/b"; properties: { url = "http://h/x"; source = "/dev/a"; '
        b'chain = "raw"; max-ranges = "150"; list = ("a", "b"); }; name = "a"; version = "1.0"; '
        b"install-if-different = true; compressed = true; encrypted = false; }"
    )
    head = b'version = "1.0.0-rc1"; hardware-compatibility = ["1.0", "#RE:^(1|2)\\\\.[0-9]{1,2}$"];'
    return [
        b"software = { %s images: ( %s, %s ); };" % (head, entry, delta),
        b'software = { %s common: ( %s ); b = { s = { m = { images: ( { ref = "#../../../common"; } ); }; '
        b'n = { ref = "#./m"; }; }; }; };' % (head, entry),
        b'software = { %s scripts: ( { filename = "s"; } ); partitions: ( { name = "n"; device = "d"; } ); '
        b'bootenv: ( { name = "a"; value = "1"; }, { filename = "b"; type = "uboot"; } ); };' % head,
        (
            b'{"software": {"version": "1.0", "hardware-compatibility": ["1.0"], "images": [{"filename": "a", '
            b'"type": "raw", "device": "d", "size": 5, "properties": {"a": ["b"]}}], "reboot": false}}'
        ),
    ]
