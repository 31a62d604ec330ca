"""`gossipmesh authority move`: tell every node, by Trust, where the authority is."""

from pathlib import Path

import click

from gossipmesh.cli.admin_client import AdminClient, socket_option
from gossipmesh.cli.authority_options import directory_option, root_keys_option
from gossipmesh.cli.authority_rotate import hand_trust
from gossipmesh.cli.passphrase import Passphrase, passphrase_options
from gossipmesh.model.errors import OperatorError, UsageError
from gossipmesh.model.host_port import is_host_port


@click.command()
@click.argument("addresses", nargs=-1, metavar="HOST:PORT...")
@directory_option
@root_keys_option
@passphrase_options
@socket_option
def move(
    addresses: tuple[str, ...],
    directory: Path,
    root_keys: tuple[Path, ...],
    passphrase_file: Path | None,
    passphrase_fd: int | None,
    socket_path: str | None,
) -> None:
    """Publish where the authority answers, in the order to try; none: where the nodes' tokens say."""
    from gossipmesh.control.trust_changes import successor
    from gossipmesh.control.trust_folder import read_trust

    for address in addresses:
        if not is_host_port(address):
            raise UsageError(f"{address!r} is not HOST:PORT, such as authority.example.com:8443")
    current = read_trust(directory).trust
    if current is None:
        raise OperatorError("there is no Trust in the authority's folder")
    document = successor(current, authorities=addresses)
    ask = Passphrase(passphrase_file, passphrase_fd).ask
    hand_trust(AdminClient(socket_path), directory, document, root_keys, ask)
    told = ", ".join(addresses) or "no address"
    click.echo(f"Trust version {document.version} names {told}; nodes renew there from now on")
