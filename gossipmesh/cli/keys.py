"""`gossipmesh keys`: how this node's TLS keys turn, and turning them now."""

from typing import Any

import click

from gossipmesh.cli.admin_client import AdminClient, socket_option
from gossipmesh.cli.main import SuggestingGroup
from gossipmesh.cli.output import output_option, print_rows
from gossipmesh.cli.readers import duration_text


@click.group(cls=SuggestingGroup)
def keys() -> None:
    """Show how this node's TLS keys turn, or turn them now."""


@keys.command()
@socket_option
@output_option
def show(socket_path: str | None, output: str) -> None:
    """Say when keys turn next, and what a turn waits for."""
    _tell(AdminClient(socket_path).get_json("/v1/keys"), output)


@keys.command()
@click.option("--stolen", is_flag=True, help="Others may have the keys: the next ones are made anew as well.")
@socket_option
@output_option
def turn(socket_path: str | None, output: str, stolen: bool) -> None:
    """Turn this node's TLS keys now.

    The mesh knows the next keys, and they are used within a second or two. After a theft use --stolen: then
    both go, and the engine shows new ones as soon as two members know them. Who has the node's Ed25519 key,
    or its whole state folder, is this node all the same: revoke it and enrol it again.
    """
    _tell(AdminClient(socket_path).post_bytes("/v1/keys/turn" + ("?stolen=true" if stolen else "")), output)


def _tell(answer: Any, output: str) -> None:
    if output in ("json", "yaml"):
        print_rows((), (), output, value=answer)
        return
    click.echo(f"The next turn is due in {duration_text(answer['next_turn_s'])}; {answer['turns']} so far.")
    if answer["waits_for"]:
        click.echo(f"It waits: {answer['waits_for']}.")
    for spiffe_id, pin in answer["shown"].items():
        click.echo(f"  {spiffe_id}  {pin[:16]}")
