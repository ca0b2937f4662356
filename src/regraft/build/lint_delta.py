# SPDX-License-Identifier: Apache-2.0
"""Rules for delta updates: what SWUpdate's handlers `delta`, `rdiff_image` and `rdiff_file` need, and where they fail.

The rules for `delta` follow SWUpdate's documentation, chapter "Delta Update with SWUpdate", and what the two
generations of its program do with the files of `zck`.
"""

from __future__ import annotations

from collections.abc import Iterator

from regraft.build.description import IMAGE_SHA256, IMAGE_SIZE
from regraft.build.findings import OLD, Finding, MemberFacts, error, note, warning
from regraft.errors import RegraftError
from regraft.formats.zchunk import CHUNKER, Header, parse_header
from regraft.limits import DEFAULT, KIB, Limits
from regraft.model.digest import Algorithm
from regraft.swupdate.description import Entry

MESSAGE_SIZE = 32 * KIB  #: what SWUpdate's installer can tell its downloader at once: URL and ranges
_LEVELS = ("debug", "info", "warn", "error", "none")
_TARGETS = {"raw": "device", "rawfile": "path", "archive": "path", "tar": "path", "ubivol": "volume"}
_PACK = "pack it with `regraft pack zck` (or `zck -u --chunk-hash-type sha256`)"


def check_delta(entry: Entry, member: MemberFacts | None, *, limits: Limits = DEFAULT) -> Iterator[Finding]:
    """All findings for one entry of type `delta`; `member` is its artifact, if the bundle has it."""
    where = entry.where
    header: Header | None = None
    if member is not None and not entry.encrypted and not entry.compressed:
        findings, header = check_header(where, member, limits=limits)
        yield from findings
    if entry.installed_directly:
        yield error("delta.installed-directly", where, "the handler refuses installed-directly", "remove it")
    if entry.encrypted:
        yield error(
            "delta.encrypted", where, "an encrypted header is not decrypted before 2023.05", "ship it plain", OLD
        )
    if entry.compressed:
        yield error(
            "delta.compressed", where, "a compressed header is not unpacked before 2023.05", "ship it plain", OLD
        )
    yield from _places(entry)
    yield from _url(entry, header)
    yield from _tuning(entry)
    yield from _whole_image(entry, header)


def _places(entry: Entry) -> Iterator[Finding]:
    where, source, chain = entry.where, entry.setting("source"), entry.setting("chain")
    if not source:
        yield error("delta.source", where, "there is no property 'source'", "name the device of the running image")
    elif source in (entry.device, entry.path):
        yield error("delta.source", where, f"{source} is source and target in one", "write to the other slot")
    if not chain:
        yield error("delta.chain", where, "there is no property 'chain'", 'add chain = "raw"')
    elif chain == "delta":
        yield error("delta.chain", where, "a delta update cannot be chained to another", 'use chain = "raw"')
    elif chain in _TARGETS and not getattr(entry, _TARGETS[chain]):
        yield error("delta.target", where, f"the chained handler {chain} needs '{_TARGETS[chain]}'", "add it")


def _url(entry: Entry, header: Header | None) -> Iterator[Finding]:
    where, url = entry.where, entry.setting("url")
    if not url or url == "dynamic":
        named = entry.setting("zckfile")
        if not named:
            yield error("delta.url", where, "there is neither a property 'url' nor 'zckfile'", "add url")
        else:
            yield error("delta.url", where, "2022.12 needs a property 'url' and knows no 'zckfile'", "add url", OLD)
        return
    if url.lower().startswith("https:"):
        yield error(
            "delta.https",
            where,
            "the downloader of 2022.12 is not set up for TLS (2023.12 is)",
            "serve the .zck by plain http: its integrity does not depend on TLS",
            OLD,
        )
    ranges = _number(entry.setting("max-ranges")) or 150
    digits = len(str(header.size + header.body_size)) if header else 10
    if len(url) + ranges * (2 * digits + 2) > MESSAGE_SIZE:
        yield error(
            "delta.url-length",
            where,
            f"the URL and {ranges} ranges do not fit the {MESSAGE_SIZE} bytes between installer and downloader",
            "shorten the URL or lower max-ranges",
        )
    yield note(
        "delta.server",
        where,
        f"{url.split('?')[0][:200]} must be answered with 206 and the parts in the order asked for; 200 makes the "
        "update fail. Its Content-Type must be 'multipart/byteranges; boundary=x' with the blank and without quotes",
        "check the server before the rollout; `regraft serve` and nginx do it right",
    )
    yield note(
        "delta.boundary",
        where,
        "a boundary with upper-case letters (hawkBit's is one) is not found before 2025.05",
        "serve the .zck from elsewhere",
        OLD,
    )


def _tuning(entry: Entry) -> Iterator[Finding]:
    where, ranges = entry.where, entry.setting("max-ranges")
    if not ranges:
        yield warning(
            "delta.max-ranges",
            where,
            "without 'max-ranges' 2022.12 asks for 150 ranges at once, later releases for 10 (documented: 150)",
            'set it, e.g. max-ranges = "150"',
        )
    elif not _number(ranges):
        yield error("delta.max-ranges", where, f"max-ranges = {ranges!r} is no number above 0", "mend it")
    level = entry.setting("zckloglevel")
    if level and level not in _LEVELS:
        yield warning("delta.zckloglevel", where, f"{level!r} is no level", f"use one of {', '.join(_LEVELS)}")
    if entry.setting("debug-chunks") and not level:
        yield warning(
            "delta.debug-chunks", where, "debug-chunks is ignored without zckloglevel", "set zckloglevel, too"
        )
    size = entry.setting("source-size")
    if size and size != "detect" and not _number(size):
        yield error("delta.source-size", where, f"source-size = {size!r} is neither a number nor 'detect'", "mend it")
    elif size:
        yield warning(
            "delta.source-size",
            where,
            "source-size has no effect before 2024.05: the whole source is read",
            "nothing to do, it only takes longer",
            OLD,
        )
    yield note(
        "delta.last-chunk",
        where,
        "2022.12 never finds the last chunk in its source and always downloads it",
        "count it in when estimating sizes",
        OLD,
    )
    yield note(
        "delta.temporary-space",
        where,
        "2022.12 writes a temporary file as large as the source into TMPDIR",
        "provide the space",
        OLD,
    )


def _whole_image(entry: Entry, header: Header | None) -> Iterator[Finding]:
    size = entry.setting(IMAGE_SIZE)
    if header is not None and size and _number(size) != header.image_size:
        yield error(
            "delta.image-size",
            entry.where,
            f"{IMAGE_SIZE} is {size}, the header describes {header.image_size} bytes",
            "build the bundle again",
        )
    if not entry.setting(IMAGE_SHA256):
        yield warning(
            "delta.whole-image",
            entry.where,
            "SWUpdate verifies chunks but never the whole image, and there is no digest of it here",
            f"add the property {IMAGE_SHA256}, which regraft verifies, or verify in a postinstall script",
        )


def _number(text: str) -> int:
    """The number above 0 that `text` is, else 0."""
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else 0


def check_header(where: str, member: MemberFacts, *, limits: Limits = DEFAULT) -> tuple[list[Finding], Header | None]:
    """Whether SWUpdate can work with the .zck whose header is `member`, and the header if it can be read."""
    if member.content is None:
        return [
            error("delta.header", where, f"{member.name} is no zchunk header", "use `regraft header FILE.zck`")
        ], None
    try:
        header = parse_header(member.content, limits=limits)
    except RegraftError as fault:
        return [error("delta.header", where, f"{member.name}: {fault}", "use `regraft header FILE.zck`")], None
    findings: list[Finding] = []
    if header.detached:
        findings.append(
            warning(
                "delta.detached",
                where,
                "a detached header (ZHR1) is not what SWUpdate documents",
                "use the first bytes of the .zck itself: `regraft header FILE.zck`",
            )
        )
    if member.size > header.size:
        findings.append(
            warning(
                "delta.trailing",
                where,
                f"{member.size - header.size} bytes follow the header, to no use",
                "put only the header into the bundle: `regraft header FILE.zck`",
            )
        )
    if not header.uncompressed_source:
        findings.append(
            warning(
                "delta.not-reusable", where, "the .zck has no digests of uncompressed chunks: nothing is reused", _PACK
            )
        )
    if header.chunk_algorithm != Algorithm.SHA256:
        findings.append(
            error(
                "delta.chunk-digest",
                where,
                f"its chunk digests are {header.chunk_algorithm.label}: "
                "nothing matches, and the first chunk fails its check",
                _PACK,
            )
        )
    if header.compression != "zstd":
        findings.append(
            error("delta.compression", where, "its chunks are not compressed, which the handler takes for zstd", _PACK)
        )
    if header.dictionary_stored:
        findings.append(
            error("delta.dictionary", where, "it has a dictionary, which the handler writes into the image", _PACK)
        )
    if header.rule != CHUNKER:
        findings.append(
            warning(
                "delta.cuts",
                where,
                f"its chunks were cut by the rule {header.rule}: SWUpdate cuts its source by zchunk's and reuses less",
                "pack it without --layout and --align, unless regraft is on the devices",
            )
        )
    return findings, header


def check_rdiff(entry: Entry) -> Iterator[Finding]:
    """All findings for one entry of type `rdiff_image` or `rdiff_file`."""
    where = entry.where
    if entry.type == "rdiff_image":
        if not entry.setting("rdiffbase"):
            yield error("rdiff.base", where, "there is no property 'rdiffbase'", "name the base device")
        if entry.offset:
            yield error("rdiff.offset", where, "rdiff_image takes no offset", "remove it")
        if not entry.device:
            yield error("rdiff.target", where, "rdiff_image writes to a device, none is named", "add device")
        elif entry.setting("rdiffbase") == entry.device:
            yield error("rdiff.base", where, f"{entry.device} is base and target in one", "write to the other slot")
    else:
        yield warning(
            "rdiff.in-place",
            where,
            "rdiff_file replaces its own base: a second delivery corrupts the file and still reports success",
            "never deliver it twice, or use rdiff_image with a base of its own",
        )
    yield warning(
        "rdiff.unverified",
        where,
        "neither base nor result is verified: a wrong base ends in success",
        "check the base in a preinstall script and the result in a postinstall script",
    )
