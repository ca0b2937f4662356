# SPDX-License-Identifier: Apache-2.0
"""An sw-description as one device sees it: what is installed where, from which artifact, under which conditions.

Follows SWUpdate's documentation, chapter "SWUpdate: syntax and tags with the default parser". `parse` turns the bytes
into a tree, `regraft.swupdate.selection.select` takes from it what concerns one board and software set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from regraft.errors import FormatError
from regraft.formats import libconfig, strict_json
from regraft.formats.libconfig import Value
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

Kind: TypeAlias = Literal["images", "files", "scripts", "partitions", "bootenv"]
Compression: TypeAlias = Literal["zlib", "xz", "zstd", "lz4"]
Phase: TypeAlias = Literal["preinst", "install", "postinst"]


def _no_properties() -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({})


def _nothing() -> Mapping[str, Value]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Tree:
    """The whole description: `software` is its root element, `syntax` the language it was written in."""

    software: dict[str, Value]
    syntax: Literal["libconfig", "json"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One element of `images`, `files`, `scripts`, `partitions`, or a boot script of `bootenv`.

    Offsets and sizes are in bytes. Empty strings mean "not given", as in SWUpdate. `where` says where it was found.
    """

    kind: Kind
    filename: str = ""  #: the artifact's name in the bundle
    type: str = ""  #: the handler
    device: str = ""
    volume: str = ""
    mtdname: str = ""
    path: str = ""
    filesystem: str = ""
    offset: int = 0
    size: int | None = None
    compressed: Compression | None = None
    installed_directly: bool = False
    preserve_attributes: bool = False
    sha256: bytes | None = None  #: over the artifact as it lies in the bundle
    encrypted: bool = False
    cipher: str = ""  #: e.g. "aes-cbc-256"; empty: AES-CBC with the key's length
    ivt: bytes | None = None
    aes_key: bytes | None = None
    name: str = ""
    version: str = ""
    install_if_different: bool = False
    install_if_higher: bool = False
    data: str = ""
    hook: str = ""  #: Lua function of the embedded script, run at parse time
    preinstall: str = ""
    postinstall: str = ""
    properties: Mapping[str, tuple[str, ...]] = field(default_factory=_no_properties)
    extra: Mapping[str, Value] = field(default_factory=_nothing)  #: attributes that SWUpdate does not know
    where: str = ""

    def setting(self, name: str, default: str = "") -> str:
        """The first value of the property `name`, as SWUpdate's handlers read it."""
        values = self.properties.get(name)
        return values[0] if values else default


@dataclass(frozen=True, slots=True)
class Description:
    """What one selection installs. Every tuple is in the order of installation."""

    version: str
    description: str = ""
    hardware: tuple[str, ...] | None = None  #: accepted revisions, exact or `#RE:`; None if the attribute is missing
    update_type: str = ""
    reboot: bool = True
    transaction_marker: bool = True
    state_marker: bool = True
    output: str = ""
    namespace_for_vars: str = ""
    embedded_script: str = ""  #: Lua text
    partitions: tuple[Entry, ...] = ()
    images: tuple[Entry, ...] = ()
    files: tuple[Entry, ...] = ()
    scripts: tuple[Entry, ...] = ()
    bootscripts: tuple[Entry, ...] = ()
    bootenv: tuple[tuple[str, str], ...] = ()  #: names and values; an empty value removes the variable
    vars: tuple[tuple[str, str], ...] = ()
    extra: Mapping[str, Value] = field(default_factory=_nothing)
    ignored: tuple[str, ...] = ()  #: entries without a filename, which SWUpdate passes over

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries: partitions, images, files, scripts, boot scripts."""
        return self.partitions + self.images + self.files + self.scripts + self.bootscripts

    def artifacts(self) -> Iterator[Entry]:
        """The entries that need a file of the bundle."""
        return (entry for entry in self.entries if entry.filename)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an installation: run a script before or after, or install an entry."""

    phase: Phase
    entry: Entry


_ONE_PHASE: Mapping[str, Phase] = {"preinstall": "preinst", "postinstall": "postinst"}


def installation_order(description: Description) -> list[Step]:
    """Scripts (before), partitions, images, files, boot scripts, scripts (after); each in the file's order.

    The types `preinstall` and `postinstall` run once, `lua` and `shellscript` at both ends. Variables of the
    environment are applied after all of these.
    """

    def scripts(phase: Phase) -> list[Step]:
        return [Step(phase, entry) for entry in description.scripts if _ONE_PHASE.get(entry.type, phase) == phase]

    between = description.partitions + description.images + description.files + description.bootscripts
    return [*scripts("preinst"), *(Step("install", entry) for entry in between), *scripts("postinst")]


def parse(data: Buffer, *, limits: Limits = DEFAULT) -> Tree:
    """Read a description in libconfig's language or in JSON.

    SWUpdate tries libconfig first and JSON after it; since no libconfig text starts with `{` and a JSON description
    always does, the first character decides. Raises FormatError, UnsupportedError or LimitError.
    """
    if bytes(data[:4096]).lstrip(b" \t\r\n").startswith(b"{"):
        tree, syntax = strict_json.parse(data, limits=limits), "json"
    else:
        tree, syntax = libconfig.parse(data, limits=limits), "libconfig"
    software = tree.get("software") if isinstance(tree, dict) else None
    if not isinstance(software, dict):
        raise FormatError("the description has no group 'software'", cure="put everything into software = { ... }")
    return Tree(software, "json" if syntax == "json" else "libconfig")
