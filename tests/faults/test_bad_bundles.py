# SPDX-License-Identifier: Apache-2.0
"""Bad input, given to the command line: a typed error with its cause and its cure, and the target as it was.

Or, where bytes were already moving, a target that the same command finishes once the input is good.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from commands import regraft
from images import Artifact, pack
from loops import loop_device, mounted
from made_bundles import bundle, cms_signer, describe
from pki import root, self_signed
from quirky_server import Exchange, QuirkyServer

from regraft.build import description as builder
from regraft.build.zchunk import Options
from regraft.formats import zchunk
from regraft.model import Algorithm, DigestColumn
from regraft.server.static import StaticServer

#: Statuses that say "these bytes are wrong": malformed, unsupported, too large, not verified.
REFUSED = {10, 11, 12, 20, 21, 22, 23}
BEFORE = b"what was in the target before" * 50


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Device:
    """A folder with a source, a target and a trusted certificate, and a server with the artifact."""

    def __init__(self, folder: Path, server: StaticServer, capsys: pytest.CaptureFixture[str]) -> None:
        chance = random.Random(4)
        self.folder, self.server, self._capsys = folder, server, capsys
        self.old = chance.randbytes(250_000)
        self.new = self.old[:120_000] + chance.randbytes(60_000) + self.old[120_000:] + bytes(40_000)
        self.target = folder / "target"
        self.target.write_bytes(BEFORE)
        (folder / "source").write_bytes(self.old)
        (folder / "cert.pem").write_bytes(self_signed().pem)
        self.artifact = pack(self.new)
        self.publish(self.artifact.content)

    @property
    def header(self) -> bytes:
        return self.artifact.content[: self.artifact.header.size]

    def publish(self, content: bytes) -> None:
        (self.folder / "www/new.zck").write_bytes(content)

    def description(self, header: bytes | None = None, **settings: object) -> bytes:
        header = self.header if header is None else header
        request = builder.DeltaRequest(
            header=builder.Artifact("header", len(header), sha256(header)),
            url=f"{self.server.url}/new.zck",
            source=str(self.folder / "source"),
            version="2.0",
            path=str(self.target),
            chain="rawfile",
            hardware=("1.0",),
        )
        return builder.describe_delta(replace(request, **settings))  # type: ignore[arg-type]

    def bundle(self, header: bytes | None = None, **settings: object) -> bytes:
        header = self.header if header is None else header
        return bundle({"header": header}, self.description(header, **settings), cms_signer())

    def install(self, content: bytes | None = None) -> int:
        (self.folder / "update.swu").write_bytes(self.bundle() if content is None else content)
        options = ("-k", self.folder / "cert.pem", "-H", "board:1.0", "--progress", "none")
        return regraft("install", "-i", self.folder / "update.swu", *options)

    def words(self) -> str:
        return self._capsys.readouterr().err

    def refuses(self, content: bytes | None, *statuses: int) -> str:
        """The install ends with one of the statuses, says why and what to do, and has not touched the target."""
        words = self.fails(content, *statuses)
        assert self.target.read_bytes() == BEFORE
        return words

    def fails(self, content: bytes | None, *statuses: int) -> str:
        self.words()
        status = self.install(content)
        words = self.words()
        assert status in (statuses or REFUSED), words
        assert words.startswith("regraft: ")
        assert "  cure: " in words
        assert "Traceback" not in words
        return words

    def succeeds(self, content: bytes | None = None) -> None:
        assert self.install(content) == 0, self.words()
        assert self.target.read_bytes() == self.new
        assert {name for name in os.listdir(self.folder) if name.startswith("target")} == {
            "target",
            "target.regraft.index",
        }

    def reset(self) -> None:
        for path in self.folder.glob("target.*"):
            path.unlink()
        self.target.write_bytes(BEFORE)


@pytest.fixture
def device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Device]:
    (tmp_path / "www").mkdir()
    with StaticServer(tmp_path / "www") as server:
        yield Device(tmp_path, server, capsys)


# truncated or flipped at any byte


def headers_of(archive: bytes) -> set[int]:
    """Offsets of the cpio headers' bytes, names included."""
    found: set[int] = set()
    at = 0
    while archive[at : at + 6] == b"070702":
        size, length = int(archive[at + 54 : at + 62], 16), int(archive[at + 94 : at + 102], 16)
        found |= set(range(at, at + 110 + length))
        data = at + (110 + length + 3) // 4 * 4
        at = data + (size + 3) // 4 * 4
    return found


def test_a_bundle_cut_anywhere_is_refused(device: Device) -> None:
    content = device.bundle()
    end = content.rindex(b"TRAILER!!!") + len(b"TRAILER!!!")  # what follows is padding
    for cut in [*range(0, end, 29), *range(end - 120, end)]:
        device.refuses(content[:cut], 10, 21)


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 13])
def test_a_flipped_byte_is_refused_or_means_nothing(every: int, device: Device) -> None:
    content = bytearray(device.bundle())
    headers = headers_of(bytes(content))
    end = content.rindex(b"TRAILER!!!")
    harmless = 0
    for at in range(0, len(content), every):
        content[at] ^= 1 << at % 8
        status = device.install(bytes(content))
        words = device.words()
        if status == 0:  # a time, an owner, padding: what SWUpdate ignores, too
            assert at in headers or content[at - 1] == 0 or at > end
            assert device.target.read_bytes() == device.new
            device.reset()
            harmless += 1
        else:
            assert status in REFUSED, f"at byte {at}: {words}"
            assert "  cure: " in words
            assert "Traceback" not in words
            assert device.target.read_bytes() == BEFORE
        content[at] ^= 1 << at % 8
    assert 0 < harmless < len(headers)


def test_a_flipped_stored_byte_is_refused_and_the_rest_is_kept(device: Device) -> None:
    good = device.artifact.content
    fetched = range(device.artifact.header.size, len(good), 9001)
    outcomes = set()
    for at in fetched:
        device.publish(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        status = device.install()
        words = device.words()
        outcomes.add(status)
        assert status in (0, 22), words  # 0: no byte of that chunk was needed
        if status:
            assert "differ from their signed digest" in words
            device.publish(good)
            device.succeeds()
        device.reset()
    assert outcomes == {0, 22}


def test_an_artifact_cut_on_the_server_is_refused_and_resumable(device: Device) -> None:
    good = device.artifact.content
    for cut in (0, 1, device.artifact.header.size, len(good) // 2, len(good) - 1):
        device.publish(good[:cut])
        device.fails(None, 40, 41, 43)
        device.publish(good)
        device.succeeds()
        device.reset()


@pytest.mark.parametrize("verb", ["unpack", "plan", "inspect", "header"])
def test_a_flipped_header_is_refused_by_every_verb(
    verb: str, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(device.artifact.content)
    bad, out = device.folder / "bad.zck", device.folder / "out"
    options = ("-o", out) if verb in ("unpack", "header") else ()
    for at in range(0, device.artifact.header.size, 1 if verb == "unpack" else 11):
        content[at] ^= 1 << at % 8
        bad.write_bytes(content)
        status = regraft(verb, bad, *options)
        words = capsys.readouterr()
        assert status in REFUSED, f"at byte {at}: {words.err}"
        assert "  cure: " in words.err
        assert words.out == ""
        assert not out.exists()
        content[at] ^= 1 << at % 8


def test_a_cut_file_is_refused_by_every_verb(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    content, bad, out = device.artifact.content, device.folder / "bad.zck", device.folder / "out"
    for cut in [*range(0, device.artifact.header.size, 7), len(content) - 1]:
        bad.write_bytes(content[:cut])
        for verb in ("unpack", "plan"):
            assert regraft(verb, bad, *(("-o", out) if verb == "unpack" else ())) == 10
            assert "  cure: " in capsys.readouterr().err
        assert not out.exists()


# lengths that lie, in headers whose digests are right


def forged(artifact: Artifact, change: Callable[[zchunk.Header], zchunk.Header]) -> bytes:
    return zchunk.build_header(change(artifact.header))


def with_length(header: zchunk.Header, chunk: int, *, stored: int = 0, length: int = 0) -> zchunk.Header:
    at_rest, lengths = header.stored[:], header.lengths[:]
    at_rest[chunk] += stored
    lengths[chunk] += length
    return replace(header, stored=at_rest, lengths=lengths)


@pytest.mark.parametrize(
    ("stored", "length", "statuses"),
    [
        (0, 1, (10,)),
        (0, -1, (10,)),
        (1, 0, (22, 40, 43)),
        (-1, 0, (22, 40, 43)),
        (0, 1 << 31, (12,)),
        (1 << 31, 0, (12,)),
    ],
)
def test_a_header_whose_lengths_lie(device: Device, stored: int, length: int, statuses: tuple[int, ...]) -> None:
    chunk = len(device.artifact.header) - 4  # one that must be fetched
    assert device.artifact.header.digests[chunk] not in {sha256(device.old)}
    (device.folder / "source").write_bytes(b"")
    header = forged(device.artifact, lambda header: with_length(header, chunk, stored=stored, length=length))
    device.fails(device.bundle(header), *statuses)
    device.succeeds()


def test_a_header_that_is_longer_than_it_says(device: Device) -> None:
    words = device.refuses(device.bundle(device.header + b"more"), 10)
    assert "4 bytes after the zchunk header" in words


def test_an_image_size_that_lies(device: Device) -> None:
    device.refuses(device.bundle(image_size=len(device.new) + 1), 10)


def test_a_signed_digest_of_another_image(device: Device) -> None:
    device.fails(device.bundle(image_sha256=sha256(b"another")), 22)
    device.succeeds()


@pytest.mark.parametrize("size", ["00000001", "0000ffff", "ffffffff", "xxxxxxxx", "-0000001"])
def test_a_member_whose_size_lies(device: Device, size: str) -> None:
    content = device.bundle()
    for at in [index for index in range(len(content)) if content[index : index + 6] == b"070702"]:
        device.refuses(content[: at + 54] + size.encode() + content[at + 62 :], 10, 12, 21, 22)


# signatures


def test_signatures(device: Device) -> None:
    description, files = device.description(), {"header": device.header}
    good = cms_signer().sign(description)

    class Signed:
        def __init__(self, signature: bytes) -> None:
            self._signature = signature

        def sign(self, _description: bytes, /) -> bytes:
            return self._signature

    other = cms_signer().sign(describe(files))
    cases = {
        "no signature": bundle(files, description),
        "too short": bundle(files, description, Signed(b"\n")),
        "not trusted": bundle(files, description, cms_signer(root())),
        "over something else": bundle(files, description, Signed(other)),
        "cut": bundle(files, description, Signed(good[:-1])),
    }
    for name, content in cases.items():
        assert device.refuses(content, 21), name
    (device.folder / "cert.pem").write_bytes(root().pem)
    device.refuses(None, 21)
    (device.folder / "cert.pem").write_bytes(self_signed().pem)
    device.succeeds()


def test_a_description_that_was_changed_after_it_was_signed(device: Device) -> None:
    content = device.bundle()
    at = content.index(b"rawfile")
    device.refuses(content[:at] + b"rawfilE" + content[at + 7 :], 10)  # cpio's own checksum is first


# artifacts


def test_an_artifact_that_is_not_listed(device: Device) -> None:
    files = {"header": device.header, "more": b"nobody signed this"}
    device.refuses(bundle(files, device.description(), cms_signer()), 23)


def test_an_artifact_that_is_listed_and_not_there(device: Device) -> None:
    device.refuses(bundle({}, device.description(), cms_signer()), 10)


def test_an_artifact_under_another_name_than_was_signed(device: Device) -> None:
    device.refuses(bundle({"other": device.header}, device.description(), cms_signer()), 23)


def test_another_artifact_than_was_signed(device: Device) -> None:
    device.refuses(bundle({"header": device.header[:-1] + b"?"}, device.description(), cms_signer()), 22)


@pytest.mark.parametrize("name", ["../header", "a/../../header", "/header", "a/.."])
def test_a_member_that_would_leave_its_folder(device: Device, name: str) -> None:
    content = device.bundle()
    short = name.encode().ljust(6, b"x")[: len(name)]
    description = device.description().replace(b'"header"', b'"' + short + b'"')
    made = bundle({"h" * len(short): device.header}, description, cms_signer())
    assert content != made
    device.refuses(made.replace(b"h" * len(short) + b"\0", short + b"\0"), 10)
    assert not (device.folder.parent / "header").exists()


def test_a_path_that_would_leave_its_folder(device: Device) -> None:
    device.refuses(device.bundle(path=f"{device.folder}/../{device.folder.name}/target"), 10)
    device.refuses(device.bundle(path="target"), 10)


def test_a_handler_that_is_not_there(device: Device) -> None:
    device.refuses(device.bundle(chain="ubivol", device="/dev/ubi0_1"), 70)


@pytest.mark.parametrize("second", ["damaged", "bad handler", "bad url", "no digest"])
def test_nothing_is_written_while_anything_is_wrong(second: str, device: Device) -> None:
    first = f'{{ filename = "first"; path = "{device.target}"; sha256 = "{sha256(b"first").hex()}"; }}'
    digest = "" if second == "no digest" else f'sha256 = "{sha256(device.header).hex()}";'
    kind = "nobody" if second == "bad handler" else "delta"
    url = "gopher://x/" if second == "bad url" else f"{device.server.url}/new.zck"
    properties = f'url = "{url}"; source = "{device.folder}/source"; chain = "rawfile";'
    place = f'path = "{device.folder}/other"; {digest}'
    other = f'{{ filename = "header"; type = "{kind}"; {place} properties: {{ {properties} }}; }}'
    text = f'software = {{ version = "1"; hardware-compatibility = ["1.0"]; files: ( {first}, {other} ); }};'
    header = device.header[:-1] + b"?" if second == "damaged" else device.header
    content = bundle({"first": b"first", "header": header}, text.encode(), cms_signer())
    device.refuses(content, 10, 22, 23, 70)
    assert not (device.folder / "other").exists()


# chunk bombs: header and stored digest are right, only the frame decodes to more than the header says


def bomb(frame: bytes, image: bytes, length: int) -> bytes:
    """The header of a file whose one chunk, `length` bytes that begin like `image`, is stored as `frame`."""
    empty = pack(b"").header
    digests = DigestColumn(Algorithm.SHA256, bytes(32) + sha256(image))
    stored_digests = DigestColumn(Algorithm.SHA256, bytes(32) + sha256(frame))
    stored, lengths = empty.stored[:], empty.lengths[:]
    stored.append(len(frame))
    lengths.append(length)
    header = replace(empty, stored=stored, lengths=lengths, digests=digests, stored_digests=stored_digests)
    return zchunk.build_header(header)


def zeros_frame(size: int, *, claimed: bool) -> bytes:
    compressor = zstandard.ZstdCompressor(level=1, write_content_size=claimed)
    stream = compressor.compressobj(size=size if claimed else -1)
    frame = b"".join(stream.compress(bytes(1 << 20)) for _ in range(size >> 20))
    return frame + stream.flush()


@pytest.mark.parametrize("claimed", [True, False], ids=["claimed", "hidden"])
def test_a_chunk_that_decodes_to_more_than_it_says(device: Device, claimed: bool) -> None:
    frame = zeros_frame(64 << 20, claimed=claimed)
    header = bomb(frame, b"not zeros, which need no chunk".ljust(5000), 5000)
    device.publish(header + frame)
    words = device.fails(device.bundle(header), 10)
    assert "a unit of 5000 bytes" in words


def test_a_chunk_that_says_it_is_enormous(device: Device) -> None:
    frame = zeros_frame(64 << 20, claimed=True)
    words = device.refuses(device.bundle(bomb(frame, b"", 64 << 20)), 12)
    assert "67108864 uncompressed bytes" in words


# URLs and servers


def test_a_url_that_is_not_there(device: Device) -> None:
    words = device.fails(device.bundle(url=f"{device.server.url}/nothing.zck"), 41)
    assert "404" in words
    device.succeeds()


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/new.zck", "gopher://127.0.0.1/"])
def test_a_redirect_to_another_scheme(device: Device, location: str) -> None:
    def script(exchange: Exchange) -> None:
        exchange.reply(302, [f"Location: {location}"])

    with QuirkyServer(device.artifact.content, script) as server:
        words = device.fails(device.bundle(url=f"{server.url}/new.zck"), 44)
    assert location.partition(":")[0] in words
    device.succeeds()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "/new.zck", "http://a b/"])
def test_a_url_that_is_none(device: Device, url: str) -> None:
    device.refuses(device.bundle(url=url), 10)


# sources


def test_a_source_that_is_not_there_costs_a_download(device: Device) -> None:
    (device.folder / "source").unlink()
    device.succeeds()


def test_a_changed_source_costs_what_changed(device: Device) -> None:
    device.succeeds()  # keeps no index of the source, but of the target
    device.reset()
    changed = bytearray(device.old)
    for at in range(0, len(changed), 50_000):
        changed[at] ^= 1
    (device.folder / "source").write_bytes(changed)
    device.succeeds()


@pytest.mark.parametrize("size", [0, 1000, 200_000])
def test_a_source_that_shrinks_at_any_moment_costs_a_download(device: Device, size: int) -> None:
    chance = random.Random(size)
    for _ in range(8):
        (device.folder / "source").write_bytes(device.old)
        moment = chance.uniform(0, 0.06)

        def shrink(moment: float = moment) -> None:
            time.sleep(moment)
            os.truncate(device.folder / "source", size)

        thread = threading.Thread(target=shrink)
        thread.start()
        device.succeeds()
        thread.join()
        device.reset()


# targets


def test_a_target_that_is_too_small(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_STATE", str(device.folder / "state"))
    slot = device.folder / "slot"
    slot.write_bytes(b"\xaa" * 204_800)
    with loop_device(slot) as path:
        content = device.bundle(chain="raw", path="", device=path)
        words = device.fails(content, 51)
    assert "204800" in words
    assert slot.read_bytes() == b"\xaa" * 204_800


def test_a_target_that_is_not_there(device: Device) -> None:
    device.refuses(device.bundle(chain="raw", path="", device="/dev/there-is-no-such-device"), 50)
    device.refuses(device.bundle(path=str(device.folder / "no" / "such" / "folder")), 50)
    device.refuses(device.bundle(path=str(device.folder / "www")), 50)


def test_no_space_for_the_target(device: Device) -> None:
    with mounted(device.folder / "small", "-t", "tmpfs", "-o", "size=128k", "none") as small:
        content = device.bundle(path=str(small / "target"))
        device.fails(content, 53)
        os.system(f"mount -o remount,size=2m {small}")
        assert device.install(content) == 0, device.words()
        assert (small / "target").read_bytes() == device.new


def test_no_space_for_the_temporary_copy(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    header = pack(random.Random(1).randbytes(3_000_000), Options(chunk_digest=Algorithm.SHA512)).header
    with mounted(device.folder / "small", "-t", "tmpfs", "-o", "size=4k", "none") as small:
        monkeypatch.setattr("tempfile.tempdir", str(small))
        device.refuses(device.bundle(zchunk.build_header(header)), 53)


def test_a_target_that_somebody_else_writes(device: Device) -> None:
    import fcntl

    with open(device.target, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        device.refuses(None, 61)
    device.succeeds()
