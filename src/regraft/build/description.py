# SPDX-License-Identifier: Apache-2.0
"""Makes an sw-description: a new one for a delta update, or a template with its digests and sizes filled in.

Follows SWUpdate's documentation, chapters "SWUpdate: syntax and tags with the default parser" and "Delta Update with
SWUpdate"; the words a template may use are those of swugenerator. Pure: names, sizes and digests in, text out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from regraft.errors import DigestError, FormatError, UnlistedError, UsageError
from regraft.formats import libconfig
from regraft.formats.libconfig import Value
from regraft.limits import DEFAULT, Limits
from regraft.swupdate.attributes import check_filename
from regraft.swupdate.description import Tree, parse
from regraft.swupdate.selection import select, selections

MAX_RANGES: Final = 150  #: what 2022.12 takes without the property; later releases take 10 although they document 150
IMAGE_SHA256: Final = "image-sha256"  #: our property: digest of the whole image, which SWUpdate's handlers never check
IMAGE_SIZE: Final = "image-size"  #: our property: size of the whole image in bytes
_RESERVED = frozenset(["url", "source", "chain", "max-ranges", "zckloglevel", "debug-chunks", IMAGE_SHA256, IMAGE_SIZE])


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that goes into the bundle, as it will lie there. `size` in bytes."""

    name: str
    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class DeltaRequest:
    """What `regraft swu build --delta` is told. `header` is the zchunk header that goes into the bundle."""

    header: Artifact
    url: str
    source: str
    version: str
    device: str = ""
    path: str = ""
    chain: str = "raw"
    filesystem: str = ""
    hardware: tuple[str, ...] = ()
    board: str = ""
    set_mode: tuple[str, str] | None = None
    description: str = ""
    max_ranges: int = MAX_RANGES
    log_level: str = "error"
    debug_chunks: bool = False
    properties: tuple[tuple[str, str], ...] = ()
    image_sha256: bytes | None = None
    image_size: int | None = None


def describe_delta(request: DeltaRequest, *, limits: Limits = DEFAULT) -> bytes:
    """The sw-description of a bundle with one delta update. The same request makes the same bytes.

    Raises UsageError for a request that would make a description no device accepts.
    """
    _check(request, limits)
    kind = "files" if request.chain in ("rawfile", "archive", "tar", "rdiff_file") else "images"
    entry: dict[str, Value] = {"filename": request.header.name, "type": "delta"}
    places = {"device": request.device, "path": request.path, "filesystem": request.filesystem}
    entry |= {name: value for name, value in places.items() if value}
    entry |= {"sha256": request.header.sha256.hex(), "properties": dict(_properties(request))}
    body: dict[str, Value] = {kind: [entry]}
    top: dict[str, Value] = {"version": request.version}
    if request.description:
        top["description"] = request.description
    top["hardware-compatibility"] = tuple(request.hardware)
    names = ([request.board] if request.board else []) + list(request.set_mode or ())
    for name in reversed(names):
        if name in top or not re.fullmatch("[A-Za-z*][-A-Za-z0-9_*]*", name):
            raise UsageError(f"{name!r} cannot name a board, software set or mode", cure="use letters, digits, - and _")
        body = {name: body}
    text = libconfig.dump({"software": top | body})
    made = select(parse(text.encode()), board=request.board, set_mode=request.set_mode, limits=limits)
    if [found.filename for found in made.artifacts()] != [request.header.name]:
        raise UsageError(
            "the description would not select the delta update", cure="use other names for the set and mode"
        )
    return text.encode()


def _check(request: DeltaRequest, limits: Limits) -> None:
    check_filename(request.header.name, "--delta", limits)
    if not request.version:
        raise UsageError("a bundle needs a version", cure="give --version")
    if not request.hardware:
        raise UsageError(
            "a bundle must say which hardware it is for", cure="give --hardware REVISION, once for each revision"
        )
    if request.chain == "delta":
        raise UsageError("a delta update cannot be chained to another one", cure="use --chain raw or rawfile")
    if not request.url or not request.source:
        raise UsageError("a delta update needs the URL of the .zck and a source", cure="give --url and --source")
    if request.chain == "raw" and not request.device:
        raise UsageError("the handler raw writes to a device", cure="give --device")
    if request.chain == "rawfile" and not request.path:
        raise UsageError("the handler rawfile writes to a path", cure="give --path")
    if request.max_ranges < 1:
        raise UsageError(f"--max-ranges {request.max_ranges}", cure="at least one range is needed")


def _properties(request: DeltaRequest) -> Iterator[tuple[str, Value]]:
    yield "url", request.url
    yield "source", request.source
    yield "chain", request.chain
    yield "max-ranges", str(request.max_ranges)
    yield "zckloglevel", request.log_level
    if request.debug_chunks:
        yield "debug-chunks", "true"
    if request.image_sha256 is not None:
        yield IMAGE_SHA256, request.image_sha256.hex()
    if request.image_size is not None:
        yield IMAGE_SIZE, str(request.image_size)
    gathered: dict[str, list[str]] = {}
    for name, value in request.properties:
        if name in _RESERVED:
            raise UsageError(f"--property {name}=... has an option of its own", cure=f"use --{name}")
        gathered.setdefault(name, []).append(value)
    for name, values in gathered.items():
        yield name, values[0] if len(values) == 1 else list(values)


# templates

_CALL = re.compile(r"\$swupdate_get_(sha256|size)\(\s*(?:'([^']*)'|\"([^\"]*)\"|([^\s()'\"]+))\s*\)")
_MARK = re.compile(r"@([^@\s\"\\]{1,255})\Z")
_VARIABLE = re.compile(r"@@([A-Za-z_][A-Za-z0-9_]*)@@")


def fill_template(
    template: bytes,
    artifacts: Sequence[Artifact],
    *,
    variables: Mapping[str, str] | None = None,
    limits: Limits = DEFAULT,
) -> bytes:
    """The description that `template` stands for, with `sha256` and `size` of every artifact filled in or checked.

    A value may be `@NAME` or `$swupdate_get_sha256(NAME)` (`$swupdate_get_size(NAME)`), which become the digest (size)
    of the artifact NAME; `@@WORD@@` becomes `variables[WORD]`. Comments and layout survive where every entry has its
    digest after that; else the text is written anew. Raises UnlistedError for a named artifact that is not there,
    DigestError for a digest or size that is not the artifact's, and what `parse` raises.
    """
    known = {artifact.name: artifact for artifact in artifacts}
    if len(known) != len(artifacts):
        raise UsageError("two artifacts have the same name", cure="rename one of them")
    text = _substituted(template, known, variables or {})
    tree = parse(text, limits=limits)
    missing = sum([_complete(entry, known) for entry in _entries(tree)])
    if missing:
        whole: dict[str, Value] = {"software": tree.software}
        text = _rewritten(whole, tree.syntax)
        tree = parse(text, limits=limits)
    for board, set_mode in selections(tree):
        select(tree, board=board, set_mode=set_mode, limits=limits)  # find now what a device would find
    return text


def _rewritten(whole: dict[str, Value], syntax: str) -> bytes:
    if syntax == "libconfig":
        return libconfig.dump(whole).encode()
    import json

    return (json.dumps(whole, indent=2, ensure_ascii=False) + "\n").encode()


def _substituted(template: bytes, known: Mapping[str, Artifact], variables: Mapping[str, str]) -> bytes:
    try:
        text = template.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"the template is not UTF-8: {error.reason}", offset=error.start) from None

    def variable(found: re.Match[str]) -> str:
        if found[1] not in variables:
            raise UsageError(f"the template uses @@{found[1]}@@, which is not defined", cure="define it")
        return variables[found[1]]

    def call(found: re.Match[str]) -> str:
        artifact = _named(known, found[2] or found[3] or found[4])
        return artifact.sha256.hex() if found[1] == "sha256" else str(artifact.size)

    return _CALL.sub(call, _VARIABLE.sub(variable, text)).encode()


def _named(known: Mapping[str, Artifact], name: str) -> Artifact:
    if name not in known:
        have = ", ".join(sorted(known)) or "none"
        raise UnlistedError(f"the template names the artifact {name!r}; given are: {have}", cure="add it to the bundle")
    return known[name]


def _entries(tree: Tree) -> Iterator[dict[str, Value]]:
    """Every group anywhere that has a filename."""
    waiting: list[Value] = [tree.software]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("filename"), str):
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _complete(entry: dict[str, Value], known: Mapping[str, Artifact]) -> bool:
    """Fill in the digest and size of one entry. True if its text must be written anew for that."""
    artifact = _named(known, str(entry["filename"]))
    digest = entry.get("sha256")
    changed = False
    if isinstance(digest, str) and (marked := _MARK.match(digest)):
        artifact_of_mark = _named(known, marked[1])
        digest = entry["sha256"] = artifact_of_mark.sha256.hex()
        changed = True
    if digest is None or digest == "":
        entry["sha256"] = artifact.sha256.hex()
        changed = True
    elif not isinstance(digest, str) or digest.lower() != artifact.sha256.hex():
        raise DigestError(
            f"the template gives sha256 {digest!r} for {artifact.name}, which is {artifact.sha256.hex()}",
            cure="remove the attribute to have it filled in, or add the file that was meant",
        )
    size = entry.get("size")
    if isinstance(size, str) and (size.isdecimal() or _MARK.match(size)):
        marked_size = _MARK.match(size)
        size = entry["size"] = _named(known, marked_size[1]).size if marked_size else int(size[:20])
        changed = True
    if size is not None and size != artifact.size:
        raise DigestError(
            f"the template gives size {size!r} for {artifact.name}, which has {artifact.size} bytes",
            cure="remove the attribute or mend it",
        )
    return changed
