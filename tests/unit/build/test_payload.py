# SPDX-License-Identifier: Apache-2.0
"""Android's update payloads: every known operation is executed, and the image turned into a COW file."""

from __future__ import annotations

import bz2
import hashlib
import json
import lzma
import random
import struct
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from commands import regraft
from deltas import base_of, merged
from payloads import BLOCK, PayloadMaker, bsdiff

from regraft.build.android_cow import Options
from regraft.build.payload import Installer, partition_of, read_payload, to_cow
from regraft.errors import DigestError, FormatError, LimitError, RegraftError, UnsupportedError, UsageError
from regraft.formats import payload as form
from regraft.formats.protobuf import bytes_field, number_field
from regraft.limits import DEFAULT
from regraft.testing.memory import MemoryMedium

CHANCE = random.Random(1)
OLD = CHANCE.randbytes(16 * BLOCK)
LITERAL = CHANCE.randbytes(2 * BLOCK - 500)


def plus(old: bytes, new: bytes) -> bytes:
    return bytes((b - a) % 256 for a, b in zip(old, new, strict=True))


def made() -> tuple[bytes, bytes]:
    """A delta payload with an operation of each known kind, and the image that it makes."""
    edited = bytearray(OLD[8 * BLOCK : 10 * BLOCK])
    edited[100] ^= 7
    new = b"".join(
        (
            LITERAL + bytes(500),
            bytes(BLOCK),
            OLD[3 * BLOCK : 4 * BLOCK] + OLD[BLOCK : 2 * BLOCK],
            b"bz" * 2048,
            b"xz" * 2048,
            bytes(edited),
            bytes(edited),
            bytes(BLOCK),
        )
    )
    maker = PayloadMaker()
    maker.add(form.REPLACE, [(0, 2)], data=LITERAL)
    maker.add(form.ZERO, [(2, 1)])
    digest = hashlib.sha256(OLD[3 * BLOCK : 4 * BLOCK] + OLD[BLOCK : 2 * BLOCK]).digest()
    maker.add(form.SOURCE_COPY, [(3, 2)], source=[(3, 1), (1, 1)], source_digest=digest)
    maker.add(form.REPLACE_BZ, [(5, 1)], data=bz2.compress(b"bz" * 2048))
    maker.add(form.REPLACE_XZ, [(6, 1)], data=lzma.compress(b"xz" * 2048, check=lzma.CHECK_CRC32))
    source = [(8, 2)]
    steps = [(plus(OLD[8 * BLOCK : 10 * BLOCK], bytes(edited)), b"", 0)]
    maker.add(form.SOURCE_BSDIFF, [(7, 1), (8, 1)], data=bsdiff(steps), source=source)
    maker.add(form.BROTLI_BSDIFF, [(9, 2)], data=bsdiff(steps, names="bnz"), source=source)
    maker.add(form.DISCARD, [(11, 1)])
    return maker.build(OLD, new), new


def installed(content: bytes, old: bytes | None = OLD, **limits: int) -> bytes:
    blobs, target = MemoryMedium(content), MemoryMedium()
    bounds = replace(DEFAULT, **limits)  # type: ignore[arg-type]
    payload = read_payload(blobs, limits=bounds)
    partition = partition_of(payload, "system")
    base = MemoryMedium(old) if old is not None else None
    Installer(payload, partition, blobs, base, target, limits=bounds).run()
    return bytes(target.content)


def test_every_known_operation_is_executed() -> None:
    content, new = made()
    assert installed(content) == new
    assert installed(content, OLD + b"behind it") == new


@pytest.mark.parametrize("version", [2, 3])
def test_a_payload_becomes_a_cow_file(version: int) -> None:
    content, new = made()
    out = MemoryMedium()
    found = to_cow(MemoryMedium(content), "system", MemoryMedium(OLD), out, Options(version))
    assert merged(bytes(out.content), OLD, len(new)) == new
    assert found.sidecar.target.matches(new)
    assert base_of(OLD).medium.size == found.sidecar.base_size


def test_a_full_payload_needs_no_old_image() -> None:
    maker = PayloadMaker()
    maker.add(form.REPLACE, [(0, 2)], data=LITERAL)
    maker.add(form.REPLACE_XZ, [(4, 1), (2, 1)], data=lzma.compress(bytes(BLOCK) + b"x" * BLOCK))
    new = LITERAL + bytes(500) + b"x" * BLOCK + bytes(BLOCK) + bytes(BLOCK)
    assert installed(maker.build(None, new, minor=0), None) == new


@pytest.mark.parametrize("kind", [2, 3, 9, 11, 12, 13, 77])
def test_other_operations_are_refused_by_name(kind: int) -> None:
    maker = PayloadMaker()
    maker.add(form.ZERO, [(0, 1)])
    maker.add(kind, [(0, 1)], data=b"x")
    with pytest.raises(UnsupportedError, match=form.NAMES.get(kind, "operation 77")):
        installed(maker.build(OLD, bytes(BLOCK)))


def test_what_must_be_computed_is_refused() -> None:
    for number in (11, 15):
        extra = bytes_field(number, number_field(1, 1) + number_field(2, 1))
        with pytest.raises(UnsupportedError, match="hash tree"):
            installed(PayloadMaker().build(OLD, bytes(BLOCK), extra=extra))


def test_digests_are_compared_everywhere() -> None:
    content, _ = made()
    with pytest.raises(DigestError, match="not the image"):
        installed(content, OLD[:-1] + b"?")
    with pytest.raises(DigestError, match="not the image"):
        installed(content, OLD[:-1])
    at = content.index(LITERAL)
    with pytest.raises(DigestError, match="differ from their digest"):
        installed(content[:at] + b"?" + content[at + 1 :])
    for options, image, words in (
        ({"data": b"y" * BLOCK, "digest": bytes(32)}, b"y" * BLOCK, "differ from their digest"),
        ({"data": b"y" * BLOCK}, b"z" * BLOCK, "the manifest's digest"),
    ):
        maker = PayloadMaker()
        maker.add(form.REPLACE, [(0, 1)], **options)  # type: ignore[arg-type]
        with pytest.raises(DigestError, match=words):
            installed(maker.build(OLD, image))
    maker = PayloadMaker()
    maker.add(form.SOURCE_COPY, [(0, 1)], source=[(0, 1)], source_digest=bytes(32))
    with pytest.raises(DigestError, match="SOURCE_COPY"):
        installed(maker.build(OLD, OLD[:BLOCK]))
    with pytest.raises(UsageError, match="old image"):
        installed(content, None)


@pytest.mark.parametrize(
    ("kind", "target", "options"),
    [
        (form.REPLACE, [(0, 1)], {"data": bytes(BLOCK + 1)}),
        (form.REPLACE, [(5, 1)], {"data": bytes(BLOCK)}),
        (form.REPLACE, [((1 << 64) - 2, 1)], {"data": bytes(BLOCK)}),
        (form.REPLACE_BZ, [(0, 1)], {"data": bz2.compress(bytes(1 << 20))}),
        (form.REPLACE_BZ, [(0, 1)], {"data": b"nonsense"}),
        (form.REPLACE_XZ, [(0, 1)], {"data": lzma.compress(bytes(50 << 20))}),
        (form.ZERO, [(0, 3)], {}),
        (form.ZERO, [(1 << 50, 1)], {}),
        (form.SOURCE_COPY, [(0, 1)], {"source": [(0, 2)]}),
        (form.SOURCE_COPY, [(0, 1)], {"source": [(16, 1)]}),
        (form.SOURCE_COPY, [(0, 1 << 50)], {"source": [(0, 1 << 50)]}),
        (form.SOURCE_BSDIFF, [(0, 1)], {"source": [(0, 1)], "data": b"BSDIFF41" + bytes(24)}),
        (form.SOURCE_BSDIFF, [(0, 1)], {"source": [(0, 1)], "data": bsdiff([(bytes(BLOCK), b"x", 0)])}),
    ],
    ids=str,
)
def test_an_operation_outside_of_its_bounds_is_refused(kind: int, target: object, options: dict[str, object]) -> None:
    maker = PayloadMaker()
    maker.add(kind, target, **options)  # type: ignore[arg-type]
    with pytest.raises((FormatError, LimitError)):
        installed(maker.build(OLD, bytes(2 * BLOCK)))


def test_holes_are_zeros_and_nothing() -> None:
    maker = PayloadMaker()
    maker.add(form.SOURCE_COPY, [(0, 1), (form.HOLE, 1), (1, 1)], source=[(1, 1), (2, 1), (form.HOLE, 1)])
    new = OLD[BLOCK : 2 * BLOCK] + bytes(BLOCK)
    assert installed(maker.build(OLD, new)) == new


def test_a_payload_is_not_believed_beyond_the_limits() -> None:
    content, _ = made()
    for limits in ({"chunks": 9}, {"header_size": 99}, {"patched_size": BLOCK}, {"image_size": 1000}, {"artifacts": 0}):
        with pytest.raises(LimitError):
            installed(content, **limits)
    with pytest.raises(LimitError):
        form.parse_head(b"CrAU" + struct.pack(">QQI", 2, 1 << 60, 0))
    with pytest.raises(UnsupportedError, match="major version 1"):
        form.parse_head(b"CrAU" + struct.pack(">QQI", 1, 1, 0))


def test_a_payload_survives_every_cut_and_flip() -> None:
    content, new = made()
    head = form.parse_head(content)
    for size in range(0, len(content), 5 if len(content) < 20_000 else 97):
        with pytest.raises(RegraftError):
            installed(content[:size])
    for bit in range(8 * (24 + head.manifest_size)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        with suppress(RegraftError):
            assert len(installed(bytes(flipped), patched_size=1 << 20, image_size=1 << 20)) in (len(new), 1 << 20)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    content, new = made()
    (tmp_path / "payload.bin").write_bytes(content)
    (tmp_path / "old").write_bytes(OLD)
    (tmp_path / "new").write_bytes(new)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_verb_convert_makes_a_file_that_applies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ("-f", "cow", "--partition", "system", "--base", "old")
    assert regraft("convert", "payload.bin", *base, "-o", "cow", "--json") == 0
    assert json.loads(capsys.readouterr().out)["format"] == "cow 3"
    assert regraft("apply", "cow", "--base", "old", "-o", "out") == 0
    assert (folder / "out").read_bytes() == (folder / "new").read_bytes()
    assert regraft("convert", "payload.bin", "-f", "cow", "--partition", "vendor", "--base", "old", "-o", "x") == 2
    assert "it has system" in capsys.readouterr().err
    assert regraft("convert", "payload.bin", "-f", "cow", "--partition", "system", "--base", "new", "-o", "x") == 22
    assert regraft("convert", "payload.bin", *base, "-o", "old") == 2
    assert regraft("convert", "payload.bin", "-o", "x.cow") == 2
    assert regraft("convert", "payload.bin", "--base", "old", "-o", "x.zck") == 2
    assert not (folder / "x").exists()


def test_inspect_shows_partitions_and_operations(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert regraft("inspect", "payload.bin", "--json") == 0
    (partition,) = json.loads(capsys.readouterr().out)["partitions"]
    assert partition["name"] == "system"
    assert partition["operations"]["SOURCE_BSDIFF"] == 1
    assert regraft("inspect", "payload.bin") == 0
    assert "1 BROTLI_BSDIFF" in capsys.readouterr().out
