"""`gossipmesh authority rotate`: give a key of Trust to another holder.

The next Trust is made and signed where the authority's folder is, and handed to an agent; it spreads by
itself.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gossipmesh.cli.admin_client import AdminClient, socket_option
from gossipmesh.cli.authority_options import directory_option, root_keys_option
from gossipmesh.cli.main import SuggestingGroup
from gossipmesh.cli.output import tell
from gossipmesh.cli.passphrase import Passphrase, passphrase_options
from gossipmesh.cli.push_plan import WAIT_ALIVE
from gossipmesh.cli.wait_option import pause
from gossipmesh.model.errors import MalformedInput, OperatorError

if TYPE_CHECKING:
    from gossipmesh.cli.push_flow import Push, PushSettings
    from gossipmesh.control.trust_folder import AskPassphrase
    from gossipmesh.model.documents import TrustDocument
    from gossipmesh.trust.documents import TrustedDocuments
    from gossipmesh.trust.keys import SigningKey

_EXIT_FAILED = 1
_WAIT_S = 10.0

_file = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=SuggestingGroup)
def rotate() -> None:
    """Make the next Trust, in which a key is another, and hand it to the mesh."""


@rotate.command()
@click.argument("name")
@directory_option
@root_keys_option
@click.option("--key-out", type=_file, metavar="FILE", help="Where the new key goes. Default: DIR/signers.")
@click.option(
    "--signer",
    "further",
    multiple=True,
    type=_file,
    metavar="KEYFILE",
    help="Another signer's key, where the scope's threshold asks for it; repeat for more.",
)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    metavar="FILE_OR_DIR",
    help="Sign these documents in place of those in force.",
)
@passphrase_options
@socket_option
def signer(
    name: str,
    directory: Path,
    root_keys: tuple[Path, ...],
    key_out: Path | None,
    further: tuple[Path, ...],
    files: tuple[str, ...],
    passphrase_file: Path | None,
    passphrase_fd: int | None,
    socket_path: str | None,
) -> int:
    """Give a policy signer a new key and undo what the former one published.

    Every set that the former key signed, of whatever version, counts no more. The documents in force are
    signed anew by the new key, so that nothing opens or closes meanwhile: look at them, a thief may have made
    them.
    """
    from gossipmesh.control import trust_changes
    from gossipmesh.control.trust_folder import read_root_keys, read_signing_key, read_trust, write_trust
    from gossipmesh.model.documents import SignerRole
    from gossipmesh.net.entropy import random_bytes
    from gossipmesh.trust.keys import KEY_BYTES, SigningKey

    client = AdminClient(socket_path)
    held = read_trust(directory)
    current = _trust_of(held)
    _catch_up(client, held)
    former = trust_changes.find_signer(current, name, SignerRole.POLICY)
    bodies = _bodies(files, former.scopes)
    keys = [SigningKey(random_bytes(KEY_BYTES)), *(read_signing_key(path) for path in further)]
    document = trust_changes.rotate_signer(current, name, keys[0].public)
    _require_signers(document, former.scopes, keys)
    ask = Passphrase(passphrase_file, passphrase_fd).ask
    envelope = trust_changes.sign_trust(current, document, read_root_keys(directory, root_keys, ask))
    flows = [_flow(client, scope, held, keys) for scope in former.scopes if _has_set(client, scope)]
    kept = _keep_key(key_out or directory / "signers" / f"{name}.key", keys[0], current.version)
    write_trust(directory, envelope, document.version)
    _offer(client, [envelope.to_bytes()])
    click.echo(f"Trust version {document.version}: {name!r} has a new key, in {kept}")
    outcomes = [_sign_anew(flow, settings, keys[0], bodies) for flow, settings in flows]
    failures = [failure for failure in outcomes if failure is not None]
    for failure in failures:
        tell(f"gossipmesh: {failure}")
    return _EXIT_FAILED if failures else 0


def hand_on(client: AdminClient, directory: Path) -> None:
    """Give an agent the versions of Trust in the folder that it lacks.

    Raises:
        OperatorError: no agent, or one of another Trust. State unchanged.
    """
    from gossipmesh.control.trust_folder import read_trust

    _catch_up(client, read_trust(directory))


def hand_trust(
    client: AdminClient,
    directory: Path,
    document: "TrustDocument",
    root_keys: Sequence[Path],
    ask: "AskPassphrase",
) -> None:
    """Sign the next Trust, keep it in the folder, and give it to an agent, which spreads it.

    Raises:
        OperatorError: too few keys, no agent, or an agent of another Trust. Nothing was published.
    """
    from gossipmesh.control.trust_changes import require_features, sign_trust
    from gossipmesh.control.trust_folder import read_root_keys, read_trust, write_trust
    from gossipmesh.wire.versions import TRUST_FIELDS

    held = read_trust(directory)
    _catch_up(client, held)
    members = client.get_json("/v1/members")
    lacking = [row["name"] for row in members if TRUST_FIELDS not in row.get("features", (TRUST_FIELDS,))]
    require_features(document, lacking)
    envelope = sign_trust(_trust_of(held), document, read_root_keys(directory, root_keys, ask))
    write_trust(directory, envelope, document.version)
    _offer(client, [envelope.to_bytes()])


def _trust_of(held: "TrustedDocuments") -> "TrustDocument":
    if held.trust is None:
        raise OperatorError("there is no Trust in the authority's folder")
    return held.trust


def _catch_up(client: AdminClient, held: "TrustedDocuments") -> None:
    """Hand the agent the versions of Trust it lacks; it must not be ahead of the folder, nor beside it."""
    from gossipmesh.trust.envelope import decode_envelopes_untrusted, says_the_same_untrusted

    folder = held.trust_envelopes
    try:
        theirs = decode_envelopes_untrusted(client.get_bytes("/v1/trust") or b"")
        is_ours = says_the_same_untrusted(theirs, folder[: len(theirs)])
    except MalformedInput as error:
        raise OperatorError(f"the Trust this agent holds cannot be read: {error}") from None
    if not is_ours:
        raise OperatorError(
            f"this agent holds {len(theirs)} versions of Trust that are not those of the folder "
            f"({len(folder)}): use the newest copy of the folder, and an agent of its mesh; nothing was made"
        )
    if len(folder) > len(theirs):
        _offer(client, folder[len(theirs) :])


def _offer(client: AdminClient, envelopes: Sequence[bytes]) -> None:
    from gossipmesh.wire.codec import encode

    client.post_bytes("/v1/trust/offer", encode(list(envelopes)))


def _bodies(files: tuple[str, ...], scopes: Sequence[str]) -> dict[str, bytes] | None:
    """Return the documents to sign in place of those in force; None: those in force."""
    from gossipmesh.cli.policy_files import find_files, load_files, reference_problems
    from gossipmesh.trust.manifest import encode_documents

    if not files:
        return None
    if len(scopes) != 1:
        raise OperatorError(
            f"--file says what is in one scope, this signer has {len(scopes)}: rotate without it, then push"
        )
    loaded = load_files(find_files(files))
    bodies = encode_documents(item.document for item in loaded.documents)
    problems = [*loaded.problems, *reference_problems(loaded.documents, bodies)]
    if problems:
        for problem in problems:
            tell(str(problem))
        raise OperatorError(f"{len(problems)} problems in the files: nothing was made; see docs/POLICY.md")
    return bodies


def _require_signers(document: "TrustDocument", scopes: Sequence[str], keys: "Sequence[SigningKey]") -> None:
    """Refuse before anything is made when the set could not be signed afterwards."""
    from gossipmesh.model.documents import SignerRole
    from gossipmesh.trust.trust_rules import keys_of

    for scope in scopes:
        needed = document.policy_threshold.get(scope, 1)
        named = set(keys_of(document, SignerRole.POLICY, scope).values())
        counted = len({key.public for key in keys} & named)
        if counted < needed:
            raise OperatorError(
                f"the scope {scope!r} needs {needed} signers and {counted} are here: give the others' keys "
                "with --signer KEYFILE; nothing was made"
            )


def _has_set(client: AdminClient, scope: str) -> bool:
    return client.get_bytes("/v1/policy/set", scope=scope) is not None


def _flow(
    client: AdminClient, scope: str, held: "TrustedDocuments", keys: "Sequence[SigningKey]"
) -> "tuple[Push, PushSettings]":
    """Return a push of a scope, and its settings: any signer Trust ever named may have signed the base."""
    from gossipmesh.cli.push_flow import Push, PushSettings
    from gossipmesh.net import clock

    settings = PushSettings(
        scope, WAIT_ALIVE, _WAIT_S, True, tuple(held.signers_ever(scope)), further_keys=tuple(keys[1:])
    )
    flow = Push(client, settings, clock=lambda: clock.monotonic() / 1e9, pause=pause, tell=tell)
    flow.prepare(lambda base: dict(base.bodies), settings.accepted_signers)
    return flow, settings


def _keep_key(path: Path, key: "SigningKey", version: int) -> Path:
    """Write the new key; one that is there already is put beside it, never overwritten."""
    from gossipmesh.net.secret_files import write_secret
    from gossipmesh.trust.pem import signing_key_to_pem

    if path.exists():
        path.rename(path.with_name(f"{path.name}.until-{version}"))
    write_secret(path, signing_key_to_pem(key))
    return path


def _sign_anew(
    flow: "Push", settings: "PushSettings", key: "SigningKey", bodies: dict[str, bytes] | None
) -> str | None:
    """Publish a scope's documents under the new key; return why that failed, None when it did not."""
    from gossipmesh.cli.push_flow import verdict
    from gossipmesh.net.clock import wall_seconds

    try:
        published = flow.publish(
            lambda base: dict(base.bodies if bodies is None else bodies), key, created=wall_seconds()
        )
    except OperatorError as error:
        return f"Trust is published and the scope {settings.scope!r} is not signed anew: {error}; push it"
    if published is None:
        return None
    version, manifest_hash = published.target
    names = [entry.name for entry in published.signed.manifest.entries]
    click.echo(
        f"published {settings.scope} version {version} ({manifest_hash[:8]}), signed by the new key: "
        f"{len(names)} documents"
    )
    for name in names:
        click.echo(f"  {name}")
    failure = verdict(published, settings)
    if failure is None:
        click.echo(f"all {len(published.outcome.reached)} members run it, after {published.seconds:.2f} s")
    return failure
