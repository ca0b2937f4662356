# SPDX-License-Identifier: Apache-2.0
"""Rules for every entry of an sw-description: artifact and attributes, for each generation of SWUpdate.

They follow SWUpdate's documentation, chapter "SWUpdate: syntax and tags with the default parser", and what 2022.12 does
where its documentation is of a later date.
"""

from __future__ import annotations

from collections.abc import Iterator

from regraft.build.findings import ALL, CURRENT, OLD, BundleFacts, Finding, MemberFacts, error, note, warning
from regraft.build.lint_delta import check_delta, check_rdiff
from regraft.limits import DEFAULT, Limits
from regraft.swupdate.description import Entry

FIELD = 255  #: characters that SWUpdate's buffers hold; it crops longer texts
_SCRIPTS = frozenset(["lua", "shellscript", "preinstall", "postinstall"])
_PARTITIONERS = frozenset(["ubipartition", "diskpart", "diskformat", "toggleboot", "gptswap", "gptpart", "uniqueuuid"])
_HANDLERS_2022 = frozenset(
    [
        *("dummy", "archive", "tar", "uboot", "bootloader", "flash", "flash-hamming1", "delta", "raw", "rawfile"),
        *("rdiff_image", "rdiff_file", "readback", "ssblswitch", "swuforward", "ubivol", "ubiswap", "remote", "ucfw"),
    ]
)
_HANDLERS_LATER = frozenset(["copy", "btrfs", "docker_imageload", "docker_imageprune", "docker_imagedelete"])
_NEEDS = {"raw": ("device",), "rawfile": ("path",), "archive": ("path",), "tar": ("path",), "ubivol": ("volume",)}
_LATER_ATTRIBUTES = ("aes_key", "preinstall", "postinstall")


def check_entry(entry: Entry, facts: BundleFacts, *, limits: Limits = DEFAULT) -> Iterator[Finding]:
    """All findings for one entry."""
    member = facts.member(entry.filename) if entry.filename else None
    if entry.filename:
        yield from _artifact(entry, member)
    yield from _handler(entry)
    yield from _attributes(entry)
    if entry.type == "delta":
        yield from check_delta(entry, member, limits=limits)
    elif entry.type in ("rdiff_image", "rdiff_file"):
        yield from check_rdiff(entry)


def _artifact(entry: Entry, member: MemberFacts | None) -> Iterator[Finding]:
    where, name = entry.where, entry.filename
    if entry.sha256 is None:
        yield error("artifact.no-sha256", where, f"{name} has no sha256", "fill it in: `regraft swu build` does")
    if member is None:
        yield error("artifact.missing", where, f"{name} is not in the bundle", "add the file or remove the entry")
        return
    if entry.sha256 is not None and entry.sha256 != member.sha256:
        yield error(
            "artifact.sha256",
            where,
            f"{name} has another sha256 than its entry: {member.sha256.hex()}",
            "build the bundle again",
        )
    if entry.size is not None and entry.kind != "partitions" and entry.size != member.size:
        yield error(
            "artifact.size",
            where,
            f"{name} has {member.size} bytes, its entry says {entry.size}",
            "correct or remove 'size' (2022.12 does not look at it)",
            CURRENT,
        )
    if not member.size:
        yield error("artifact.empty", where, f"{name} is empty", "leave it out")


def _handler(entry: Entry) -> Iterator[Finding]:
    where, handler = entry.where, entry.type
    if (entry.kind == "scripts") != (handler in _SCRIPTS) and handler in _SCRIPTS | _HANDLERS_2022 | _PARTITIONERS:
        yield error(
            "entry.section",
            where,
            f"the handler {handler} is not allowed in '{entry.kind}'",
            "move the entry to the section for it",
        )
    elif handler in _HANDLERS_LATER:
        yield error("entry.handler", where, f"2022.12 has no handler {handler}", "use another handler", OLD)
    elif handler not in _SCRIPTS | _HANDLERS_2022 | _PARTITIONERS:
        yield warning(
            "entry.handler",
            where,
            f"{handler} is none of SWUpdate's own handlers",
            "make sure that the devices have it as a Lua handler, or mend 'type'",
        )
    for name in _NEEDS.get(handler, ()):
        if not getattr(entry, name):
            yield error("entry.target", where, f"the handler {handler} needs '{name}'", "add it")
    if handler == "lua" or entry.hook:
        yield note(
            "entry.lua", where, "it runs Lua, which regraft's installer does not", "use SWUpdate for this bundle"
        )


def _attributes(entry: Entry) -> Iterator[Finding]:
    where = entry.where
    if entry.compressed in ("xz", "lz4"):
        yield error(
            "entry.compressed",
            where,
            f"2022.12 does not know the compression {entry.compressed}",
            "use zstd or zlib",
            OLD,
        )
    if entry.cipher:
        yield error(
            "entry.cipher",
            where,
            "2022.12 ignores the name of a cipher and installs the encrypted bytes as they are",
            "write encrypted = true",
            OLD,
        )
    for name in _LATER_ATTRIBUTES:
        if getattr(entry, name):
            yield warning("entry.ignored", where, f"2022.12 ignores '{name.replace('_', '-')}'", "do without", OLD)
    for name in entry.extra:
        hint = "did you mean installed-directly?" if name == "install-directly" else "remove it or mend its name"
        yield warning("entry.unknown", where, f"SWUpdate knows no attribute {name!r} and ignores it", hint)
    if (entry.install_if_different or entry.install_if_higher) and not (entry.name and entry.version):
        yield warning(
            "entry.version",
            where,
            "install-if-different and install-if-higher need a name and a version",
            "add them, else the entry is always installed",
        )
    texts = {name: getattr(entry, name) for name in ("type", "device", "volume", "mtdname", "path", "filesystem")}
    texts |= {"name": entry.name, "version": entry.version, "data": entry.data}
    for name, text in texts.items():
        if len(text.encode()) > FIELD:
            yield error(
                "entry.cropped",
                where,
                f"'{name}' has {len(text.encode())} bytes; SWUpdate crops it to {FIELD}",
                "shorten it",
                ALL,
            )
