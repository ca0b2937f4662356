# SPDX-License-Identifier: Apache-2.0
"""`regraft swu inspect`: what is in this bundle?"""

from __future__ import annotations

from typing import Any

import click

from regraft.cli._output import emit_json, say, size
from regraft.cli.swu._bundle import TrustChoice, opened, trust_options


@click.command(
    epilog="""Examples:

\b
  regraft swu inspect update.swu
  regraft swu inspect update.swu --json | jq '.members[].name'
  regraft swu inspect update.swu -k cert.pem      (verifies the signature, too)
"""
)
@click.argument("bundle")
@trust_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--description", "text_only", is_flag=True, help="Print sw-description as it is, and nothing else.")
def command(
    bundle: str,
    key: str | None,
    key_aes: str | None,
    mode: str,
    purpose: str,
    signer_name: str | None,
    as_json: bool,
    text_only: bool,
) -> None:
    """Show the members of BUNDLE (`-` for standard input), its sw-description, and who signed it.

    Without -k nothing is verified but the archive's own checksums, and the output says so.
    """
    import hashlib

    from regraft.swupdate.bundle import read_bundle

    choice = TrustChoice(key, key_aes, mode, purpose, signer_name)
    policy = choice.policy()
    members: list[dict[str, Any]] = []
    with opened(bundle) as stream:
        reader = read_bundle(stream, policy, unsigned=policy is None, description_key=choice.description_key())
        members.extend(
            {"name": member.name, "size": member.size, "offset": member.data_offset} for member in reader.head
        )
        for artifact in reader.members():
            hasher = hashlib.sha256()
            for piece in artifact.pieces():
                hasher.update(piece)
            members.append(
                {
                    "name": artifact.name,
                    "size": artifact.size,
                    "offset": artifact.member.data_offset,
                    "checksum": artifact.member.checksum,
                    "sha256": hasher.hexdigest(),
                }
            )
    text = reader.description.decode("utf-8", "replace")
    signers = [str(reader.signer)] if reader.signer else claimed_signers(reader.signature)
    if reader.signer is None:
        say("NOT VERIFIED: no -k was given, anybody may have made this bundle")
    if as_json:
        emit_json(
            "bundle",
            {
                "verified": reader.signer is not None,
                "signed": reader.signature is not None,
                "signers": signers,
                "members": members,
                "description": text,
            },
        )
    elif text_only:
        click.echo(reader.description, nl=False)
    else:
        words = "signed by" if reader.signer else "NOT VERIFIED, claims to be signed by"
        click.echo(f"{words} {'; '.join(signers)}" if reader.signature is not None else "NOT VERIFIED, unsigned")
        for member_fields in members:
            checksum = f"  sha256 {member_fields['sha256']}" if "sha256" in member_fields else ""
            click.echo(f"{size(member_fields['size']):>10}  {printable(member_fields['name'])}{checksum}")
        click.echo()
        click.echo(printable(text))


def printable(text: str) -> str:
    """`text` without what could steer a terminal: control characters become `?`, lines and tabs stay."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)


def claimed_signers(signature: bytes | None) -> list[str]:
    """What an unverified signature says about who made it."""
    from regraft.crypto.cms import SignedData
    from regraft.errors import RegraftError

    if not signature:
        return []
    try:
        message = SignedData.parse(signature)
    except RegraftError as error:
        return [f"a signature that is not CMS ({error})"]
    return [
        printable(str(certificate.subject))
        for info in message.signers
        for certificate in message.certificates
        if info.is_of(certificate)
    ]
