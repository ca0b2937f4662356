# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import threading
from collections.abc import Callable

import pytest
import zstandard
from made_bundles import FILES, bundle, cms_signer, describe, policy
from pki import NOW, key, root, self_signed

from regraft.build.bundle import RsaSigner
from regraft.crypto.aes import AesKey, encrypt
from regraft.crypto.trust import Trust
from regraft.errors import (
    DigestError,
    FormatError,
    LimitError,
    RegraftError,
    SignatureError,
    SourceError,
    UnlistedError,
    UnsupportedError,
    UsageError,
)
from regraft.formats import cpio
from regraft.limits import Limits
from regraft.swupdate.bundle import (
    BundleReader,
    SignaturePolicy,
    check_complete,
    open_artifact,
    read_bundle,
    spool,
)
from regraft.swupdate.description import parse
from regraft.swupdate.listing import listed_digests


def contents(reader: BundleReader) -> dict[str, bytes]:
    return {artifact.name: b"".join(artifact.pieces(100)) for artifact in reader.members()}


def archive(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    writer = cpio.Writer(out.write)
    for name, data in members:
        writer.add(name, len(data), cpio.checksum(data), [data])
    writer.close()
    return out.getvalue()


def test_a_signed_bundle_is_read() -> None:
    reader = read_bundle(io.BytesIO(bundle(signer=cms_signer())), policy())
    assert reader.description == describe(FILES)
    assert reader.signer is not None
    assert reader.signer.name == "Self rsa2048"
    assert contents(reader) == FILES


@pytest.mark.parametrize("padding", ["rsa", "rsa-pss"])
@pytest.mark.parametrize("mode", ["auto", "same"])
def test_a_bundle_signed_with_a_bare_key_is_read(padding: str, mode: str) -> None:
    data = bundle(signer=RsaSigner(key("Root"), padding))  # type: ignore[arg-type]
    trusted = SignaturePolicy(Trust.load(root().public_pem), NOW, padding if mode == "same" else "auto")  # type: ignore[arg-type]
    reader = read_bundle(io.BytesIO(data), trusted)
    assert reader.signer is not None
    assert reader.signer.method == padding


def test_a_pipe_is_enough() -> None:
    out, into = os.pipe()
    data = bundle(signer=cms_signer())

    def feed() -> None:
        with open(into, "wb", buffering=0) as pipe:
            for position in range(0, len(data), 333):
                pipe.write(data[position : position + 333])

    thread = threading.Thread(target=feed)
    thread.start()
    with open(out, "rb", buffering=0) as pipe:
        assert contents(read_bundle(pipe, policy())) == FILES
    thread.join()


def test_an_unsigned_bundle_is_read_only_on_purpose() -> None:
    data = bundle()
    reader = read_bundle(io.BytesIO(data), unsigned=True)
    assert (reader.signer, reader.signature) == (None, None)
    assert contents(reader) == FILES
    with pytest.raises(UsageError):
        read_bundle(io.BytesIO(data))
    with pytest.raises(UsageError):
        read_bundle(io.BytesIO(data), policy(), unsigned=True)
    with pytest.raises(SignatureError, match="has no signature"):
        read_bundle(io.BytesIO(data), policy())


def test_an_unsigned_look_at_a_signed_bundle_gives_no_signer() -> None:
    reader = read_bundle(io.BytesIO(bundle(signer=cms_signer())), unsigned=True)
    assert reader.signer is None
    assert reader.signature
    assert contents(reader) == FILES


DESCRIPTION = describe(FILES)
GOOD = cms_signer().sign(DESCRIPTION)


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([("a", b"x"), ("sw-description", DESCRIPTION), ("sw-description.sig", GOOD)], id="late"),
        pytest.param([("sw-description.sig", GOOD), ("sw-description", DESCRIPTION)], id="signature first"),
        pytest.param([], id="nothing"),
    ],
)
def test_the_description_must_come_first(members: list[tuple[str, bytes]]) -> None:
    with pytest.raises(FormatError, match="first member"):
        read_bundle(io.BytesIO(archive(*members)), policy())


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        pytest.param(GOOD[:-1], "damaged", id="cut"),
        pytest.param(b"\0", "damaged", id="a byte"),
        pytest.param(cms_signer().sign(DESCRIPTION + b" "), "other content", id="over other content"),
        pytest.param(cms_signer(root()).sign(DESCRIPTION), "not trusted", id="by nobody trusted"),
    ],
)
def test_a_wrong_signature_stops_before_the_description_is_given_out(signature: bytes, words: str) -> None:
    data = archive(("sw-description", DESCRIPTION), ("sw-description.sig", signature), *FILES.items())
    with pytest.raises(SignatureError, match=words):
        read_bundle(io.BytesIO(data), policy())


def test_the_signature_must_be_second() -> None:
    data = archive(("sw-description", DESCRIPTION), ("kernel.bin", b"x"), ("sw-description.sig", GOOD))
    with pytest.raises(SignatureError, match="second member"):
        read_bundle(io.BytesIO(data), policy())
    with pytest.raises(FormatError, match="not the second"):
        contents(read_bundle(io.BytesIO(data), unsigned=True))


def test_an_empty_signature_is_none() -> None:
    data = bundle(signer=cms_signer())
    start = data.index(b"070702", 200)
    header = data[start : start + 110]
    empty = header[:54] + b"00000000" + header[62:102] + b"00000000" + b"sw-description.sig\0"
    end = data.index(b"070702", start + 110)
    forged = data[:start] + empty + bytes(-len(empty) % 4) + data[end:]
    with pytest.raises(SignatureError, match="empty"):
        read_bundle(io.BytesIO(forged), policy())


def test_descriptions_and_signatures_are_limited() -> None:
    data = bundle(signer=cms_signer())
    for limits, words in (
        (Limits(description_size=50), "description_size"),
        (Limits(signature_size=50), "signature_size"),
    ):
        with pytest.raises(LimitError, match=words):
            read_bundle(io.BytesIO(data), policy(), limits=limits)


def test_a_name_cannot_be_asked_of_a_bare_key() -> None:
    data = bundle(signer=RsaSigner(key("Root")))
    with pytest.raises(SignatureError, match="no signer's name"):
        read_bundle(io.BytesIO(data), SignaturePolicy(Trust.load(root().public_pem), NOW, signer_name="Root"))


def test_an_encrypted_description_is_signed_in_the_clear() -> None:
    aes = AesKey(bytes(32), bytes(16))
    sealed = b"".join(encrypt([DESCRIPTION], aes))
    data = archive(("sw-description", sealed), ("sw-description.sig", GOOD), *FILES.items())
    assert read_bundle(io.BytesIO(data), policy(), description_key=aes).description == DESCRIPTION
    with pytest.raises(SignatureError):
        read_bundle(io.BytesIO(data), policy())


def test_a_failing_source_is_an_error_of_ours() -> None:
    class Failing(io.BytesIO):
        def read(self, count: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(SourceError, match="Input/output error"):
        read_bundle(Failing(), policy())


def test_an_artifact_cannot_be_read_late() -> None:
    reader = read_bundle(io.BytesIO(bundle()), unsigned=True)
    first, _ = list(reader.members())
    with pytest.raises(ValueError, match="went on"):
        first.read(1)


CODECS: list[tuple[str | None, Callable[[bytes], bytes]]] = [
    (None, bytes),
    ("zlib", lambda data: gzip.compress(data, 1)),
    ("xz", lzma.compress),
    ("zstd", zstandard.compress),
]
CONTENT = os.urandom(3000) + bytes(400_000)


@pytest.mark.parametrize(("codec", "compress"), CODECS)
@pytest.mark.parametrize("aes", [None, AesKey(bytes(32), bytes(16)), AesKey(bytes(16), bytes(16), "ctr")])
@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_an_artifact_is_hashed_decrypted_and_decompressed(
    codec: str | None, compress: Callable[[bytes], bytes], aes: AesKey | None, step: int
) -> None:
    stored = compress(CONTENT)
    if aes:
        stored = b"".join(encrypt([stored], aes))
    pieces = [stored[i : i + step] for i in range(0, len(stored), step)]
    sha256 = hashlib.sha256(stored).digest()
    opened = open_artifact(pieces, name="a", sha256=sha256, encrypted=aes, compressed=codec)  # type: ignore[arg-type]
    assert b"".join(opened) == CONTENT
    wrong = hashlib.sha256(b"").digest()
    with pytest.raises(DigestError):
        list(open_artifact(pieces, name="a", sha256=wrong, encrypted=aes, compressed=codec))  # type: ignore[arg-type]


@pytest.mark.parametrize(("codec", "compress"), CODECS[1:])
def test_damaged_bytes_are_a_matter_of_the_digest_not_of_the_decoder(
    codec: str, compress: Callable[[bytes], bytes]
) -> None:
    stored = compress(CONTENT)
    sha256 = hashlib.sha256(stored).digest()
    for position in range(0, len(stored), 97):
        data = bytearray(stored)
        data[position] ^= 0x10
        with pytest.raises((DigestError, LimitError)):
            list(open_artifact([bytes(data)], name="a", sha256=sha256, compressed=codec))  # type: ignore[arg-type]


@pytest.mark.parametrize(("codec", "compress"), CODECS[1:])
def test_signed_bytes_that_do_not_decode_are_a_matter_of_the_format(
    codec: str, compress: Callable[[bytes], bytes]
) -> None:
    for stored in (compress(CONTENT)[:-1], b"hello", b"", compress(b"x") + b"junk"):
        sha256 = hashlib.sha256(stored).digest()
        with pytest.raises(FormatError):
            list(open_artifact([stored], name="a", sha256=sha256, compressed=codec))  # type: ignore[arg-type]


@pytest.mark.parametrize(("codec", "compress"), CODECS)
def test_no_more_comes_out_than_allowed(codec: str | None, compress: Callable[[bytes], bytes]) -> None:
    stored = compress(bytes(50_000_000))
    opened = open_artifact(
        [stored],
        name="a",
        sha256=hashlib.sha256(stored).digest(),
        compressed=codec,
        maximum=1_000_000,  # type: ignore[arg-type]
    )
    sizes: list[int] = []
    with pytest.raises(LimitError):
        sizes.extend(map(len, opened))
    assert sum(sizes) <= 1_000_000


def test_a_digest_is_needed() -> None:
    for sha256 in (b"", bytes(20), bytes(64)):
        with pytest.raises(UnlistedError):
            open_artifact([], name="a", sha256=sha256)
        with pytest.raises(UnlistedError):
            spool([], name="a", sha256=sha256)


def test_an_unknown_compression_is_refused() -> None:
    stored = b"x"
    with pytest.raises(UnsupportedError):
        list(open_artifact([stored], name="a", sha256=hashlib.sha256(stored).digest(), compressed="lz4"))  # type: ignore[arg-type]


def test_a_spooled_artifact_is_given_only_when_it_is_right() -> None:
    with spool([b"ab", b"c"], name="a", sha256=hashlib.sha256(b"abc").digest()) as file:
        assert file.read() == b"abc"
    with pytest.raises(DigestError):
        spool([b"ab", b"d"], name="a", sha256=hashlib.sha256(b"abc").digest())
    with pytest.raises(LimitError):
        spool([b"abc"], name="a", sha256=bytes(32), limits=Limits(image_size=2))


def test_what_is_listed_must_be_there() -> None:
    check_complete({"a"}, ["a", "b"])
    with pytest.raises(FormatError, match="'b'"):
        check_complete(["a", "b"], {"a"})


def test_no_truncation_of_a_signed_bundle_is_whole() -> None:
    data = bundle({"a": b"x" * 10}, signer=cms_signer())
    end = data.index(b"TRAILER!!!") + 12
    trusted = policy()
    for size in range(0, end - 4, 3):
        with pytest.raises(RegraftError):
            contents(read_bundle(io.BytesIO(data[:size]), trusted))


def test_no_flipped_bit_of_a_signed_bundle_changes_what_it_says() -> None:
    files = {"a": b"x" * 10}
    data = bundle(files, signer=cms_signer())
    trusted = policy()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position * 3 % 8
        try:
            reader = read_bundle(io.BytesIO(flipped), trusted)
            found = contents(reader)
        except RegraftError:
            continue
        assert reader.description == describe(files)
        listed = listed_digests(parse(reader.description))
        honest = {n for n, content in found.items() if listed.get(n) == {hashlib.sha256(content).digest()}}
        assert all(found[name] == files["a"] for name in honest)


def test_self_signed_means_that_certificate() -> None:
    other = policy(self_signed("p256"))
    with pytest.raises(SignatureError, match="not trusted"):
        read_bundle(io.BytesIO(bundle(signer=cms_signer())), other)
