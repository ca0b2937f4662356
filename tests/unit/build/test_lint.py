# SPDX-License-Identifier: Apache-2.0
"""The rules of lint: each fault is found, names its generations, and a good bundle has none."""

from __future__ import annotations

import hashlib
import io
from array import array

import pytest
from swu_facts import archive, newc

from regraft.build.description import Artifact, DeltaRequest, describe_delta
from regraft.build.findings import BundleFacts, Finding, MemberFacts
from regraft.build.lint import lint, read_facts
from regraft.build.lint_delta import check_header
from regraft.formats.zchunk import (
    CHUNKER,
    FLAG_OPTIONAL_ELEMENTS,
    FLAG_UNCOMPRESSED_SOURCE,
    Header,
    build_header,
    rule_elements,
)
from regraft.model import Algorithm, DigestColumn

HEAD = 'version = "1.0"; hardware-compatibility = ["1.0"];'
BODY = b"payload"
SHA = hashlib.sha256(BODY).hexdigest()


def header(
    *,
    chunk: Algorithm = Algorithm.SHA256,
    flags: int = FLAG_UNCOMPRESSED_SOURCE,
    compression: str = "zstd",
    dictionary: int = 0,
    detached: bool = False,
    rule: str = CHUNKER,
) -> bytes:
    """The header of a .zck with one chunk of 100 bytes, stored in 40."""
    empty = bytes(chunk.size)
    first = chunk.of(b"dictionary") if dictionary else empty
    elements = rule_elements(rule)
    digests = [chunk.of(b"") if dictionary else empty, chunk.of(b"chunk")]
    return build_header(
        Header(
            algorithm=Algorithm.SHA256,
            chunk_algorithm=chunk,
            flags=flags | (FLAG_OPTIONAL_ELEMENTS if elements else 0),
            compression=compression,
            data_digest=bytes(32),
            stored_digests=DigestColumn(chunk, first + chunk.of(b"stored")),
            digests=DigestColumn(chunk, b"".join(digests) if flags else b""),
            stored=array("Q", [dictionary, 100 if compression == "none" else 40]),
            lengths=array("Q", [dictionary, 100]),
            elements=elements,
        ),
        detached=detached,
    )


def facts(description: str, artifacts: dict[str, bytes], *, signed: bool = True) -> BundleFacts:
    """What `read_facts` finds in a bundle of these."""
    head = [("sw-description", description.encode())] + ([("sw-description.sig", b"signature")] if signed else [])
    return read_facts(io.BytesIO(archive([*head, *artifacts.items()])).read)


def entry(attributes: str, *, section: str = "images", top: str = "", content: bytes = BODY) -> list[Finding]:
    """The findings for a bundle with one entry."""
    sha = hashlib.sha256(content).hexdigest()
    described = f'software = {{ {HEAD} {top} {section}: ( {{ filename = "a"; sha256 = "{sha}"; {attributes} }} ); }};'
    return lint(facts(described, {"a": content}))


def rules(findings: list[Finding], *severities: str) -> set[str]:
    return {finding.rule for finding in findings if finding.severity in (severities or ("error", "warning"))}


DELTA = (
    'url = "http://h/x.zck"; source = "/dev/a"; chain = "raw"; max-ranges = "150"; zckloglevel = "error"; '
    'image-sha256 = "0"; '
)


def delta(properties: str = DELTA, attributes: str = 'device = "/dev/b";', content: bytes = b"") -> list[Finding]:
    return entry(f'type = "delta"; {attributes} properties: {{ {properties} }};', content=content or header())


def test_what_regraft_builds_has_no_errors_and_no_warnings() -> None:
    content = header()
    artifact = Artifact("root.zck.header", len(content), hashlib.sha256(content).digest())
    request = DeltaRequest(
        artifact, "http://host/root.zck", "/dev/a", "1.0", device="/dev/b", hardware=("1.0",), image_sha256=bytes(32),
        image_size=100,
    )  # fmt: skip
    findings = lint(facts(describe_delta(request).decode(), {artifact.name: content}))
    assert rules(findings) == set()
    assert rules(findings, "note") == {
        "delta.server", "delta.boundary", "delta.last-chunk", "delta.temporary-space",
    }  # fmt: skip


def test_a_plain_image_has_no_findings() -> None:
    assert entry('device = "/dev/b";') == []


# the archive


def described(attributes: str = "") -> bytes:
    text = f'software = {{ {HEAD} images: ( {{ filename = "a"; device = "d"; sha256 = "{SHA}"; {attributes} }} ); }};'
    return text.encode()


@pytest.mark.parametrize(
    ("members", "rule"),
    [
        ([("a", BODY), ("sw-description", described()), ("sw-description.sig", b"s")], "container.first"),
        ([("sw-description", described()), ("a", BODY)], "container.unsigned"),
        ([("sw-description", described()), ("a", BODY), ("sw-description.sig", b"s")], "container.second"),
        ([("sw-description", described()), ("sw-description.sig", b"s")], "artifact.missing"),
        ([("sw-description", described()), ("sw-description.sig", b"s"), ("a", b"other")], "artifact.sha256"),
        ([("sw-description", b"software = "), ("sw-description.sig", b"s")], "description.syntax"),
        ([], "container.first"),
    ],
)
def test_order_and_content_of_the_archive(members: list[tuple[str, bytes]], rule: str) -> None:
    assert rule in rules(lint(read_facts(io.BytesIO(archive(members)).read)), "error")


def test_an_archive_without_checksums_is_a_warning() -> None:
    members = [("sw-description", described()), ("sw-description.sig", b"s"), ("a", BODY)]
    assert rules(lint(read_facts(io.BytesIO(newc(members)).read))) == {"container.checksums"}


def test_an_empty_artifact_is_a_warning() -> None:
    members = [("sw-description", described()), ("sw-description.sig", b"s"), ("a", b"")]
    assert "artifact.empty" in rules(lint(read_facts(io.BytesIO(newc(members)).read)), "warning")


def test_an_artifact_that_no_entry_names_is_a_warning() -> None:
    findings = lint(facts(described().decode(), {"a": BODY, "b": b"x"}))
    assert [(finding.rule, finding.where) for finding in findings] == [("artifact.unlisted", "b")]


@pytest.mark.parametrize("change", ["cut", "flip", "no archive"])
def test_a_broken_archive_is_a_finding_not_an_exception(change: str) -> None:
    whole = archive([("sw-description", described()), ("sw-description.sig", b"s"), ("a", BODY)])
    broken = {"cut": whole[:-400], "flip": whole.replace(BODY, b"pavload"), "no archive": b"x" * 200}[change]
    assert "container.broken" in rules(lint(read_facts(io.BytesIO(broken).read)), "error")


# the description


OTHER = 'bootenv: ( { name = "a"; } );'


@pytest.mark.parametrize(
    ("body", "rule", "severity", "generations"),
    [
        (f'version = "1"; {OTHER}', "hardware.missing", "error", 2),
        (f'version = "1"; hardware-compatibility = []; {OTHER}', "hardware.missing", "error", 2),
        (f'version = "1"; hardware-compatibility = ["#RE:("]; {OTHER}', "hardware.pattern", "error", 2),
        (f'version = "v2"; hardware-compatibility = ["1"]; {OTHER}', "version.text", "warning", 2),
        (f'{HEAD} bootenv: ( {{ name = "a"; }}, );', "description.libconfig", "error", 1),
        (f'{HEAD} bootenv: ( {{ ref = "#./bootenv"; }} );', "description.selection", "error", 2),
        (f"{HEAD} foo = 1; {OTHER}", "entry.unknown", "warning", 2),
        (f'{HEAD} vars: ( {{ name = "v"; }} ); {OTHER}', "entry.ignored", "warning", 1),
        (f'{HEAD} uboot: ( {{ name = "a"; }}, {{ value = "b"; }} );', "entry.no-filename", "warning", 2),
    ],
)
def test_faults_of_the_description(body: str, rule: str, severity: str, generations: int) -> None:
    (finding,) = [finding for finding in lint(facts(f"software = {{ {body} }};", {})) if finding.rule == rule]
    assert (finding.severity, len(finding.generations)) == (severity, generations)
    assert finding.cure


def test_every_selection_is_looked_at() -> None:
    text = (
        f'software = {{ {HEAD} b = {{ s = {{ m = {{ images: ( {{ filename = "gone"; device = "d"; }} ); }}; }}; }}; '
        'bootenv: ( { name = "a"; } ); };'
    )
    findings = lint(facts(text, {}))
    assert rules(findings, "error") == {"artifact.missing", "artifact.no-sha256"}
    assert {finding.where for finding in findings} == {"software.b.s.m.images[0]"}


def test_an_entry_shared_by_selections_is_reported_once() -> None:
    text = (
        f'software = {{ {HEAD} c: ( {{ filename = "gone"; device = "d"; sha256 = "{SHA}"; }} ); s = {{ '
        'a = { images: ( { ref = "#../../c"; } ); }; b = { ref = "#./a"; }; }; };'
    )
    assert [finding.rule for finding in lint(facts(text, {}))] == ["artifact.missing"]


# entries


@pytest.mark.parametrize(
    ("attributes", "rule", "severity", "generations"),
    [
        ('device = "d"; size = 8;', "artifact.size", "error", ("current",)),
        ('type = "shellscript";', "entry.section", "error", ("2022.12", "current")),
        ('type = "copy";', "entry.handler", "error", ("2022.12",)),
        ('type = "own-handler";', "entry.handler", "warning", ("2022.12", "current")),
        ('type = "raw";', "entry.target", "error", ("2022.12", "current")),
        ('type = "rawfile";', "entry.target", "error", ("2022.12", "current")),
        ('device = "d"; compressed = "xz";', "entry.compressed", "error", ("2022.12",)),
        ('device = "d"; encrypted = "aes-cbc";', "entry.cipher", "error", ("2022.12",)),
        ('device = "d"; postinstall = "f";', "entry.ignored", "warning", ("2022.12",)),
        ('device = "d"; install-directly = true;', "entry.unknown", "warning", ("2022.12", "current")),
        ('device = "d"; install-if-higher = true;', "entry.version", "warning", ("2022.12", "current")),
        (f'device = "{"d" * 256}";', "entry.cropped", "error", ("2022.12", "current")),
        ('type = "lua";', "entry.lua", "note", ("2022.12", "current")),
        ('type = "rdiff_image"; device = "d";', "rdiff.base", "error", ("2022.12", "current")),
        ('type = "rdiff_image"; properties: { rdiffbase = "d"; };', "rdiff.target", "error", ("2022.12", "current")),
        ('type = "rdiff_image"; device = "d"; offset = 1;', "rdiff.offset", "error", ("2022.12", "current")),
        ('type = "rdiff_image"; device = "d";', "rdiff.unverified", "warning", ("2022.12", "current")),
        ('type = "rdiff_file"; path = "p";', "rdiff.in-place", "warning", ("2022.12", "current")),
    ],
)  # fmt: skip
def test_faults_of_entries(attributes: str, rule: str, severity: str, generations: tuple[str, ...]) -> None:
    (finding,) = [finding for finding in entry(attributes) if finding.rule == rule]
    assert (finding.severity, finding.generations) == (severity, generations)


def test_a_target_that_is_its_own_base_is_an_error() -> None:
    assert "rdiff.base" in rules(
        entry('type = "rdiff_image"; device = "d"; properties: { rdiffbase = "d"; };'), "error"
    )


def test_an_offset_as_text_is_misread_in_json_only() -> None:
    text = (
        '{"software": {"version": "1.0", "hardware-compatibility": ["1.0"], '
        f'"images": [{{"filename": "a", "device": "d", "sha256": "{SHA}", "offset": "4K"}}]}}}}'
    )
    (finding,) = lint(facts(text, {"a": BODY}))
    assert (finding.rule, finding.generations) == ("entry.json-offset", ("2022.12",))
    assert entry('device = "d"; offset = "4K";') == []


# delta updates


def test_a_good_delta_entry_has_only_notes() -> None:
    assert rules(delta()) == set()


@pytest.mark.parametrize(
    ("properties", "rule", "severity", "generations"),
    [
        (DELTA.replace('url = "http://h/x.zck";', ""), "delta.url", "error", 2),
        (DELTA.replace('url = "http://h/x.zck";', 'zckfile = "x";'), "delta.url", "error", 1),
        (DELTA.replace('"http://h/x.zck"', '"dynamic"'), "delta.url", "error", 2),
        (DELTA.replace('source = "/dev/a";', ""), "delta.source", "error", 2),
        (DELTA.replace("/dev/a", "/dev/b"), "delta.source", "error", 2),
        (DELTA.replace('chain = "raw";', ""), "delta.chain", "error", 2),
        (DELTA.replace('"raw"', '"delta"'), "delta.chain", "error", 2),
        (DELTA.replace('"raw"', '"rawfile"'), "delta.target", "error", 2),
        (DELTA.replace("http:", "https:"), "delta.https", "error", 1),
        (DELTA.replace('"150"', '"5000"'), "delta.url-length", "error", 2),
        (DELTA.replace("x.zck", "x" * 33_000), "delta.url-length", "error", 2),
        (DELTA.replace('max-ranges = "150";', ""), "delta.max-ranges", "warning", 2),
        (DELTA.replace('"150"', '"many"'), "delta.max-ranges", "error", 2),
        (DELTA.replace('zckloglevel = "error";', 'debug-chunks = "1";'), "delta.debug-chunks", "warning", 2),
        (DELTA.replace('"error"', '"all"'), "delta.zckloglevel", "warning", 2),
        (DELTA + 'source-size = "detect";', "delta.source-size", "warning", 1),
        (DELTA + 'source-size = "big";', "delta.source-size", "error", 2),
        (DELTA.replace('image-sha256 = "0";', ""), "delta.whole-image", "warning", 2),
        (DELTA + 'image-size = "99";', "delta.image-size", "error", 2),
    ],
)
def test_faults_of_delta_properties(properties: str, rule: str, severity: str, generations: int) -> None:
    (finding,) = [finding for finding in delta(properties) if finding.rule == rule]
    assert (finding.severity, len(finding.generations)) == (severity, generations)


@pytest.mark.parametrize(
    ("attributes", "rule", "generations"),
    [
        ("installed-directly = true;", "delta.installed-directly", 2),
        ("encrypted = true;", "delta.encrypted", 1),
        ('compressed = "zlib";', "delta.compressed", 1),
        ('device = "";', "delta.target", 2),
    ],
)
def test_faults_of_delta_attributes(attributes: str, rule: str, generations: int) -> None:
    attributes += "" if "device" in attributes else ' device = "/dev/b";'
    (finding,) = [finding for finding in delta(attributes=attributes) if finding.rule == rule]
    assert (finding.severity, len(finding.generations)) == ("error", generations)


@pytest.mark.parametrize(
    ("content", "rule", "severity"),
    [
        (b"not a header at all, but long enough to be one", "delta.header", "error"),
        (header()[:-1], "delta.header", "error"),
        (header()[:60] + b"\xff" + header()[61:], "delta.header", "error"),
        (header(detached=True), "delta.detached", "warning"),
        (header() + b"the body", "delta.trailing", "warning"),
        (header(flags=0), "delta.not-reusable", "warning"),
        (header(chunk=Algorithm.SHA512_128), "delta.chunk-digest", "error"),
        (header(compression="none"), "delta.compression", "error"),
        (header(dictionary=10), "delta.dictionary", "error"),
        (header(rule=f"{CHUNKER}+layout/1"), "delta.cuts", "warning"),
    ],
)
def test_kinds_of_zck_that_devices_cannot_use(content: bytes, rule: str, severity: str) -> None:
    assert [finding.severity for finding in delta(content=content) if finding.rule == rule] == [severity]


def test_a_usable_header_has_no_finding() -> None:
    content = header()
    findings, read = check_header("x", MemberFacts("a", len(content), b"", content=content))
    assert findings == []
    assert read is not None
    assert read.image_size == 100
