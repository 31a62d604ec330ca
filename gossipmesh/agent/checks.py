"""GET /v1/check: is this node well, and how to mend what is not; each line a name, a verdict, a hint."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from gossipmesh.agent.admin_views import Parts
from gossipmesh.agent.catalog_feed import lacking_scopes
from gossipmesh.agent.identity_keeper import horizon
from gossipmesh.agent.service_files import LocalRegistration
from gossipmesh.model.instant import HOUR_S
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.service import EndpointHealth
from gossipmesh.net.clock import wall_seconds

_CLOCK_SKEW_S_MAX: Final = 60
_HORIZON_S_MIN: Final = 4 * HOUR_S
_GONE: Final = (MemberStatus.DEAD, MemberStatus.UNATTENDED)
_NAMES_MAX: Final = 10
_LISTENING: Final = "0A"  # TCP_LISTEN in /proc/net/tcp

Row = dict[str, Any]


def run_checks(parts: Parts, listening: list[Address]) -> list[Row]:
    """Return every check's row, in the order a person mends things; `listening` is `listening_addresses`'."""
    checks: tuple[Callable[[Parts], list[Row]], ...] = (
        _check_identity,
        _check_clock,
        _check_group,
        _check_held,
        _check_engine,
        _check_policy,
        _check_files,
        _check_services,
    )
    return [*(row for check in checks for row in check(parts)), *_check_exposure(parts, listening)]


def _row(name: str, ok: bool, detail: str, hint: str) -> Row:
    return {"name": name, "ok": ok, "detail": detail, "hint": "" if ok else hint}


def _check_identity(parts: Parts) -> list[Row]:
    ends = horizon(parts.identity.identity)
    left_s = ends - wall_seconds()
    until = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    detail = f"certificates end {until}, in {left_s // HOUR_S} h"
    failure = parts.identity.failure
    if failure is not None:
        detail += f"; the last renewal failed: {failure}"
    rows = [
        _row("identity", left_s > _HORIZON_S_MIN, detail, "start the authority: `gossipmesh authority serve`")
    ]
    missing = parts.identity.missing_services()
    if missing:
        detail = f"no certificate yet for {', '.join(missing)}"
        rows.append(_row("service identities", False, detail, "start the authority, or enrol with --service"))
    return rows


def _check_clock(parts: Parts) -> list[Row]:
    skew_s = parts.node.statistics().clock_skew_s
    detail = f"{abs(skew_s)} s {'behind' if skew_s > 0 else 'ahead of'} the group's median"
    return [_row("clock", abs(skew_s) < _CLOCK_SKEW_S_MAX, detail, "run NTP on this machine")]


def _check_group(parts: Parts) -> list[Row]:
    tally = parts.node.tally()
    alive = tally.by_status[MemberStatus.ALIVE]
    group_root = parts.node.roots()[0].hex()[:8]
    detail = f"{alive} of {tally.members_count} members alive, state root {group_root}"
    if any(tally.by_status[status] for status in _GONE):
        detail += f"; dead or unattended: {', '.join(parts.node.names(_GONE, _NAMES_MAX))}"
    alone = tally.members_count > 1 and alive == 1
    rows = [
        _row("group", not alone, detail, "see that UDP and TCP of spec.gossip.bind reach the other nodes")
    ]
    health = parts.node.local_health
    hint = "this node answers late or loses packets: look at its load and its network"
    rows.append(_row("local health", health <= 2, f"{health} (0 is healthy, 7 the worst)", hint))
    return rows


def _check_held(parts: Parts) -> list[Row]:
    held_count = parts.node.tally().endpoints_held_count
    if not held_count:
        return []
    detail = f"the endpoints of {held_count} members that went within a minute are kept, for an hour at most"
    hint = "look at this node's network; when they are really gone, `gossipmesh release`"
    return [_row("mass death", False, detail, hint)]


def _check_engine(parts: Parts) -> list[Row]:
    engine = parts.engine.view()
    log_hint = "see engine.log in spec.stateDir"
    rows = [_row("engine", engine.attached, f"process {engine.pid}", log_hint)]
    version = (engine.acked_version or "none")[:12]
    current = engine.acked_version is not None and engine.acked_version == engine.wanted_version
    detail = f"runs snapshot {version}"
    if engine.refused_version is not None:
        detail += f", refused {engine.refused_version[:12]}: {engine.refused_reason}"
    rows.append(_row("snapshot", current, detail, log_hint))
    detail = "answers" if engine.answering else "does not answer"
    rows.append(_row("mesh port", engine.answering, f"the mesh port {detail}", log_hint))
    if engine.full:
        detail = f"the engine has no place for more connections: {', '.join(engine.full)}"
        hint = "see who holds them with `ss -tnpe`; nothing that is under way was ended"
        rows.append(_row("places", False, detail, hint))
    rows += [
        _row("upstream port", False, problem, "free the port") for problem in parts.engine_port_problems()
    ]
    return rows


def _check_policy(parts: Parts) -> list[Row]:
    rows: list[Row] = []
    for policy in parts.node.own_state.policies:
        refused = policy.refused_version > policy.version
        detail = f"scope {policy.scope} version {policy.version}"
        if refused:
            detail += f"; version {policy.refused_version} was refused: {policy.refused_reason}"
        rows.append(_row("policy", not refused, detail, "push a set this node can execute"))
    for scope in lacking_scopes(parts.documents):
        detail = f"scope {scope}: the set in force cannot be read any more; who may call stays as it was"
        rows.append(_row("policy", False, detail, "run a build that can, or push a set this one can execute"))
    return rows or [_row("policy", True, "none in force", "")]


def _check_files(parts: Parts) -> list[Row]:
    hint = "mend the file; the service goes on as it was"
    return [_row("service file", False, problem, hint) for problem in parts.services.problems()]


def _check_services(parts: Parts) -> list[Row]:
    rows: list[Row] = []
    for entry in parts.services.registrations():
        health = parts.services.health(entry.registration)
        detail = f"{entry.service} at {entry.workload} is {health.label}"
        hint = f"see why {entry.workload} fails its checks"
        rows.append(_row("service", health is EndpointHealth.PASSING, detail, hint))
    return rows


def _check_exposure(parts: Parts, listening: list[Address]) -> list[Row]:
    """A workload that listens beyond loopback can be reached around the mesh, its policies and its TLS."""
    rows: list[Row] = []
    for entry in parts.services.registrations():
        exposed = _exposed(entry, listening)
        if exposed:
            detail = (
                f"{entry.service} listens on {', '.join(exposed)}: the mesh's policies can be gone around"
            )
            rows.append(_row("exposure", True, f"warning: {detail}; bind it to 127.0.0.1", ""))
    return rows


def _exposed(entry: LocalRegistration, listening: list[Address]) -> list[str]:
    return [
        str(address)
        for address in listening
        if address.port == entry.workload.port
        and not address.host.startswith("127.")
        and address.host != "::1"
    ]


def listening_addresses() -> list[Address]:
    """Return the TCP addresses anything on this machine listens on, from /proc/net. Cost: up to 10 ms."""
    found: list[Address] = []
    for name, family, width in (("tcp", socket.AF_INET, 8), ("tcp6", socket.AF_INET6, 32)):
        try:
            lines = Path(f"/proc/net/{name}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTENING:
                host, _, port = fields[1].partition(":")
                found.append(Address(_host_of(host[:width], family), int(port, 16)))
    return found


def _host_of(text: str, family: socket.AddressFamily) -> str:
    """Read the kernel's hexadecimal address: 32-bit words in the machine's own order."""
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    return socket.inet_ntop(family, b"".join(words))
