# SPDX-License-Identifier: Apache-2.0
"""The typed attributes of one group of an sw-description.

Follows the table in section "Attribute reference" of SWUpdate's chapter "SWUpdate: syntax and tags with the default
parser". An attribute of the wrong type is refused, where SWUpdate takes it for absent without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from regraft.errors import FormatError, LimitError
from regraft.formats.libconfig import Value
from regraft.limits import Limits
from regraft.swupdate.description import Compression, Entry, Kind

CIPHERS: Final = frozenset(["aes-cbc", *(f"aes-{mode}-{bits}" for mode in ("cbc", "ctr") for bits in (128, 192, 256))])
_COMPRESSIONS: Final[dict[str, Compression]] = {"zlib": "zlib", "xz": "xz", "zstd": "zstd", "lz4": "lz4"}
_OFFSET = re.compile(r"(0[xX][0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,18})(?:([kKMG])(?:i?B)?)?")
_FACTORS = {None: 1, "k": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

KNOWN: Final = frozenset(
    [
        "filename",
        "type",
        "device",
        "volume",
        "mtdname",
        "path",
        "filesystem",
        "offset",
        "size",
        "compressed",
        "installed-directly",
        "preserve-attributes",
        "sha256",
        "encrypted",
        "ivt",
        "aes-key",
        "name",
        "version",
        "install-if-different",
        "install-if-higher",
        "data",
        "hook",
        "preinstall",
        "postinstall",
        "properties",
        "ref",
    ]
)


class Attributes:
    """A group and the place it was found at; every method raises FormatError for a value of another type."""

    __slots__ = ("_group", "_where")

    def __init__(self, group: Mapping[str, Value], where: str) -> None:
        self._group, self._where = group, where

    def text(self, name: str) -> str:
        """A string without control characters other than line ends and tabs; empty if absent."""
        value = self._group.get(name, "")
        if not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        return value

    def required(self, name: str) -> str:
        value = self.text(name)
        if not value or _CONTROL.search(value):
            raise FormatError(f"{self._where} needs a '{name}'", cure=f'add {name} = "...";')
        return value

    def texts(self, name: str) -> tuple[str, ...] | None:
        """A list of strings; None if absent."""
        value = self._group.get(name)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)):
            raise self._wrong(name, "a list of strings", value)
        return self._strings(name, value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        value = self._group.get(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def switch(self, name: str, *, default: bool) -> bool:
        """A boolean, or "enabled" or "disabled"."""
        value = self._group.get(name, default)
        if value in ("enabled", "disabled"):
            return value == "enabled"
        return self.flag(name, default=default)

    def size(self, name: str) -> int | None:
        """A number of bytes; None if absent."""
        value = self._group.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._wrong(name, "a number of bytes", value)
        return value

    def offset(self, name: str) -> int:
        """A number of bytes, or a string with a number and perhaps K, M or G (powers of 1024); 0 if absent."""
        value = self._group.get(name)
        if not isinstance(value, str):
            return self.size(name) or 0
        found = _OFFSET.fullmatch(value)
        number = int(found[1], 0) * _FACTORS[found[2]] if found else -1
        if not 0 <= number < 1 << 63:
            raise self._wrong(name, 'a number of bytes such as 4096, "0x1000", "4K", "16M" or "1G"', value)
        return number

    def compression(self) -> Compression | None:
        value = self._group.get("compressed", False)
        if isinstance(value, bool):
            return "zlib" if value else None
        if not isinstance(value, str) or value not in _COMPRESSIONS:
            raise self._wrong("compressed", "zlib, xz, zstd or lz4", value)
        return _COMPRESSIONS[value]

    def encryption(self) -> tuple[bool, str]:
        """Whether the artifact is encrypted, and the cipher if one is named."""
        value = self._group.get("encrypted", False)
        if isinstance(value, bool):
            return value, ""
        if not isinstance(value, str) or value not in CIPHERS:
            raise self._wrong("encrypted", f"true, false or one of {', '.join(sorted(CIPHERS))}", value)
        return True, value

    def binary(self, name: str, *sizes: int) -> bytes | None:
        """Bytes written in hexadecimal, as many as one of `sizes`; None if absent or empty."""
        value = self.text(name)
        if not value:
            return None
        if len(value) not in [2 * size for size in sizes] or not re.fullmatch("[0-9a-fA-F]+", value):
            raise self._wrong(name, " or ".join(f"{2 * size}" for size in sizes) + " hexadecimal digits", value)
        return bytes.fromhex(value)

    def properties(self) -> Mapping[str, tuple[str, ...]]:
        value = self._group.get("properties", {})
        if not isinstance(value, dict):
            raise self._wrong("properties", "a group", value)
        return MappingProxyType({name: self._strings(f"properties.{name}", item) for name, item in value.items()})

    def unknown(self) -> Mapping[str, Value]:
        return MappingProxyType({name: value for name, value in self._group.items() if name not in KNOWN})

    def _strings(self, name: str, value: Value) -> tuple[str, ...]:
        strings: list[str] = []
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if not isinstance(item, str):
                raise self._wrong(name, "a string or a list of strings", item)
            strings.append(item)
        return tuple(strings)

    def _wrong(self, name: str, wanted: str, value: Value) -> FormatError:
        return FormatError(f"{self._where}: '{name}' must be {wanted}, not {value!r:.60}", cure=f"mend '{name}'")


def read_entry(kind: Kind, group: Mapping[str, Value], where: str, limits: Limits) -> Entry:
    """One element of a section, with the defaults of its kind."""
    given = Attributes(group, where)
    encrypted, cipher = given.encryption()
    filename = given.text("filename")
    if filename or kind in ("images", "files", "bootenv"):
        check_filename(filename, where, limits)
    device, volume, name = given.text("device"), given.text("volume"), given.text("name")
    handler = given.text("type") or _default_type(kind, volume, device)
    if kind == "partitions":
        volume = name
        if not device or (handler == "ubipartition" and not name):
            raise FormatError(f"{where} is incomplete", cure="a partition needs a device, one of UBI also a name")
    if not handler:
        raise FormatError(f"{where} names no handler", cure='add type = "..."; or a device or volume')
    return Entry(
        kind=kind,
        filename=filename,
        type=handler,
        device=device,
        volume=volume,
        mtdname=given.text("mtdname"),
        path=given.text("path"),
        filesystem=given.text("filesystem"),
        offset=given.offset("offset"),
        size=given.size("size"),
        compressed=given.compression(),
        installed_directly=given.flag("installed-directly"),
        preserve_attributes=given.flag("preserve-attributes"),
        sha256=given.binary("sha256", 32),
        encrypted=encrypted,
        cipher=cipher,
        ivt=given.binary("ivt", 16),
        aes_key=given.binary("aes-key", 16, 24, 32),
        name=name,
        version=given.text("version"),
        install_if_different=given.flag("install-if-different"),
        install_if_higher=given.flag("install-if-higher"),
        data=given.text("data"),
        hook=given.text("hook"),
        preinstall=given.text("preinstall"),
        postinstall=given.text("postinstall"),
        properties=given.properties(),
        extra=given.unknown(),
        where=where,
    )


def _default_type(kind: Kind, volume: str, device: str) -> str:
    if kind == "images":
        return "ubivol" if volume else "raw" if device else ""
    return {"files": "rawfile", "scripts": "lua", "partitions": "ubipartition"}.get(kind, "")


def read_variable(group: Mapping[str, Value], where: str) -> tuple[str, str]:
    """The name and value of a variable of the boot environment; a missing or empty value removes it."""
    given = Attributes(group, where)
    name, value = given.required("name"), given.text("value")
    if "=" in name or _CONTROL.search(value):
        raise FormatError(f"{where}: no boot environment can hold {name!r:.60}", cure="mend the name or the value")
    return name, value


def check_filename(name: str, where: str, limits: Limits) -> None:
    """Refuse an artifact's name that is empty, too long, absolute, climbs with `..` or has control characters."""
    if len(name.encode()) > limits.name_length:
        raise LimitError(f"{where}: a filename of {len(name)} characters; `name_length` allows {limits.name_length}")
    if not name or name.startswith("/") or ".." in name.split("/") or _CONTROL.search(name):
        raise FormatError(f"{where}: {name!r} cannot be the name of an artifact", cure="use a plain file name")
