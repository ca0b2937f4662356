# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.crypto.aes import AesKey, decrypt, encrypt, load_key_file
from regraft.errors import FormatError, UnsupportedError, UsageError

PIECES = st.lists(st.binary(max_size=70), max_size=8)


@given(PIECES, st.sampled_from([16, 24, 32]), st.sampled_from(["cbc", "ctr"]), st.integers(1, 50))
def test_what_was_encrypted_comes_back(pieces: list[bytes], size: int, mode: str, step: int) -> None:
    key = AesKey(bytes(range(size)), bytes(range(16)), mode)  # type: ignore[arg-type]
    sealed = b"".join(encrypt(pieces, key))
    assert len(sealed) == len(b"".join(pieces)) // 16 * 16 + 16 or mode == "ctr"
    cut = [sealed[i : i + step] for i in range(0, len(sealed), step)]
    assert b"".join(decrypt(cut, key)) == b"".join(pieces)


@pytest.mark.parametrize("size", [0, 1, 15, 17, 31])
def test_data_that_is_no_whole_blocks_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="whole blocks"):
        list(decrypt([bytes(size)], AesKey(bytes(16), bytes(16))))


@pytest.mark.parametrize("end", [b"\0", b"\x11", b"\x03\x02", b"\xff", b"\x01\x02\x03"])
def test_wrong_padding_is_refused(end: bytes) -> None:
    key = AesKey(bytes(32), bytes(16))
    block = (bytes(16) + end)[-16:]
    sealed = b"".join(encrypt([block], key))[:16]
    if end != b"\x01\x02\x03":
        with pytest.raises(FormatError, match="padding is wrong"):
            list(decrypt([sealed], key))
    else:
        with pytest.raises(FormatError):
            list(decrypt([sealed], key))


@pytest.mark.parametrize("size", [16, 24, 32])
def test_a_key_file_is_key_and_vector(size: int) -> None:
    text = f"{bytes(range(size)).hex()} {bytes(range(16)).hex().upper()}\n".encode()
    assert load_key_file(text) == AesKey(bytes(range(size)), bytes(range(16)))


KEY, VECTOR = b"00" * 32, b"00" * 16


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"00",
        KEY,
        KEY + b" zz",
        b"00" * 31 + b" " + VECTOR,
        KEY + b" " + VECTOR[:-2],
        KEY[:-1] + b" " + VECTOR,
        KEY + b" " + VECTOR + b" 00",
        b"\xff\xfe",
        b"0x" * 32 + b" " + VECTOR,
    ],
)
def test_other_key_files_are_refused(text: bytes) -> None:
    with pytest.raises(UsageError):
        load_key_file(text)


def test_a_key_is_not_shown() -> None:
    assert "00" not in repr(AesKey(bytes(16), bytes(16)))


def test_ciphers_by_name() -> None:
    key = AesKey(bytes(32), bytes(16))
    assert key.for_cipher("aes-ctr-256").mode == key.for_cipher("aes-ctr").mode == "ctr"
    assert key.for_cipher("aes-cbc").mode == "cbc"
    with pytest.raises(UsageError, match="128 bits"):
        key.for_cipher("aes-cbc-128")
    with pytest.raises(UnsupportedError):
        key.for_cipher("aes-gcm-256")
    assert key.with_iv(b"x" * 16).iv == b"x" * 16
