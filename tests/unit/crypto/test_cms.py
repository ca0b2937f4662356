# SPDX-License-Identifier: Apache-2.0
"""What no command makes: signatures put together by hand, and every bit of a good one flipped."""

from __future__ import annotations

import datetime as dt
import hashlib

import pytest
from pki import CODE, EMAIL, NOW, authority, intermediate, issue, leaf, root, self_signed

from regraft.crypto import algorithms, cms, der
from regraft.crypto.cms import SignedData, sign_detached, verify_detached
from regraft.crypto.signer import Signer
from regraft.crypto.trust import Purpose, Trust
from regraft.errors import RegraftError, SignatureError, UsageError
from regraft.limits import Limits

CONTENT = b"software = {};\n"
SHA256 = der.encode(der.SEQUENCE, der.encode_object("2.16.840.1.101.3.4.2.1"))
RSA = der.encode(der.SEQUENCE, der.encode_object(algorithms.RSA_ENCRYPTION), der.encode(der.NULL))


def trust(*pairs: object) -> Trust:
    return Trust.load(b"".join(pair.pem for pair in pairs))  # type: ignore[attr-defined]


def check(signature: bytes, content: bytes = CONTENT, trusted: Trust | None = None, **settings: object) -> Signer:
    settings.setdefault("at", NOW)
    return verify_detached(signature, content, trusted or trust(self_signed()), **settings)  # type: ignore[arg-type]


def good(**settings: object) -> bytes:
    pair = self_signed()
    settings.setdefault("at", NOW)
    return sign_detached(CONTENT, pair.parsed, pair.private, **settings)  # type: ignore[arg-type]


def attribute(name: str, *values: bytes) -> bytes:
    return der.encode(der.SEQUENCE, der.encode_object(name), der.encode_set(*values))


TYPE = attribute(cms.CONTENT_TYPE, der.encode_object(cms.DATA))
DIGEST = attribute(cms.MESSAGE_DIGEST, der.encode(der.OCTET_STRING, hashlib.sha256(CONTENT).digest()))


def by_hand(
    *attributes: bytes,
    version: int = 1,
    content_type: str = cms.DATA,
    signers: int = 1,
    digest: bytes = SHA256,
    scheme: bytes = RSA,
    certificates: int = 1,
    info_version: int = 1,
    outer: str = cms.SIGNED_DATA,
    unsigned: bytes = b"",
) -> bytes:
    """A message by the self-signed signer, right in all that is not asked to be otherwise."""
    pair = self_signed()
    signed = der.encode(der.SET, *attributes) if attributes else b""
    value = algorithms.sign(pair.private, algorithms.Scheme("rsa", "sha256"), signed or CONTENT)
    certificate = pair.parsed
    info = der.encode(
        der.SEQUENCE,
        der.encode_integer(info_version),
        der.encode(der.SEQUENCE, certificate.issuer.encoded, der.encode_integer(certificate.serial)),
        digest,
        bytes((der.context(0),)) + signed[1:] if signed else b"",
        scheme,
        der.encode(der.OCTET_STRING, value),
        unsigned,
    )
    body = der.encode(
        der.SEQUENCE,
        der.encode_integer(version),
        der.encode_set(digest),
        der.encode(der.SEQUENCE, der.encode_object(content_type)),
        der.encode(der.context(0), *[certificate.encoded] * certificates),
        der.encode_set(*[info] * signers),
    )
    return der.encode(der.SEQUENCE, der.encode_object(outer), der.encode(der.context(0), body))


def test_a_good_signature_says_who_made_it() -> None:
    signer = check(good())
    assert (signer.method, signer.name, signer.subject, signer.anchor) == (
        "cms",
        "Self rsa2048",
        "CN=Self rsa2048",
        "CN=Self rsa2048",
    )
    assert signer.key == hashlib.sha256(self_signed().der).hexdigest()
    assert signer.signing_time == NOW
    assert signer.scheme == "rsa-sha256"


def test_the_message_made_by_hand_is_good_when_nothing_is_changed() -> None:
    assert check(by_hand(TYPE, DIGEST)).name == check(by_hand()).name == "Self rsa2048"


def test_the_same_input_is_signed_with_the_same_bytes() -> None:
    assert good() == good()
    assert good(at=None) != good()


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384", "ed25519"])
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("attributes", [True, False])
def test_what_we_sign_we_accept(kind: str, digest: algorithms.DigestName, attributes: bool) -> None:
    pair = self_signed(kind)
    signature = sign_detached(CONTENT, pair.parsed, pair.private, digest=digest, attributes=attributes, at=None)
    assert check(signature, trusted=trust(pair)).signing_time is None
    with pytest.raises(SignatureError):
        check(signature, CONTENT + b"\n", trust(pair))


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        pytest.param(lambda: b"", "empty", id="empty"),
        pytest.param(lambda: by_hand(TYPE, DIGEST, signers=0), "no signer", id="no signer"),
        pytest.param(lambda: by_hand(TYPE, DIGEST, certificates=0), "signer's certificate", id="no certificate"),
        pytest.param(lambda: by_hand(TYPE, DIGEST, certificates=33), "certificates", id="many certificates"),
        pytest.param(lambda: by_hand(TYPE, DIGEST, signers=33), "33|more than 32 signers", id="many signers"),
        pytest.param(lambda: by_hand(TYPE, DIGEST, version=2), "unknown version", id="version"),
        pytest.param(lambda: by_hand(TYPE, DIGEST, info_version=3), "another version", id="a signer's version"),
        pytest.param(lambda: by_hand(TYPE, DIGEST, outer=cms.DATA), "not signed data", id="plain data"),
        pytest.param(lambda: by_hand(TYPE, DIGEST, content_type=cms.SIGNED_DATA), "plain data", id="content type"),
        pytest.param(lambda: by_hand(TYPE), "without content type or message digest", id="no digest"),
        pytest.param(lambda: by_hand(DIGEST), "without content type or message digest", id="no type"),
        pytest.param(lambda: by_hand(TYPE, DIGEST, DIGEST), "twice", id="two digests"),
        pytest.param(
            lambda: by_hand(attribute(cms.CONTENT_TYPE, der.encode_object("1.2.3")), DIGEST), "plain data", id="type"
        ),
        pytest.param(
            lambda: by_hand(TYPE, attribute(cms.MESSAGE_DIGEST, der.encode(der.OCTET_STRING))),
            "over other content",
            id="an empty digest",
        ),
        pytest.param(
            lambda: by_hand(TYPE, attribute(cms.MESSAGE_DIGEST)), "single value", id="a digest attribute without any"
        ),
        pytest.param(
            lambda: by_hand(TYPE, DIGEST, scheme=der.encode(der.SEQUENCE, der.encode_object("1.2.840.113549.1.1.13"))),
            "does not belong to the digest",
            id="another digest in the scheme",
        ),
        pytest.param(
            lambda: by_hand(TYPE, DIGEST, scheme=der.encode(der.SEQUENCE, der.encode_object(algorithms.ED25519))),
            "does not belong|of the kind",
            id="another kind of key",
        ),
        pytest.param(
            lambda: by_hand(TYPE, DIGEST, digest=der.encode(der.SEQUENCE, der.encode_object("1.3.14.3.2.26"))),
            "SHA-1",
            id="SHA-1",
        ),
    ],
)
def test_wrong_signatures_are_refused(signature: object, words: str) -> None:
    with pytest.raises(SignatureError, match=words):
        check(signature())  # type: ignore[operator]


def test_unsigned_attributes_mean_nothing() -> None:
    extra = der.encode(der.context(1), attribute("1.2.3.4", der.encode_integer(7)))
    assert check(by_hand(TYPE, DIGEST, unsigned=extra)).name == "Self rsa2048"


def test_signed_attributes_are_not_taken_for_content() -> None:
    """A signature with attributes also is one, without attributes, over the attributes' own bytes."""
    attributes = der.encode(der.SET, TYPE, DIGEST)
    with_attributes = by_hand(TYPE, DIGEST)
    stripped = bytes((der.context(0),)) + attributes[1:]
    assert stripped in with_attributes
    message = SignedData.parse(with_attributes)
    algorithms.verify(
        self_signed().parsed.public_key(), message.signers[0].scheme, message.signers[0].signature, attributes, "it"
    )
    forged = rebuilt_without(with_attributes, stripped)
    with pytest.raises(SignatureError, match="looks like some"):
        check(forged, attributes)


def rebuilt_without(message: bytes, attributes: bytes) -> bytes:
    """The message with the signed attributes cut out and all lengths mended."""

    def mend(element: der.Element) -> bytes:
        if attributes not in element.content:
            return element.raw
        reader, parts = element.inside(), []
        while not reader.done:
            part = reader.any()
            if part.raw != attributes:
                parts.append(mend(part))
        return der.encode(element.tag, *parts)

    return mend(der.only(message, der.SEQUENCE, "a message"))


@pytest.mark.parametrize(
    ("purposes", "purpose", "accepted"),
    [
        ((EMAIL,), "emailProtection", True),
        ((EMAIL,), "codeSigning", False),
        ((CODE,), "emailProtection", False),
        ((CODE,), "codeSigning", True),
        ((CODE, EMAIL), "codeSigning", True),
        (None, "emailProtection", True),
        (None, "codeSigning", False),
        ((CODE,), "any", True),
        (None, "any", True),
    ],
)
def test_the_purpose_must_be_the_one_asked_for(purposes: tuple[object, ...], purpose: Purpose, accepted: bool) -> None:
    pair = issue("Purpose", key_name="Leaf", purposes=purposes)
    signature = sign_detached(CONTENT, pair.parsed, pair.private, at=NOW)
    if accepted:
        assert check(signature, trusted=trust(pair), purpose=purpose).name == "Purpose"
    else:
        with pytest.raises(SignatureError, match=purpose):
            check(signature, trusted=trust(pair), purpose=purpose)


@pytest.mark.parametrize(("name", "accepted"), [("Self rsa2048", True), ("self rsa2048", False), ("", False)])
def test_the_signer_must_have_the_name_asked_for(name: str, accepted: bool) -> None:
    if accepted:
        assert check(good(), signer_name=name).name == name
    else:
        with pytest.raises(SignatureError, match="expected the common name"):
            check(good(), signer_name=name)


def test_each_of_several_signers_must_be_trusted_and_right() -> None:
    with pytest.raises(SignatureError, match="not trusted"):
        check(good(), trusted=trust(root()))
    assert check(by_hand(TYPE, DIGEST, signers=2)).name == "Self rsa2048"


def test_validity_ends_with_its_last_second() -> None:
    pair = issue("Short", key_name="Leaf", days=(-1, 1))
    signature = sign_detached(CONTENT, pair.parsed, pair.private, at=None)
    end = pair.parsed.not_after
    assert check(signature, trusted=trust(pair), at=end)
    with pytest.raises(SignatureError, match="expired"):
        check(signature, trusted=trust(pair), at=end + dt.timedelta(seconds=1))
    with pytest.raises(SignatureError, match="valid only from"):
        check(signature, trusted=trust(pair), at=pair.parsed.not_before - dt.timedelta(seconds=1))


def test_a_ring_of_authorities_ends() -> None:
    """Two authorities that certified each other, and no trusted one."""
    one, two = authority("One"), authority("Two")
    ring = authority("One", two), authority("Two", one)
    signer = issue("Ringed", ring[0], key_name="Leaf")
    signature = sign_detached(
        CONTENT, signer.parsed, signer.private, extra_certificates=[pair.parsed for pair in ring], at=None
    )
    with pytest.raises(SignatureError):
        check(signature, trusted=trust(root()))


def test_a_crowd_of_equal_issuers_is_given_up() -> None:
    issuers = [authority("Crowd", root()).parsed for _ in range(30)]
    signer = issue("Crowded", authority("Crowd", root()), key_name="Leaf")
    signature = sign_detached(CONTENT, signer.parsed, signer.private, extra_certificates=issuers, at=None)
    with pytest.raises(SignatureError):
        check(signature, trusted=trust(self_signed()))


def test_key_and_certificate_must_be_a_pair() -> None:
    with pytest.raises(UsageError, match="not the certificate's"):
        sign_detached(CONTENT, self_signed().parsed, leaf().private, at=None)


def test_a_public_key_cannot_vouch_for_cms() -> None:
    with pytest.raises(SignatureError, match="needs trusted certificates"):
        check(good(), trusted=Trust.load(self_signed().public_pem))


def test_the_signature_is_limited() -> None:
    with pytest.raises(SignatureError, match="more than 100"):
        check(good(), limits=Limits(signature_size=100))


def test_no_truncation_of_a_signature_is_accepted() -> None:
    signature = good()
    for size in range(len(signature)):
        with pytest.raises(SignatureError):
            check(signature[:size])


def test_no_flipped_bit_changes_what_a_signature_proves() -> None:
    """Bits of unsigned parts may be flipped; then the same signer has still signed the same content."""
    signature, honest = good(), check(good())
    survivors = 0
    for position in range(len(signature)):
        data = bytearray(signature)
        data[position] ^= 1 << (position * 5 % 8)
        try:
            signer = check(bytes(data))
        except SignatureError:
            continue
        survivors += 1
        assert signer == honest
    assert survivors < 4


def test_no_flipped_bit_of_an_intermediate_is_accepted() -> None:
    pair = leaf()
    signature = sign_detached(CONTENT, pair.parsed, pair.private, extra_certificates=[intermediate().parsed], at=NOW)
    assert check(signature, trusted=trust(root())).anchor == "CN=Root"
    start = signature.index(intermediate().der)
    for position in range(start, start + len(intermediate().der), 3):
        data = bytearray(signature)
        data[position] ^= 1
        with pytest.raises(SignatureError):
            check(bytes(data), trusted=trust(root()))


@pytest.mark.parametrize("junk", [b"\x30\x80\x00\x00", b"\x30\x84\xff\xff\xff\xff", b"\x30" * 5000, b"\x1f\x81\x01"])
def test_junk_is_an_error_of_ours(junk: bytes) -> None:
    with pytest.raises(RegraftError):
        check(junk)
