"""A policy set in a file, for signers who sit apart: one makes it, others add signatures, anybody pushes it.

Ends at the file; what is published, and what becomes of it, is `push_flow`'s. Rules:
1. What is signed is shown first, against what is in force; a set on another base is signed by nobody.
2. A file is put in place of the former one whole.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gossipmesh.cli.admin_client import AdminClient, socket_option
from gossipmesh.cli.output import output_option, print_value
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, OperatorError, UsageError

if TYPE_CHECKING:
    from gossipmesh.cli.push_flow import Prepared, Push
    from gossipmesh.trust.keys import SigningKey
    from gossipmesh.trust.manifest import SignedSet

_MODE: Final = 0o644  # signed, and about to be published: nothing in it is secret
_MARKS: Final = {"added": "+", "changed": "~", "removed": "-"}


def load_signer(path: str | None) -> "SigningKey":
    """Return the signing key in a 0600 file.

    Raises:
        OperatorError: missing, open to others, or not a signer's key.
    """
    from gossipmesh.net.secret_files import read_secret
    from gossipmesh.trust.pem import signing_key_from_pem_untrusted

    if path is None:
        raise UsageError("--signer KEYFILE is needed: nothing can be published unsigned")
    try:
        return signing_key_from_pem_untrusted(read_secret(Path(path)))
    except MalformedInput as error:
        raise OperatorError(
            f"{path} is no signer's key: {error}; `authority init` writes them to DIR/signers/"
        ) from error


def write_set(path: Path, signed: "SignedSet") -> None:
    """Put a set into a file.

    Raises:
        OperatorError: the disk does not take it. What was there stands.
    """
    from gossipmesh.net.secret_files import write_file

    write_file(path, signed.policy_set.to_bytes(), mode=_MODE)


def read_set(path: Path) -> "SignedSet":
    """Return the set in a file, its bodies held against its manifest; whose signatures it has is not asked.

    Raises:
        OperatorError: missing, or no such file. State unchanged.
    """
    from gossipmesh.net.files import read_file
    from gossipmesh.trust.documents import decode_policy_set_untrusted
    from gossipmesh.trust.manifest import read_signed_untrusted

    try:
        return read_signed_untrusted(
            decode_policy_set_untrusted(read_file(path, limits.POLICY_SET_BYTES_MAX))
        )
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from error
    except MalformedInput as error:
        raise OperatorError(f"{path} is no policy set: {error}; `policy push --out` makes one") from error


@click.command()
@click.argument("path", metavar="SET", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--signer",
    "key_path",
    type=click.Path(dir_okay=False),
    metavar="KEYFILE",
    help="Your private key, a 0600 file; without it the set is shown only.",
)
@click.option("--documents", is_flag=True, help="Show the documents that are added or changed in full.")
@output_option
@socket_option
def sign(path: Path, key_path: str | None, documents: bool, output: str, socket_path: str | None) -> None:
    """Show what a set that another signer made would change, and add a signature to it.

    For scopes where Trust asks for several signers who do not share keys: one makes the set with `policy push
    --out SET`, the others sign the file, and `policy push --set SET` publishes it.
    """
    from gossipmesh.trust.manifest import countersign

    signed = read_set(path)
    client = AdminClient(socket_path)
    prepared = _flow(client, signed).prepare_signed(signed)
    key = None if key_path is None else load_signer(key_path)
    needed, names = _signers(client, signed.manifest.scope)
    if key is not None:
        if key.public not in names:
            raise OperatorError(
                f"Trust names no signer of {signed.manifest.scope!r} with that key: nothing was signed"
            )
        signed = countersign(signed, [key])
        write_set(path, signed)
    _print(signed, prepared, documents, needed, names, output)


def _flow(client: AdminClient, signed: "SignedSet") -> "Push":
    from gossipmesh.cli.output import tell
    from gossipmesh.cli.push_flow import Push, PushSettings
    from gossipmesh.net import clock

    settings = PushSettings(signed.manifest.scope, wait=None, timeout_s=0.0, rebase=False)
    return Push(client, settings, clock=lambda: clock.monotonic() / 1e9, pause=lambda _: None, tell=tell)


def _signers(client: AdminClient, scope: str) -> tuple[int, dict[bytes, str]]:
    """Return how many signers this agent's Trust asks for, and their names by public key."""
    from gossipmesh.model.documents import SignerRole
    from gossipmesh.trust.envelope import decode_envelope_untrusted, decode_envelopes_untrusted
    from gossipmesh.trust.trust_rules import decode_trust_untrusted

    try:
        newest = decode_envelopes_untrusted(client.get_bytes("/v1/trust") or b"")[-1]
        trust = decode_trust_untrusted(decode_envelope_untrusted(newest).payload)
    except (MalformedInput, IndexError) as error:
        raise OperatorError(f"the Trust this agent holds cannot be read: {error}") from error
    named = [one for one in trust.signers if one.role is SignerRole.POLICY and scope in one.scopes]
    return trust.policy_threshold.get(scope, 1), {bytes.fromhex(one.public_key): one.name for one in named}


def _print(
    signed: "SignedSet",
    prepared: "Prepared",
    documents: bool,
    needed: int,
    names: Mapping[bytes, str],
    output: str,
) -> None:
    from gossipmesh.trust.keys import Verifier, key_id
    from gossipmesh.trust.manifest import signers_in

    keys = {key_id(key): key for key in names}
    by = sorted(names[key] for key in signers_in(signed, keys, Verifier()))
    manifest = signed.manifest
    shown = {
        change.name: json.loads(prepared.bodies[change.name])
        for change in prepared.changes
        if documents and change.name in prepared.bodies
    }
    if output in ("json", "yaml"):
        value: dict[str, Any] = {
            "scope": manifest.scope,
            "version": manifest.version,
            "hash": signed.manifest_hash.hex(),
            "changes": [{"name": change.name, "action": change.action} for change in prepared.changes],
            "signed_by": by,
            "needed": needed,
        }
        print_value({**value, "documents": shown} if documents else value, output)
        return
    click.echo(f"{manifest.scope} version {manifest.version} ({signed.manifest_hash.hex()[:8]}):")
    for change in prepared.changes:
        click.echo(f"{_MARKS[change.action]} {change.name} would be {change.action}")
    for document in shown.values():
        print_value(document, "yaml")
    rest = needed - len(by)
    more = f"{rest} more to sign it" if rest > 0 else "`gossipmesh policy push --set` publishes it"
    click.echo(f"signed by {', '.join(by) or 'nobody'}, {needed} needed: {more}")
