"""`gossipmesh authority rotate credential|intermediate|root`: another key, in steps that nobody notices.

Trust is made and signed where the authority's folder is, and handed to an agent; it spreads by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from gossipmesh.cli.admin_client import AdminClient, socket_option
from gossipmesh.cli.authority_options import directory_option, root_keys_option
from gossipmesh.cli.authority_rotate import hand_on, hand_trust
from gossipmesh.cli.mesh_trust import hand_roll, is_roll_missing, without_rolls, without_trust
from gossipmesh.cli.passphrase import Passphrase, passphrase_options
from gossipmesh.model.errors import MalformedInput, OperatorError

if TYPE_CHECKING:
    from gossipmesh.control.rotation import Rotation

_CREDENTIAL: Final = "credential"
STEPS: Final = ("name", "use", "drop")
_file = click.Path(path_type=Path, dir_okay=False)

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Asked:
    """What the three commands have in common."""

    directory: Path
    step: str | None
    root_keys: tuple[Path, ...]
    x509_root_key: Path | None
    force: bool
    passphrase: Passphrase
    client: AdminClient
    stolen: bool = False


def _options(command: F) -> F:
    step = click.option(
        "--step",
        type=click.Choice(STEPS),
        help="Default: the one that follows from what lies in the folder.",
    )
    x509_root_key = click.option(
        "--x509-root-key",
        type=_file,
        metavar="FILE",
        help="The X.509 root's key. Default: DIR/root.key. `root` makes a new one, and puts it here.",
    )
    force = click.option(
        "--force",
        is_flag=True,
        help="Use the new one though members lack its Trust; drop the old one while it is needed.",
    )
    return directory_option(
        step(root_keys_option(x509_root_key(force(passphrase_options(socket_option(command))))))
    )


def _turning(kind: str, summary: str) -> click.Command:
    """Return the command that turns one kind of key."""

    @click.command(kind, help=summary)
    @_options
    def command(
        passphrase_file: Path | None, passphrase_fd: int | None, socket_path: str | None, **more: Any
    ) -> None:
        passphrase = Passphrase(passphrase_file, passphrase_fd)
        _turn(kind, _Asked(passphrase=passphrase, client=AdminClient(socket_path), **more))

    return command


def _turn(kind: str, asked: _Asked) -> None:
    """Take the next step, or the one that was asked for, and put it on record."""
    step = asked.step or _rotation(kind, asked).next_step()
    _take(kind, step, asked)
    if step != "drop":
        then = (
            "once every member has that Trust" if step == "name" else "once nothing of the old one is needed"
        )
        click.echo(f"next, {then}: gossipmesh authority rotate {kind} --dir {asked.directory}")


def _replace_stolen(asked: _Asked) -> None:
    """Take all the steps that are left, the last with a roll; done again, hand out what was made.

    Nothing is waited for between them: a member that meets the new key before the Trust that names it refuses
    that key's word for as long, and a stolen key is worse.
    """
    from gossipmesh.control.trust_changes import require_roll_readers

    require_roll_readers(without_rolls(asked.client))
    step = asked.step or _rotation(_CREDENTIAL, asked).next_step()
    if asked.step is None and step == "name" and _hand_out_again(asked):
        return
    for each in STEPS[STEPS.index(step) :]:
        _take(_CREDENTIAL, each, asked)


def _take(kind: str, step: str, asked: _Asked) -> None:
    """Take one step, put it on record and say what it did."""
    from gossipmesh.control.rotation import mark
    from gossipmesh.control.trust_changes import require_trust_held
    from gossipmesh.net.clock import wall_seconds

    rotation = _rotation(kind, asked)
    if step == "name":
        _prepare(rotation, asked.x509_root_key or asked.directory / "root.key", asked.passphrase)
        document = rotation.named()
        hand_trust(asked.client, asked.directory, document, asked.root_keys, asked.passphrase.ask)
        version = document.version
        done = f"Trust version {version} names the new {kind} beside the old one, which is used"
    elif step == "use":
        if not asked.force and not asked.stolen:
            version = rotation.authority.trust.version
            require_trust_held(version, without_trust(asked.client, version))
        rotation.use()
        done = f"the new {kind} is used from now on, by a server that runs as well"
    elif asked.stolen:
        done = _drop_by_roll(rotation, asked)
    else:
        document = rotation.dropped(wall_seconds(), force=asked.force)
        hand_trust(asked.client, asked.directory, document, asked.root_keys, asked.passphrase.ask)
        done = f"Trust version {document.version} names the old {kind} no more"
    mark(asked.directory, f"rotate {kind}: {step}", wall_seconds())
    click.echo(done)


def _drop_by_roll(rotation: "Rotation", asked: _Asked) -> str:
    """Drop every credential key but the one in use, with the roll of who is on record; say what was done."""
    from gossipmesh.control.ledger import Ledger
    from gossipmesh.control.roll import keep_roll, list_nodes, put_down
    from gossipmesh.net.clock import wall_seconds

    now, ledger = wall_seconds(), Ledger(asked.directory)
    former = ", ".join(rotation.former_keys())
    with ledger.changing():
        listed = list_nodes(rotation.authority, ledger, now)
    keep_roll(asked.directory, listed.roll)
    document = rotation.dropped(now, force=False, roll=listed.roll.name)
    hand_trust(asked.client, asked.directory, document, asked.root_keys, asked.passphrase.ask)
    hand_roll(asked.client, listed.roll)
    put_down(ledger, listed)
    return (
        f"Trust version {document.version} names the stolen credential key ({former}) no more; a roll of "
        f"{len(listed.enrolments)} nodes replaces what it signed. Who is not on it is out; nodes that ended "
        "because the thief took their names out are to be started again"
    )


def _hand_out_again(asked: _Asked) -> bool:
    """Give an agent the roll that Trust names, where it lies in the folder and the mesh lacks it."""
    from gossipmesh.control.roll import read_roll
    from gossipmesh.control.roots import load_authority

    authority = load_authority(asked.directory)
    roll = read_roll(asked.directory, authority.trust.roll, authority.trust_domain)
    if roll is None or not is_roll_missing(asked.client, authority.trust.version):
        return False
    hand_on(asked.client, asked.directory)
    hand_roll(asked.client, roll)
    click.echo(
        f"members lack the roll that Trust version {authority.trust.version} names: the agent at "
        f"{asked.client.path} has it now. No key was changed; if the one in use was stolen as well, run the "
        "same again once `gossipmesh check --all` names nobody"
    )
    return True


def _rotation(kind: str, asked: _Asked) -> "Rotation":
    from gossipmesh.control.roots import load_authority
    from gossipmesh.control.rotation import Rotation

    return Rotation(kind, load_authority(asked.directory))


def _prepare(rotation: "Rotation", key_file: Path, passphrase: Passphrase) -> None:
    """Make the new one; a new root's key goes where the old one was, which is put beside it."""
    from gossipmesh.net.clock import wall_seconds
    from gossipmesh.net.entropy import random_bytes
    from gossipmesh.net.secret_files import read_secret, write_secret
    from gossipmesh.trust.pem import is_locked
    from gossipmesh.trust.svid import (
        LEAF_ENTROPY_BYTES,
        leaf_key_pem,
        lock_key_pem,
        read_leaf_key_untrusted,
    )

    key = None
    if rotation.kind == "intermediate":
        content = read_secret(key_file)
        try:
            secret = passphrase.ask(str(key_file)) if is_locked(content) else None
            key = read_leaf_key_untrusted(content, secret)
        except MalformedInput as error:
            raise OperatorError(f"{key_file} is no X.509 root key: {error}") from None
    elif rotation.kind == "root" and not rotation.waiting.exists():
        pem = leaf_key_pem(random_bytes(LEAF_ENTROPY_BYTES))
        key = read_leaf_key_untrusted(pem)
        locked = key_file.exists() and is_locked(read_secret(key_file))
        if key_file.exists():
            key_file.rename(key_file.with_name(f"{key_file.name}.until-{rotation.authority.trust.version}"))
        write_secret(key_file, lock_key_pem(pem, passphrase.choose() if locked else None))
    rotation.name(key, wall_seconds(), random_bytes)


@click.command(_CREDENTIAL, help="Turn the key that signs who a node is.")
@click.option(
    "--stolen",
    is_flag=True,
    help="All steps at once: every node on record is signed anew, and nothing else that the old key signed "
    "counts any more.",
)
@_options
def _credential(
    passphrase_file: Path | None, passphrase_fd: int | None, socket_path: str | None, **more: Any
) -> None:
    passphrase = Passphrase(passphrase_file, passphrase_fd)
    asked = _Asked(passphrase=passphrase, client=AdminClient(socket_path), **more)
    if asked.stolen:
        _replace_stolen(asked)
    else:
        _turn(_CREDENTIAL, asked)


TURNING: Final = (
    _credential,
    _turning("intermediate", "Turn the CA that issues certificates, below the same root."),
    _turning("root", "Turn the X.509 root, and the intermediate below it."),
)
