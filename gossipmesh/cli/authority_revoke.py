"""`gossipmesh authority revoke|forget`: take a node out of the mesh, or one certificate out of use.

The authority's folder is changed first, then the mesh is told through an agent; both can be done again.
"""

import base64
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gossipmesh.cli.admin_client import AdminClient, AgentRefused, socket_option
from gossipmesh.cli.authority_options import directory_option, root_keys_option
from gossipmesh.cli.authority_rotate import hand_trust
from gossipmesh.cli.output import tell
from gossipmesh.cli.passphrase import Passphrase, passphrase_options
from gossipmesh.cli.revoke_wait import (
    Holds,
    absentees,
    holds_tombstone,
    holds_trust,
    verdict,
    wait_for_all,
)
from gossipmesh.cli.wait_option import WaitingCommand, pause, seconds_of, wait_options
from gossipmesh.model.errors import OperatorError
from gossipmesh.wire.versions import TRUST_FIELDS

if TYPE_CHECKING:
    from gossipmesh.control.revoking import Revocation
    from gossipmesh.control.trust_folder import AskPassphrase
    from gossipmesh.model.documents import TrustDocument

_NAMES_TOLD = 10
_SERIAL = re.compile(r"[0-9a-f]{30,40}")  # no shorter: a name may be of such letters, too
_EXIT_FAILED = 1
_generation_option = click.option(
    "--generation",
    type=click.IntRange(1),
    help="Of a node that is not on record here: the generation members know.",
)


@click.command(cls=WaitingCommand)
@click.argument("node", metavar="NODE|SERIAL")
@directory_option
@_generation_option
@click.option(
    "--offline",
    is_flag=True,
    help="By document root keys (--root-key) and the next Trust: the authority itself may be in other hands.",
)
@root_keys_option
@passphrase_options
@wait_options("holds it")
@socket_option
def revoke(
    node: str,
    directory: Path,
    generation: int | None,
    offline: bool,
    root_keys: tuple[Path, ...],
    passphrase_file: Path | None,
    passphrase_fd: int | None,
    wait: str | None,
    timeout: str,
    socket_path: str | None,
) -> int:
    """Refuse NODE from now on, everywhere: its keys may be in other hands.

    It renews nothing, members drop it and close its connections. A new token brings it back.

    SERIAL (hex, as `openssl x509 -serial` shows it) is one certificate: that one is refused, by the next
    Trust, and its node goes on with others.
    """
    serial = _serial_in(node)
    if not offline and serial is None:
        return _take_out(node, directory, generation, socket_path, "revoked", wait, seconds_of(timeout))
    client = AdminClient(socket_path)
    ask = Passphrase(passphrase_file, passphrase_fd).ask
    if serial is not None:
        version = _revoke_leaf(serial, client, directory, root_keys, ask)
        done = f"the certificate {serial:x} is revoked"
        return _wait(client, "", done, holds_trust(version), wait, seconds_of(timeout))
    from gossipmesh.control.trust_changes import revoke_node

    revoked = generation or _generation_of(client, node)
    document = revoke_node(_current_trust(directory), node, revoked)
    hand_trust(client, directory, document, root_keys, ask)
    click.echo(f"Trust version {document.version} revokes {node} up to generation {revoked}")
    holds = holds_trust(document.version)
    return _wait(client, node, f"{node} is revoked", holds, wait, seconds_of(timeout))


def _serial_in(text: str) -> int | None:
    """Return the serial number of a certificate that was given; None: it is a node's name."""
    digits = text.lower().removeprefix("serial=").removeprefix("0x").replace(":", "")
    return int(digits, 16) if _SERIAL.fullmatch(digits) else None


def _revoke_leaf(
    serial: int, client: AdminClient, directory: Path, root_keys: tuple[Path, ...], ask: "AskPassphrase"
) -> int:
    """Have the next Trust refuse one certificate, say what that does not do; return that Trust's version."""
    from gossipmesh.control.ledger import Ledger
    from gossipmesh.control.trust_changes import revoke_leaf
    from gossipmesh.net.clock import wall_seconds

    now = wall_seconds()
    document = revoke_leaf(_current_trust(directory), serial, now)
    owner = _owner_of(serial, directory)
    hand_trust(client, directory, document, root_keys, ask)
    ledger = Ledger(directory)
    with ledger.changing():
        ledger.log.append(now, "certificate revoked", node=owner, detail=f"serial {serial:x}")
    whose = f"a certificate of {owner}" if owner else "a certificate of no node on record here"
    click.echo(f"Trust version {document.version} revokes {serial:x}, {whose}: it is refused everywhere")
    tell(
        "warning: that refuses this certificate only, and its key goes on with another; where the key may be "
        f"in other hands: gossipmesh authority revoke {owner or 'NODE'} --dir {directory}"
    )
    return document.version


def _owner_of(serial: int, directory: Path) -> str:
    """Return whose certificate has a serial number, "" where this authority does not know."""
    from gossipmesh.control.ledger import Ledger
    from gossipmesh.control.roots import load_authority
    from gossipmesh.model.identity import SHORT_ID_BYTES, node_id_of, node_spiffe_id
    from gossipmesh.trust.leaf_serial import decode_leaf_serial_untrusted

    told = decode_leaf_serial_untrusted(serial)
    domain = load_authority(directory).trust_domain
    names = [] if told is None else Ledger(directory).nodes()
    of = {node_id_of(node_spiffe_id(domain, name))[:SHORT_ID_BYTES]: name for name in names}
    return "" if told is None else of.get(told.node, "")


def _current_trust(directory: Path) -> "TrustDocument":
    from gossipmesh.control.trust_folder import read_trust

    current = read_trust(directory).trust
    if current is None:
        raise OperatorError("there is no Trust in the authority's folder")
    return current


def _generation_of(client: AdminClient, node: str) -> int:
    """Return a member's generation, as an agent knows it."""
    rows = client.get_json("/v1/members")
    found = next((row["order"][0] for row in rows if row["name"] == node and row.get("order")), None)
    if found is None:
        raise OperatorError(f"the agent at {client.path} knows no member {node}; give its --generation")
    return int(found)


@click.command(cls=WaitingCommand)
@click.argument("node")
@directory_option
@_generation_option
@wait_options("holds it")
@socket_option
def forget(
    node: str,
    directory: Path,
    generation: int | None,
    wait: str | None,
    timeout: str,
    socket_path: str | None,
) -> int:
    """Drop NODE, which is gone for good, from every list.

    The same as `revoke`, with another word in the log: it cannot come back without a new token.
    """
    return _take_out(node, directory, generation, socket_path, "forgotten", wait, seconds_of(timeout))


def _take_out(
    node: str,
    directory: Path,
    generation: int | None,
    socket_path: str | None,
    what: str,
    wait: str | None,
    timeout_s: float,
) -> int:
    from gossipmesh.control.ledger import Ledger
    from gossipmesh.control.revoking import take_out
    from gossipmesh.control.roots import load_authority
    from gossipmesh.net.clock import wall_seconds

    made = take_out(
        load_authority(directory), Ledger(directory), node, wall_seconds(), what=what, generation=generation
    )
    again = "" if made.is_new else " already"
    click.echo(f"{node} is {what}{again}, up to generation {made.generation}: it renews nothing here")
    client = AdminClient(socket_path)
    _hand_over(made, client)
    return _wait(client, node, f"{node} is {what}", holds_tombstone, wait, timeout_s)


def _wait(client: AdminClient, node: str, done: str, holds: Holds, wait: str | None, timeout_s: float) -> int:
    """Wait until members hold it, if that was asked for; say who does not."""
    from gossipmesh.net.clock import monotonic

    if wait is None:
        return 0

    def clock() -> float:
        return monotonic() / 1e9

    began = clock()
    told = wait_for_all(client, node, holds, wait=wait, timeout_s=timeout_s, clock=clock, pause=pause)
    took_s = clock() - began
    left_out = absentees(told)
    if left_out is not None:
        tell(left_out)
    failure = verdict(told, done, took_s)
    if failure is not None:
        tell(f"gossipmesh: {failure}")
        return _EXIT_FAILED
    count = len(told.holding)
    members = "the only member holds" if count == 1 else f"all {count} members hold"
    click.echo(f"{members} it, after {took_s:.1f} s")
    return 0


def _hand_over(made: "Revocation", client: AdminClient) -> None:
    """Give a tombstone to an agent, which spreads it."""
    body = json.dumps({"record": base64.b64encode(made.record).decode()}).encode()
    try:
        answer = client.post_bytes("/v1/credentials", body)
    except AgentRefused:
        raise
    except OperatorError as error:
        raise OperatorError(
            f"the mesh does not know yet ({error}); run the same again where an agent is, with a copy of the "
            "authority's folder, or here once one runs"
        ) from None
    known = "" if answer.get("news") else ", which had it already"
    click.echo(f"handed to the agent at {client.path}{known}; members drop it as they hear of it")
    _tell_older(client, made.node)


def _tell_older(client: AdminClient, node: str) -> None:
    """Warn of members whose engines go by certificates alone: they take the node's until that ends."""
    try:
        rows = client.get_json("/v1/members")
    except OperatorError as error:
        # The agent may be the node's own, which has ended by now; the mesh has the tombstone all the same.
        tell(f"warning: no telling whether members are of builds before 0.3 ({error}); ask another agent")
        return
    older = sorted(
        str(row["name"])
        for row in rows
        if row["name"] != node
        and row.get("status") not in ("dead", "left")
        and TRUST_FIELDS not in row.get("features", (TRUST_FIELDS,))
    )
    if older:
        more = f" and {len(older) - _NAMES_TOLD} more" if len(older) > _NAMES_TOLD else ""
        tell(
            f"warning: members of builds before 0.3 take its certificate until that ends, within 24 hours: "
            f"{', '.join(older[:_NAMES_TOLD])}{more}; upgrade them"
        )
