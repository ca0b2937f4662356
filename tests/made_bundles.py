# SPDX-License-Identifier: Apache-2.0
"""Bundles for tests."""

from __future__ import annotations

import hashlib
import io

from pki import NOW, Pair, self_signed

from regraft.build.bundle import CmsSigner, DescriptionSigner, write_bundle
from regraft.crypto.trust import Trust
from regraft.swupdate.bundle import SignaturePolicy

FILES = {"kernel.bin": bytes(range(256)) * 9, "notes.txt": b"hello\n"}


def describe(files: dict[str, bytes], target: str = "/nowhere", **extra: str) -> bytes:
    """An sw-description that lists the files; `extra` are attributes for each, as libconfig text."""
    more = "".join(f" {name} = {value};" for name, value in extra.items())
    entries = ",\n".join(
        f'    {{ filename = "{name}"; path = "{target}/{name}"; sha256 = "{hashlib.sha256(data).hexdigest()}";{more} }}'
        for name, data in files.items()
    )
    text = (
        f'software = {{\n  version = "1.0";\n  hardware-compatibility = [ "1.0" ];\n  files: (\n{entries}\n  );\n}}\n'
    )
    return text.encode()


def cms_signer(pair: Pair | None = None) -> CmsSigner:
    pair = pair or self_signed()
    return CmsSigner(pair.parsed, pair.private, at=NOW)


def bundle(
    files: dict[str, bytes] | None = None,
    description: bytes | None = None,
    signer: DescriptionSigner | None = None,
) -> bytes:
    """A bundle; unsigned without a signer."""
    files = FILES if files is None else files
    out = io.BytesIO()
    write_bundle(out.write, describe(files) if description is None else description, list(files.items()), signer=signer)
    return out.getvalue()


def policy(pair: Pair | None = None, **settings: object) -> SignaturePolicy:
    settings.setdefault("at", NOW)
    return SignaturePolicy(Trust.load((pair or self_signed()).pem), **settings)  # type: ignore[arg-type]
