"""`gossipmesh authority backup|restore|ask-mesh`: the authority's folder in one file, and back."""

from pathlib import Path

import click

from gossipmesh.cli.admin_client import AdminClient, socket_option
from gossipmesh.cli.authority_options import directory_option
from gossipmesh.model.errors import MalformedInput, OperatorError

_force_option = click.option(
    "--force", is_flag=True, help="Go on where no agent answers: whom it revoked since may renew again."
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@directory_option
def backup(file: Path, directory: Path) -> None:
    """Write the authority to FILE (0600), without the keys that are kept offline.

    A server may run meanwhile.
    """
    from gossipmesh.control.backup import make_backup
    from gossipmesh.net.clock import wall_seconds
    from gossipmesh.net.secret_files import SECRET_MODE, write_file

    content = make_backup(directory, wall_seconds())
    write_file(file, content, mode=SECRET_MODE)
    click.echo(f"the authority in {directory} is in {file} ({len(content)} bytes); it holds keys: keep it so")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@directory_option
@_force_option
@socket_option
def restore(file: Path, directory: Path, force: bool, socket_path: str | None) -> None:
    """Make the authority of FILE in an empty folder, and ask the mesh what was signed since.

    Every token is spent: make new ones.
    """
    from gossipmesh.control.backup import restore_backup
    from gossipmesh.net.clock import wall_seconds

    now = wall_seconds()
    manifest = restore_backup(file, directory, now)
    click.echo(f"restored {directory} from a backup of {max(0, now - manifest.taken) // 60} min ago")
    _ask(directory, force, socket_path)


@click.command("ask-mesh")
@directory_option
@_force_option
@socket_option
def ask_mesh(directory: Path, force: bool, socket_path: str | None) -> None:
    """Learn from an agent what the mesh knows and a restored authority does not."""
    _ask(directory, force, socket_path)


def _ask(directory: Path, force: bool, socket_path: str | None) -> None:
    from gossipmesh.control.asking import go_on_unasked, learn
    from gossipmesh.net.clock import wall_seconds

    client = AdminClient(socket_path)
    try:
        trust = _bytes_list(client, "/v1/trust")
        records = _bytes_list(client, "/v1/credentials")
    except OperatorError as error:
        if not force:
            raise OperatorError(
                f"the mesh could not be asked ({error}), and until it was the authority signs nothing: run "
                f"`gossipmesh authority ask-mesh --dir {directory}` where an agent is; where none is left, "
                "--force goes on without"
            ) from None
        go_on_unasked(directory, wall_seconds())
        click.echo("the mesh was not asked: revoke again whom you revoked since the backup")
        return
    learned = learn(directory, trust, records, wall_seconds())
    click.echo(
        f"the mesh was asked: {learned.trusts} newer versions of Trust, {len(learned.enrolled)} nodes "
        f"enrolled and {len(learned.revoked)} revoked since; the authority may serve"
    )


def _bytes_list(client: AdminClient, path: str) -> tuple[bytes, ...]:
    """Return a list of byte strings as an agent answers it."""
    from gossipmesh.cli.admin_client import RESPONSE_BYTES_MAX
    from gossipmesh.wire.codec import decode_untrusted

    answer = client.get_bytes(path)
    if answer is None:
        raise OperatorError(f"the agent at {client.path} is of a build that does not answer {path}")
    try:
        listed: tuple[bytes, ...] = decode_untrusted(answer, tuple[bytes, ...], bytes_max=RESPONSE_BYTES_MAX)
    except MalformedInput as error:
        raise OperatorError(f"what the agent answered to {path} cannot be read: {error}") from None
    return listed
