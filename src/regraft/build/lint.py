# SPDX-License-Identifier: Apache-2.0
"""What would fail on a device, and why: a bundle's rules for each generation of stock SWUpdate.

Follows SWUpdate's documentation, chapters "SWUpdate: software management" and "SWUpdate: syntax and tags with the
default parser". The rules are pure functions over `BundleFacts`; `read_facts` gathers these from an archive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from regraft.build.findings import OLD, SEVERITIES, BundleFacts, Finding, MemberFacts, error, note, warning
from regraft.build.lint_entries import FIELD, check_entry
from regraft.device.ere import compile_pattern
from regraft.device.hardware import REGULAR
from regraft.device.versions import is_ordered
from regraft.errors import RegraftError
from regraft.formats import cpio, libconfig
from regraft.limits import DEFAULT, Limits
from regraft.swupdate.bundle import DESCRIPTION, SIGNATURE
from regraft.swupdate.description import Description, Tree, parse
from regraft.swupdate.selection import select, selections

_ZCHUNK = (b"\0ZCK1", b"\0ZHR1")


def read_facts(read: Callable[[int], bytes], *, limits: Limits = DEFAULT) -> BundleFacts:
    """Go through an archive once; its faults are facts, too. `read(n)` returns 1 to n bytes, b"" at the end."""
    members: list[MemberFacts] = []
    archive = cpio.Reader(read, limits=limits)
    try:
        for member in archive:
            hasher, kept = hashlib.sha256(), bytearray()
            piece = archive.read(limits.batch)
            keep = member.name == DESCRIPTION or piece.startswith(_ZCHUNK)
            while piece:
                if keep and len(kept) + len(piece) <= limits.header_size:
                    kept += piece
                hasher.update(piece)
                piece = archive.read(limits.batch)
            content = bytes(kept) if keep else None
            members.append(MemberFacts(member.name, member.size, hasher.digest(), member.checksum is not None, content))
    except RegraftError as fault:
        return BundleFacts(tuple(members), str(fault))
    return BundleFacts(tuple(members))


def lint(facts: BundleFacts, *, limits: Limits = DEFAULT) -> list[Finding]:
    """All findings, errors first; without repetitions where several selections share an entry."""
    found = dict.fromkeys([*_container(facts), *_description(facts, limits)])
    return sorted(found, key=lambda finding: (SEVERITIES.index(finding.severity), finding.where, finding.rule))


def _container(facts: BundleFacts) -> Iterator[Finding]:
    if facts.fault:
        yield error("container.broken", "bundle", facts.fault, "build the bundle again: `regraft swu build`")
    names = [member.name for member in facts.members]
    if names[:1] != [DESCRIPTION]:
        first = names[0] if names else "nothing"
        yield error("container.first", "bundle", f"{DESCRIPTION} must come first, here it is {first}", "put it first")
    if SIGNATURE not in names:
        yield error(
            "container.unsigned",
            "bundle",
            "there is no signature: builds that verify, as Debian's, refuse it",
            "sign it: `regraft swu build --key K --cert C`",
        )
    elif names[1:2] != [SIGNATURE]:
        yield error("container.second", "bundle", f"{SIGNATURE} must be the second member", "put it there")
    if not all(member.checksummed for member in facts.members):
        yield warning(
            "container.checksums", "bundle", "the archive has no checksums (magic 070701)", "use `cpio -H crc` (070702)"
        )


def _description(facts: BundleFacts, limits: Limits) -> Iterator[Finding]:
    member = facts.member(DESCRIPTION)
    if member is None or member.content is None:
        return
    try:
        tree = parse(member.content, limits=limits)
    except RegraftError as fault:
        yield error("description.syntax", DESCRIPTION, str(fault), fault.cure)
        return
    if tree.syntax == "libconfig":
        yield from _old_libconfig(member.content, limits)
    listed = {DESCRIPTION, SIGNATURE}
    texts = _text_offsets(tree) if tree.syntax == "json" else set()
    for board, set_mode in selections(tree):
        where = " ".join(part for part in (board, ",".join(set_mode or ())) if part) or "software"
        try:
            selected = select(tree, board=board, set_mode=set_mode, limits=limits)
        except RegraftError as fault:
            yield error("description.selection", where, str(fault), fault.cure)
            continue
        yield from _top(selected, where, limits)
        for entry in selected.entries:
            yield from check_entry(entry, facts, limits=limits)
            if entry.where in texts:
                yield error(
                    "entry.json-offset",
                    entry.where,
                    "2022.12 misreads an offset that is a string in JSON",
                    "write it as a number of bytes, or the description in libconfig's language",
                    OLD,
                )
        listed |= {entry.filename for entry in selected.artifacts()}
    for name in [member.name for member in facts.members if member.name not in listed]:
        yield warning("artifact.unlisted", name, "no entry names it: devices read it and throw it away", "leave it out")


def _old_libconfig(text: bytes, limits: Limits) -> Iterator[Finding]:
    """What parses today and did not with libconfig 1.5, which 2022.12 was built with."""
    try:
        libconfig.parse(text, trailing_commas=False, limits=limits)
    except RegraftError as fault:
        yield error("description.libconfig", DESCRIPTION, f"libconfig 1.5 refuses it: {fault}", fault.cure, OLD)


def _text_offsets(tree: Tree) -> set[str]:
    """The places of entries whose offset is a string."""
    found: set[str] = set()
    waiting: list[tuple[str, libconfig.Value]] = [("software", tree.software)]
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("offset"), str):
                found.add(where)
            waiting.extend((f"{where}.{name}", item) for name, item in value.items())
        elif isinstance(value, list):
            waiting.extend((f"{where}[{number}]", item) for number, item in enumerate(value))
    return found


def _top(selected: Description, where: str, limits: Limits) -> Iterator[Finding]:
    yield from _hardware(selected, where, limits)
    if not is_ordered(selected.version):
        yield warning(
            "version.text",
            where,
            f"version {selected.version!r} is compared as text: 'v10' is older than 'v9'",
            "use numbers with points, or a semantic version",
        )
    for name, text in (("version", selected.version), ("description", selected.description)):
        if len(text.encode()) > FIELD:
            yield error(
                "entry.cropped", where, f"'{name}' has {len(text.encode())} bytes, SWUpdate crops it", "shorten it"
            )
    if selected.embedded_script:
        yield note("entry.lua", where, "it has an embedded Lua script, which regraft's installer does not run", "")
    for place in selected.ignored:
        yield warning("entry.no-filename", place, "SWUpdate passes over an entry without a filename", "name its file")
    for name in selected.extra:
        yield warning("entry.unknown", where, f"SWUpdate knows no attribute {name!r} and ignores it", "remove it")
    if selected.update_type or selected.vars:
        yield warning("entry.ignored", where, "2022.12 ignores 'update-type' and 'vars'", "do without", OLD)


def _hardware(selected: Description, where: str, limits: Limits) -> Iterator[Finding]:
    if not selected.hardware:
        yield error(
            "hardware.missing",
            where,
            "hardware-compatibility is missing or empty: no device takes the bundle",
            "list the revisions it was tested on",
        )
        return
    for entry in selected.hardware:
        if not entry.startswith(REGULAR):
            continue
        try:
            compile_pattern(entry[len(REGULAR) :])
        except RegraftError as fault:
            yield error("hardware.pattern", where, str(fault), fault.cure)
