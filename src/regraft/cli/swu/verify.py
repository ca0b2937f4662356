# SPDX-License-Identifier: Apache-2.0
"""`regraft swu verify`: is this bundle whole, and signed by somebody trusted?"""

from __future__ import annotations

import click

from regraft.cli._output import emit_json, say
from regraft.cli.swu._bundle import TrustChoice, opened, trust_options


@click.command(
    epilog="""Examples:

\b
  regraft swu verify update.swu -k cert.pem
  regraft swu verify update.swu -k ca.pem --purpose codeSigning --signer-name "Release 2026"
  curl -s https://host/update.swu | regraft swu verify - -k public.pem --mode rsa-pss
"""
)
@click.argument("bundle")
@trust_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    bundle: str,
    key: str | None,
    key_aes: str | None,
    mode: str,
    purpose: str,
    signer_name: str | None,
    as_json: bool,
) -> None:
    """Verify BUNDLE (`-` for standard input): its signature, every checksum, and that the artifacts are those which
    the signed sw-description lists, with their digests.

    Nothing is written. Ends with status 0 only if all of it is right.
    """
    import hashlib

    from regraft.errors import UsageError
    from regraft.swupdate.bundle import check_complete, read_bundle
    from regraft.swupdate.description import parse
    from regraft.swupdate.listing import check_digest, listed_digests

    choice = TrustChoice(key, key_aes, mode, purpose, signer_name)
    policy = choice.policy()
    if policy is None:
        raise UsageError(
            "without a trusted key nothing can be verified",
            cure="give the certificate or public key with -k; `regraft swu inspect` looks without verifying",
        )
    artifacts = []
    with opened(bundle) as stream:
        reader = read_bundle(stream, policy, description_key=choice.description_key())
        listed = listed_digests(parse(reader.description))
        for artifact in reader.members():
            hasher = hashlib.sha256()
            for piece in artifact.pieces():
                hasher.update(piece)
            check_digest(artifact.name, hasher.digest(), listed)
            artifacts.append({"name": artifact.name, "size": artifact.size, "sha256": hasher.hexdigest()})
    check_complete(listed, {str(found["name"]) for found in artifacts})
    signer = reader.signer
    assert signer is not None  # noqa: S101 - read_bundle with a policy returns a signer or raises
    if as_json:
        fields = {"method": signer.method, "scheme": signer.scheme, "key": signer.key, "subject": signer.subject}
        emit_json("bundle-verification", {"verified": True, "signer": fields, "artifacts": artifacts})
        return
    click.echo(f"signed by {signer}")
    for found in artifacts:
        click.echo(f"{found['sha256']}  {found['size']:>12}  {found['name']}")
    say(f"verified: the signature and {len(artifacts)} artifacts")
