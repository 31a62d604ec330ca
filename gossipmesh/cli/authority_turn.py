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
from gossipmesh.cli.authority_rotate import hand_trust
from gossipmesh.cli.passphrase import Passphrase, passphrase_options
from gossipmesh.model.errors import MalformedInput, OperatorError

if TYPE_CHECKING:
    from gossipmesh.control.rotation import Rotation

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


def _options(command: F) -> F:
    step = click.option(
        "--step",
        type=click.Choice(["name", "use", "drop"]),
        help="Default: the one that follows from what lies in the folder.",
    )
    x509_root_key = click.option(
        "--x509-root-key",
        type=_file,
        metavar="FILE",
        help="The X.509 root's key. Default: DIR/root.key. `root` makes a new one, and puts it here.",
    )
    force = click.option("--force", is_flag=True, help="Drop the old one while something of it is needed.")
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
    from gossipmesh.control.roots import load_authority
    from gossipmesh.control.rotation import Rotation, mark
    from gossipmesh.net.clock import wall_seconds

    rotation = Rotation(kind, load_authority(asked.directory))
    step = asked.step or rotation.next_step()
    if step == "use":
        rotation.use()
        done = f"the new {kind} is used from now on, by a server that runs as well"
        then = "once nothing of the old one is needed"
    else:
        if step == "name":
            _prepare(rotation, asked.x509_root_key or asked.directory / "root.key", asked.passphrase)
            document = rotation.named()
            done = f"Trust version {document.version} names the new {kind} beside the old one, which is used"
        else:
            document = rotation.dropped(wall_seconds(), force=asked.force)
            done = f"Trust version {document.version} names the old {kind} no more"
        hand_trust(asked.client, asked.directory, document, asked.root_keys, asked.passphrase.ask)
        then = "once every member has that Trust"
    mark(asked.directory, f"rotate {kind}: {step}", wall_seconds())
    click.echo(done)
    if step != "drop":
        click.echo(f"next, {then}: gossipmesh authority rotate {kind} --dir {asked.directory}")


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


TURNING: Final = (
    _turning("credential", "Turn the key that signs who a node is."),
    _turning("intermediate", "Turn the CA that issues certificates, below the same root."),
    _turning("root", "Turn the X.509 root, and the intermediate below it."),
)
