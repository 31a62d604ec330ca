"""Commands that ask this machine's agent and print what it says: the mesh as this node sees it."""

import time
from collections.abc import Mapping
from typing import Any, Final

import click

from gossipmesh.cli.admin_client import AdminClient, socket_option
from gossipmesh.cli.main import SuggestingGroup
from gossipmesh.cli.output import Column, output_option, print_rows
from gossipmesh.model.durations import age_text
from gossipmesh.model.errors import Interrupted, OperatorError
from gossipmesh.net import clock

LEAVE_TIMEOUT_S: Final = 3_660.0  # draining takes spec.engine.drainTimeout: 45 s, an hour at most


def duration_text(seconds: Any) -> str:
    """Return an age as people say it, `-` for none."""
    return age_text(seconds) if isinstance(seconds, int | float) else "-"


def _incarnation(row: Mapping[str, Any]) -> str:
    order = row.get("order") or ()
    return ".".join(str(part) for part in order[:2])


def _lag(lag_ms: Any) -> str | None:
    return f"{lag_ms}ms" if isinstance(lag_ms, int) else None


def _policies(row: Mapping[str, Any]) -> list[str]:
    told = []
    for policy in row.get("policies") or ():
        text = f"{policy['scope']}:{policy['version']}"
        refused = policy.get("refused_version")
        told.append(f"{text} (refused {refused}: {policy.get('refused_reason')})" if refused else text)
    return told


def _health(row: Mapping[str, Any]) -> str:
    return f"{row['health']} (draining)" if row.get("draining") else str(row["health"])


MEMBER_COLUMNS: Final = (
    Column("NAME", lambda row: f"{row['name']} *" if row.get("self") else row["name"]),
    Column("STATUS", "status"),
    Column("PHASE", "phase", rank=5),
    Column("AGE", lambda row: duration_text(row.get("since_s")), right=True, rank=1),
    Column("HEARD", lambda row: duration_text(row.get("heard_s")), right=True, rank=2),
    Column("REACH", "reachability", rank=3),
    Column("LAG", lambda row: _lag(row.get("lag_ms")), right=True, rank=6),
    Column("INCARNATION", _incarnation, rank=8),
    Column("POLICY", _policies, rank=4, prose=True),
    Column("GOSSIP", "gossip_address", rank=7),
    Column("SEQUENCE", lambda row: (row.get("order") or [None])[-1], wide=True, right=True),
    Column("OUT FOR", lambda row: duration_text(row.get("quarantine_s")), wide=True, right=True),
    Column("HELD", "endpoints_retained", wide=True),
    Column("MESH", "mesh_address", wide=True),
    Column("BUILD", "build", wide=True),
    Column("IDENTITY", "spiffe_id", wide=True),
)
SERVICE_COLUMNS: Final = (
    Column("SERVICE", "service"),
    Column("PROTOCOL", "protocol", rank=2),
    Column("PASSING", lambda row: f"{row['passing']}/{row['endpoints']}", right=True),
    Column("NODES", "nodes", rank=1, prose=True),
)
ENDPOINT_COLUMNS: Final = (
    Column("NODE", "node"),
    Column("REGISTRATION", "registration", rank=4),
    Column("ADDRESS", "address", rank=1),
    Column("HEALTH", _health, prose=True),
    Column("MEMBER", "member_status", rank=2),
    Column("LABELS", "labels", rank=3, prose=True),
    Column("WEIGHT", "weight", wide=True, right=True),
    Column("SERVICE", "service", wide=True),
)
IDENTITY_COLUMNS: Final = (
    Column("IDENTITY", "spiffe_id"),
    Column("ENDS IN", lambda row: _time_left(row.get("not_after"))),
    Column("NOT BEFORE", lambda row: _civil(row.get("not_before")), wide=True),
    Column("NOT AFTER", lambda row: _civil(row.get("not_after")), rank=1),
)


def _civil(seconds: Any) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if isinstance(seconds, int) else "-"


def _time_left(not_after: Any) -> str:
    if not isinstance(not_after, int):
        return "-"
    left_s = not_after - clock.wall_seconds()
    return duration_text(left_s) if left_s > 0 else "EXPIRED"


@click.command()
@socket_option
@output_option
def members(socket_path: str | None, output: str) -> None:
    """List the members of the mesh as this node sees them; `*` marks the node itself.

    AGE is since the status last changed, HEARD since this node had a packet of it. REACH: `unreachable` is
    this node's own view, which nobody else shares; `TCP only`: something drops UDP between it and this node;
    `stale` is the last word of one that is gone.
    """
    rows = AdminClient(socket_path).get_json("/v1/members")
    print_rows(rows, MEMBER_COLUMNS, output, empty="No members.")


@click.command()
@socket_option
@output_option
def services(socket_path: str | None, output: str) -> None:
    """List the services of the mesh and how many of their endpoints pass."""
    rows = AdminClient(socket_path).get_json("/v1/services")
    print_rows(rows, SERVICE_COLUMNS, output, empty="No services; put a file into services.d on some node.")


@click.command()
@click.argument("service")
@socket_option
@output_option
def endpoints(service: str, socket_path: str | None, output: str) -> None:
    """List the endpoints of SERVICE, written NAMESPACE/NAME."""
    rows = AdminClient(socket_path).get_json("/v1/endpoints", service=service)
    print_rows(rows, ENDPOINT_COLUMNS, output, empty=f"No node serves {service}.")


@click.command()
@socket_option
@output_option
def leave(socket_path: str | None, output: str) -> None:
    """Drain this node, leave the mesh and stop its agent."""
    try:
        answer = AdminClient(socket_path, timeout_s=LEAVE_TIMEOUT_S).post_bytes("/v1/leave")
    except KeyboardInterrupt:
        raise Interrupted("interrupted: the agent was asked to leave, and does so; see its log") from None
    if output in ("json", "yaml"):
        print_rows((), (), output, value=answer if answer is not None else {"left": True})
    else:
        click.echo("This node has left the mesh.")


@click.command()
@socket_option
@output_option
def restart(socket_path: str | None, output: str) -> None:
    """Tell the mesh of a restart and end this node's agent; its engine serves on.

    Whatever keeps the agent running (systemd with Restart=always) starts the next one, which attaches to the
    engine. Traffic goes on meanwhile, and nobody holds this node gone for 30 s.
    """
    answer = AdminClient(socket_path).post_bytes("/v1/restart")
    if output in ("json", "yaml"):
        print_rows((), (), output, value=answer)
    else:
        click.echo("The mesh has been told; the agent ends and its engine serves on.")


@click.command()
@click.option("--open", "is_open", is_flag=True, help="Open a node that is closed, whatever it lacks.")
@click.option("--alarms", "is_of_alarms", is_flag=True, help="Forget the policy alarms that were seen to.")
@socket_option
@output_option
def release(is_open: bool, is_of_alarms: bool, socket_path: str | None, output: str) -> None:
    """Let go the endpoints of members that went together, on this node.

    When over 30 % of the members go within a minute, their endpoints are kept for an hour as a last resort:
    it is likelier that this node's view is wrong than that all of them ended. Say here that they did.

    With --open: answer calls from now on, though this node does not know, or could not verify, what policy
    the mesh runs. Everybody sees that it was opened by hand.

    With --alarms: forget, on this node, who signed what contradicts itself, and the proofs. See that the
    signer's key was replaced, or that two pushes met, before.
    """
    if is_open and is_of_alarms:
        raise click.UsageError("--open and --alarms are two commands")
    if is_open:
        _open(socket_path, output)
        return
    if is_of_alarms:
        _release_alarms(socket_path, output)
        return
    answer = AdminClient(socket_path).post_bytes("/v1/release")
    if output in ("json", "yaml"):
        print_rows((), (), output, value=answer)
        return
    released = answer["released"]
    click.echo(f"Let go: the endpoints of {released} members." if released else "No endpoints were kept.")


def _release_alarms(socket_path: str | None, output: str) -> None:
    answer = AdminClient(socket_path).post_bytes("/v1/release/alarms")
    if output in ("json", "yaml"):
        print_rows((), (), output, value=answer)
        return
    released = answer["released"]
    click.echo(f"Forgotten: {released} policy alarms." if released else "There was no policy alarm.")


def _open(socket_path: str | None, output: str) -> None:
    answer = AdminClient(socket_path).post_bytes("/v1/open")
    if output in ("json", "yaml"):
        print_rows((), (), output, value=answer)
    elif answer["opened"]:
        click.echo(f"Open: calls are answered from now on. It was closed, for {answer['was_closed']}.")
    else:
        click.echo("This node is open already.")


@click.group(cls=SuggestingGroup)
def identity() -> None:
    """Show this node's certificates."""


@identity.command()
@socket_option
@output_option
def show(socket_path: str | None, output: str) -> None:
    """List this node's identities and when they end."""
    rows = AdminClient(socket_path).get_json("/v1/identity")
    if not isinstance(rows, list):
        raise OperatorError("the agent's answer to /v1/identity is not a list; is it of another version?")
    print_rows(rows, IDENTITY_COLUMNS, output, empty="This node has no identity yet.")
