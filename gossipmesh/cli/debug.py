"""`gossipmesh debug record`: the flight recorder's file."""

from pathlib import Path
from typing import Final

import click

from gossipmesh.cli.admin_client import AdminClient, socket_option
from gossipmesh.cli.main import SuggestingGroup
from gossipmesh.model.errors import OperatorError
from gossipmesh.net.secret_files import SECRET_MODE, write_file

RECORD_TIMEOUT_S: Final = 60.0


@click.group(cls=SuggestingGroup)
def debug() -> None:
    """Write down what this node's agent did lately."""


@debug.command()
@socket_option
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
def record(socket_path: str | None, out: Path) -> None:
    """Write the last ten minutes of this node's gossip into a file that can be replayed.

    The file is 0600: it holds what members told this node and their records, and no key of anybody.
    Replay it with `python -m gossipmesh.testing.simulator replay FILE`, with the same build.
    """
    if out.exists():
        raise OperatorError(f"{out} exists already; name another file")
    client = AdminClient(socket_path, timeout_s=RECORD_TIMEOUT_S)
    data = client.get_bytes("/v1/debug/record")
    if data is None:
        raise OperatorError(
            "the flight recorder is off; set spec.flightRecorder to true and restart the agent"
        )
    write_file(out, data, mode=SECRET_MODE)
    click.echo(f"Wrote {len(data)} bytes to {out} (0600): members' records and messages, no keys.")
    if client.get_json("/v1/status")["recorder"]["replayable"]:
        click.echo(f"Replay it: python -m gossipmesh.testing.simulator replay {out}")
        return
    click.echo(
        "It cannot be replayed: this agent hears too much for the ring to hold a whole beginning as well. "
        "Record soon after the agent's start, or on a node of a smaller mesh.",
        err=True,
    )
