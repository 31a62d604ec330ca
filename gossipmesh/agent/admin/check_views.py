"""GET /v1/check and /v1/check/all: members are walked in small steps, then everything is judged.

It gathers and orders; what is judged, and how, belongs to `checks`, `mesh_checks` and `member_checks`.
"""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import trio

from gossipmesh.agent.admin.admin_views import Parts, each_member_row, member_row
from gossipmesh.agent.admin.check_facts import gather_facts
from gossipmesh.agent.admin.check_rows import Mark, Row
from gossipmesh.agent.admin.checks import run_checks
from gossipmesh.agent.admin.http_server import Response
from gossipmesh.agent.admin.member_checks import MemberChecks
from gossipmesh.agent.admin.mesh_checks import MeshView, check_standing, refutations_of
from gossipmesh.gossip.base.settings import MemberView
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import MemberStatus, NodePhase
from gossipmesh.model.service import EndpointHealth
from gossipmesh.net.clock import monotonic, wall_seconds

_MEMBERS_PER_STEP: Final = 50


async def check(parts: Parts) -> list[Row]:
    """Return this node's checks."""
    facts = await gather_facts(parts.config.state_dir, parts.identity.authorities)
    view = MeshView()
    for count, row in enumerate(each_member_row(parts), 1):
        view.take(row)
        if count % _MEMBERS_PER_STEP == 0:
            await trio.lowlevel.checkpoint()
    return run_checks(parts, facts, view, _standing(parts, view))


def check_all(parts: Parts) -> Response:
    """Return what is wrong with any member, and what of each that was judged by."""
    return Response(b"", more=_check_all(parts))


async def _check_all(parts: Parts) -> AsyncIterator[bytes]:
    view, checks = MeshView(), MemberChecks(wall_seconds())
    separator = b""
    yield b'{"members":['
    for some in _in_steps(parts):
        for row in some:
            view.take(row)
            checks.take(row, row["services_failing"])
        yield separator + _json(some)[1:-1]
        separator = b","
    found = await trio.to_thread.run_sync(checks.rows)
    # Whoever is cut off itself sees everybody gone, so that is said first.
    rows = [*(row for row in _standing(parts, view) if row["mark"] == Mark.FAIL), *found]
    told = {"ok": all(row["ok"] for row in rows), "seen_by": parts.identity.identity.name, "checks": rows}
    yield b"]," + _json(told)[1:] + b"\n"


def _in_steps(parts: Parts) -> Iterator[list[dict[str, Any]]]:
    """Walk over the members, a few at a time, with the names of their services that fail."""
    some: list[dict[str, Any]] = []
    for view in parts.node.each_member():
        some.append({**member_row(parts, view), "services_failing": _failing(parts, view)})
        if len(some) == _MEMBERS_PER_STEP:
            yield some
            some = []
    if some:
        yield some


def _failing(parts: Parts, view: MemberView) -> list[str]:
    """Return the services of a member that should pass and do not."""
    if view.status is not MemberStatus.ALIVE or view.state.phase != NodePhase.SERVING:
        return []
    found = parts.node.endpoints_of(view.node_id)
    entries = () if found is None else found.entries
    return [
        entry.service for entry in entries if entry.health == EndpointHealth.FAILING and not entry.draining
    ]


def _standing(parts: Parts, view: MeshView) -> list[Row]:
    now = monotonic()
    uptime_s = (now - parts.started_at) / SECOND_NS
    since = parts.node.isolated_since
    view.isolated_s = None if since is None else (now - since) / SECOND_NS
    refutations = refutations_of(parts.node.history(parts.node.own_node_id), now)
    return check_standing(view, parts.other_seeds(), uptime_s, refutations, parts.unresolved_seeds())


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
