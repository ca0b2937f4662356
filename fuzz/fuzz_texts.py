# SPDX-License-Identifier: Apache-2.0
"""Any bytes as the small texts that a device or a bundle brings: key files, versions, hardware, superblocks."""

from __future__ import annotations

from regraft.crypto.aes import load_key_file
from regraft.crypto.trust import Trust
from regraft.device.hardware import is_compatible, parse_option, parse_revision_file
from regraft.device.versions import compare, parse_versions_file
from regraft.errors import RegraftError
from regraft.formats import filesystem_size
from regraft.limits import Limits

_SMALL = Limits(settings=256)


def target(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    first, _, second = text.partition("\n")
    for parse in (
        lambda: load_key_file(data),
        lambda: Trust.load(data),
        lambda: parse_option(first),
        lambda: parse_revision_file(text),
        lambda: parse_versions_file(text),
        lambda: compare(first, second) + compare(second, first),
        lambda: is_compatible([f"#RE:{first}"], second, limits=_SMALL),
    ):
        try:
            parse()
        except RegraftError:
            continue
    size = filesystem_size.detect(data)
    if size is not None and size < 0:
        raise AssertionError("a file system of less than nothing")


def seeds() -> list[bytes]:
    ext4 = bytearray(4096)
    ext4[1024 + 4 : 1024 + 8] = (81920).to_bytes(4, "little")
    ext4[1024 + 24] = 2
    ext4[1024 + 56 : 1024 + 58] = b"\x53\xef"
    erofs = bytearray(4096)
    erofs[1024:1028] = (0xE0F5E1E2).to_bytes(4, "little")
    erofs[1024 + 12] = 12
    return [
        b"",
        b"00" * 32 + b" " + b"11" * 16,
        b"gateway 1.2\n",
        b"board:1.0",
        b"bootloader 2022.04\nrootfs 1.2.3-rc.1\n",
        b"1.2.3\n1.2.10",
        b"^1\\.[0-9]{1,3}(a|b)*$\n1.25ab",
        b"hsqs" + bytes(36) + (70_000).to_bytes(8, "little") + bytes(4048),
        bytes(ext4),
        bytes(erofs),
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n",
    ]
