"""`gossipmesh engine`: the process that moves this node's traffic, and another one in its place."""

import threading
from typing import Any, Final

import click

from gossipmesh.cli.admin_client import AdminClient, socket_option
from gossipmesh.cli.main import SuggestingGroup
from gossipmesh.cli.output import output_option, print_rows
from gossipmesh.model.errors import Interrupted

_START_TIMEOUT_S: Final = 40.0  # it is started, attached to and brought up to date, 15 s each at most
_POLL_S: Final = 0.25


@click.group(cls=SuggestingGroup)
def engine() -> None:
    """Show this node's engine, or put another one in its place."""


@engine.command()
@socket_option
@output_option
def show(socket_path: str | None, output: str) -> None:
    """Say which engine serves this node, and whether one before still finishes what it has."""
    told = _engine(AdminClient(socket_path))
    if output in ("json", "yaml"):
        print_rows((), (), output, value=told)
        return
    click.echo(f"Process {told['pid']}, {told['name'] or 'not attached'}.")
    if told["lacks"]:
        click.echo(f"It is of another build and cannot do: {', '.join(told['lacks'])}.")
    if told["draining"] is not None:
        click.echo(_draining_text(told["draining"]))


@engine.command()
@click.option("--wait/--no-wait", default=True, help="Wait until the engine before has ended.")
@socket_option
@output_option
def replace(socket_path: str | None, output: str, wait: bool) -> None:
    """Start the engine that the configuration names, and have the one that runs end when it has finished.

    The new one takes over the listening sockets and serves before the old one is told to end. What is open
    goes on at the old one for up to spec.engine.drainTimeout; nothing is refused meanwhile. What an engine
    has learnt of endpoints, its limits and ejections, start afresh.
    """
    client = AdminClient(socket_path, timeout_s=_START_TIMEOUT_S)
    answer = client.post_bytes("/v1/engine/replace")
    as_text = output not in ("json", "yaml")
    if as_text:
        click.echo(f"Process {answer['pid']} serves; process {answer['before_pid']} finishes what it has.")
    if wait:
        answer["cut"] = _wait_ended(client, answer["before_pid"])
        if as_text:
            click.echo(f"Process {answer['before_pid']} has ended; connections cut: {answer['cut']}.")
    if not as_text:
        print_rows((), (), output, value=answer)


def _wait_ended(client: AdminClient, pid: int) -> int:
    """Wait until the engine before has ended; return how many connections it had to cut, as last told."""
    cut_count = 0
    try:
        while True:
            told = _engine(client)
            draining = told["draining"]
            if draining is None or draining["pid"] != pid:
                ended = told["ended"]
                return int(ended["cut_count"]) if ended is not None and ended["pid"] == pid else cut_count
            cut_count = draining["cut_count"]
            threading.Event().wait(_POLL_S)
    except KeyboardInterrupt:
        raise Interrupted("interrupted: the engine is replaced, and the one before ends by itself") from None


def _engine(client: AdminClient) -> Any:
    return client.get_json("/v1/status")["engine"]


def _draining_text(draining: Any) -> str:
    return (
        f"Process {draining['pid']} was replaced and finishes what it has: {draining['open_count']} "
        f"connections, {draining['left_s']} s more at most; {draining['cut_count']} were cut."
    )
