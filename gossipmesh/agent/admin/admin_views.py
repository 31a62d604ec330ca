"""What the admin API tells, as plain values, from what the agent's parts know; nothing is changed here."""

import base64
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, Protocol

import msgspec
import trio

from gossipmesh import __version__
from gossipmesh.agent.address_keeper import AddressKeeper
from gossipmesh.agent.admin.http_server import Response, json_response, json_rows_response
from gossipmesh.agent.admin.policy_alarms import alarms_of
from gossipmesh.agent.admin.process_usage import usage_of
from gossipmesh.agent.config import AgentConfig
from gossipmesh.agent.engine.catalog_feed import CatalogFeed
from gossipmesh.agent.engine.engine_supervisor import EngineSupervisor
from gossipmesh.agent.gate import Gate
from gossipmesh.agent.gossip_shell import GossipShell
from gossipmesh.agent.identity.identity_keeper import IdentityKeeper, horizon
from gossipmesh.agent.services.node_services import LocalServices
from gossipmesh.gossip.base.settings import GossipStatistics, MemberView
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.recorded_inputs import RecordedInputs
from gossipmesh.gossip.replay.recorder import FlightRecorder
from gossipmesh.model.documents import generation_of
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.member import Address, MemberStatus, NodePhase
from gossipmesh.model.opening import CLOSED, OPENED_BY_HAND
from gossipmesh.model.records import NodeState, PolicyStatus
from gossipmesh.model.service import EndpointHealth
from gossipmesh.net.clock import monotonic, wall_offset_s, wall_seconds
from gossipmesh.telemetry.counters import Counters
from gossipmesh.trust.alarms import DocumentAlarm
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.wire.versions import FOREIGN_KEYS, LACKS_ROLL

TCP_ONLY: Final = "TCP only"
_NONE_YET: Final = {"endpoints": 0, "passing": 0}
_ENDPOINTS_PER_STEP: Final = 50


class Parts(Protocol):
    """The agent's parts, as far as views read them."""

    node: GossipNode
    inputs: GossipNode | RecordedInputs
    documents: TrustedDocuments
    shell: GossipShell
    addresses: AddressKeeper
    engine: EngineSupervisor
    identity: IdentityKeeper
    services: LocalServices
    feed: CatalogFeed
    started_at: Instant
    policy_refusals: Counters
    gate: Gate
    recorder: FlightRecorder | None
    build: str

    @property
    def config(self) -> AgentConfig:
        """Return what the agent was started with."""

    def other_seeds(self) -> list[Address]:
        """Return the seeds' addresses that are not this node itself."""

    def unresolved_seeds(self) -> dict[str, str]:
        """Return why a seed's host name does not resolve, by seed."""

    def engine_port_problems(self) -> list[str]:
        """Return which explicit upstream ports could not be had, one sentence each."""

    def shown_pins(self) -> dict[str, bytes]:
        """Return which key the engine shows for each identity, by its pin."""


def status(parts: Parts) -> dict[str, Any]:
    """Return this node's own state: GET /v1/status."""
    generation, epoch = parts.node.incarnation
    group_sum, documents_sum = parts.node.state_sums()
    statistics = parts.node.statistics()
    engine = parts.engine.view()
    agent_usage, engine_usage = usage_of(os.getpid()), usage_of(engine.pid)
    return {
        "name": parts.identity.identity.name,
        "node_id": parts.node.own_node_id.hex(),
        "trust_domain": parts.identity.identity.trust_domain,
        "version": __version__,
        "trust": _trust(parts.documents),
        "incarnation": {"generation": generation, "epoch": epoch},
        "local_health": parts.node.local_health,
        "detector": _detector(parts, statistics),
        "queues": parts.node.queue_depths(),
        "lag": {
            "now_ms": statistics.lag_ms,
            "published_ms": parts.node.own_state.lag_ms,
            "loop_max_ms": round(parts.shell.statistics.deadline_lag_ns_max / MILLISECOND_NS, 1),
            "stalls": parts.shell.statistics.stalls_count,
            "loop": _loop(parts),
            "pauses": statistics.pauses,
        },
        "recorder": recorder_view(parts),
        "state_sums": {
            "group": group_sum.hex(),
            "documents": documents_sum.hex(),
            "documents_before": parts.node.documents_sum_before().hex(),
        },
        "engine": {
            "pid": engine.pid,
            "attached": engine.attached,
            "snapshot_version": engine.acked_version,
            "acked": engine.acked_version is not None and engine.acked_version == engine.wanted_version,
            "wanted_version": engine.wanted_version,
            "refused_version": engine.refused_version,
            "refused_reason": engine.refused_reason,
            "answering": engine.answering,
            "full": list(engine.full),
            "starts": engine.starts_count,
            "name": engine.name,
            "lacks": list(engine.lacks),
            "draining": None if engine.draining is None else msgspec.structs.asdict(engine.draining),
            "ended": None if engine.ended is None else msgspec.structs.asdict(engine.ended),
        },
        "opening": parts.gate.view(),
        "holding_removals": parts.feed.holding,
        "uptime_s": round((monotonic() - parts.started_at) / SECOND_NS, 3),
        "rss_bytes": {"agent": agent_usage.rss_bytes, "engine": engine_usage.rss_bytes},
        "cpu_s": {"agent": agent_usage.cpu_s, "engine": engine_usage.cpu_s},
        "clock": {"wall": wall_seconds(), "skew_s": statistics.clock_skew_s, "peers": statistics.clock_peers},
        "identity_ends": horizon(parts.identity.identity),
    }


def _loop(parts: Parts) -> dict[str, Any]:
    """Return how long single tasks held the loop: by the clock, and of its own CPU time."""
    loop = parts.shell.loop
    return {
        "stalls": loop.stalls_count,
        "busy_stalls": loop.busy_stalls_count,
        "longest_ms": round(loop.longest_ns / MILLISECOND_NS, 1),
        "longest_busy_ms": round(loop.longest_busy_ns / MILLISECOND_NS, 1),
        "longest_busy_task": loop.longest_busy_task,
        "busy_stalls_by_task": {
            name: {"count": stalls.stalls_count, "longest_ms": round(stalls.longest_ns / MILLISECOND_NS, 1)}
            for name, stalls in loop.busy_stalls.items()
        },
    }


def _detector(parts: Parts, counts: GossipStatistics) -> dict[str, Any]:
    """Return what the failure detector is at: open cases, votes so far, what is held back.

    `isolated_s`: for so long nobody was heard and nobody answers; null while somebody does.
    """
    since = parts.node.isolated_since
    return {
        "isolated_s": None if since is None else round((monotonic() - since) / SECOND_NS, 3),
        "cases_open": counts.cases_open,
        "cases_opened": counts.cases_opened,
        "votes_cast": counts.votes_cast,
        "votes_received": counts.votes_received,
        "unvotes": counts.unvotes,
        "verdicts_made": counts.verdicts_made,
        "verdicts_applied": counts.verdicts_applied,
        "verdicts_deferred": counts.verdicts_deferred,
        "control_failures": counts.control_failures,
        "refutations": counts.refutations,
        "unreachable": parts.node.tally().unreachable_count,
        "endpoints_retained": counts.endpoints_retained,
    }


def recorder_view(parts: Parts) -> dict[str, Any] | None:
    """Return what the flight recorder holds; None when it is off."""
    recorder = parts.recorder
    if recorder is None:
        return None
    return {
        "bytes": recorder.size_bytes,
        "entries": recorder.entries_count - recorder.dropped_count,
        "dropped": recorder.dropped_count,
        "replayable": recorder.is_replayable,
    }


def members(parts: Parts) -> Response:
    """Return every member as this node holds it, sorted by name: GET /v1/members."""
    return json_rows_response(each_member_row(parts))


def _trust(documents: TrustedDocuments) -> dict[str, Any]:
    """Return what Trust says that commands ask for; `generations` are of the scopes whose is not 0."""
    trust = documents.trust
    if trust is None:
        return {"version": 0, "roll": "", "access": "allow", "generations": {}}
    generations = {scope: generation_of(floor) for scope, floor in sorted(trust.floors.items())}
    return {
        "version": trust.version,
        "roll": trust.roll,
        "access": trust.access.value,
        "generations": {scope: number for scope, number in generations.items() if number},
    }


def each_member_row(parts: Parts) -> Iterator[dict[str, Any]]:
    """Walk over the rows of `members`, for who does not want all of them at once."""
    return (member_row(parts, view) for view in parts.node.each_member())


def member_row(parts: Parts, view: MemberView) -> dict[str, Any]:
    """Return one member as `members` tells it."""
    return _member(view, monotonic(), itself=view.node_id == parts.node.own_node_id)


def _member(view: MemberView, now: int, *, itself: bool) -> dict[str, Any]:
    state = view.state
    return {
        "name": view.name,
        "node_id": view.node_id.hex(),
        "spiffe_id": view.spiffe_id,
        "status": view.status.label,
        "order": [state.generation, state.epoch, state.sequence],
        "gossip_address": str(state.gossip_addresses[0]),
        "gossip_addresses": [str(address) for address in state.gossip_addresses],
        "mesh_address": str(state.mesh_addresses[0]),
        "phase": _phase(state),
        "closed": CLOSED in state.features,
        "opened_by_hand": OPENED_BY_HAND in state.features,
        "build": state.build,
        "features": list(state.features),
        "since_s": round((now - view.changed_at) / SECOND_NS, 3),
        "reachability": "self" if itself else reachability(view),
        "heard_s": _seconds(view.heard_age_ns),
        "datagram_s": _seconds(view.datagram_age_ns),
        "answered_s": _seconds(view.answered_age_ns),
        "agreed_s": _seconds(view.agreed_age_ns),
        "clock_s": 0 if itself else _clock(view.wall_offset_s),
        "credential_ends": view.credential.ends,
        "foreign_keys": FOREIGN_KEYS in state.features,
        "lacks_roll": LACKS_ROLL in state.features,
        "lag_ms": view.lag_ms,
        "quarantine_s": _left_s(view.quarantine_until, now),
        "endpoints_retained": view.endpoints_retained,
        "policies": [_policy(policy) for policy in state.policies],
        "self": itself,
    }


def reachability(view: MemberView) -> str:
    """Return how this node stands to a member, in a word.

    `reachable`: heard lately or not missed; `unreachable`: not heard here and condemned by nobody;
    `TCP only`: it answers on streams, and no datagram passes both ways; `stale`: what is known of it is the
    last word of one that is gone.
    """
    if view.status in (MemberStatus.DEAD, MemberStatus.LEFT):
        return "stale"
    if view.unreachable:
        return "unreachable"
    return TCP_ONLY if view.is_tcp_only else "reachable"


def _seconds(age_ns: int | None) -> float | None:
    return None if age_ns is None else round(age_ns / SECOND_NS, 3)


def _clock(offset_s: int | None) -> int | None:
    """Return how far a member's clock is ahead of ours, in whole seconds; each reading is one off at most."""
    return None if offset_s is None else offset_s - wall_offset_s()


def _left_s(until: int | None, now: int) -> float | None:
    return None if until is None else round(max(0, until - now) / SECOND_NS, 3)


def _phase(state: NodeState) -> str:
    """Return how far a member is in its life, in a word; `closed`: it answers no call yet."""
    try:
        phase = NodePhase(state.phase)
    except ValueError:
        return str(state.phase)
    return CLOSED if phase is NodePhase.SERVING and CLOSED in state.features else phase.name.lower()


def _policy(policy: PolicyStatus) -> dict[str, Any]:
    return {
        "scope": policy.scope,
        "version": policy.version,
        "hash": policy.manifest_hash.hex(),
        "refused_version": policy.refused_version,
        "refused_hash": policy.refused_hash.hex(),
        "refused_reason": policy.refused_reason,
    }


def services(parts: Parts) -> Response:
    """Return each service and how it stands, sorted by name: GET /v1/services."""
    return Response(b"", more=_services(parts))


async def _services(parts: Parts) -> AsyncIterator[bytes]:
    found: dict[str, dict[str, Any]] = {}
    for count, row in enumerate(_endpoints(parts, None), 1):
        if row is not None:
            fresh = {"service": row["service"], "protocol": row["protocol"], **_NONE_YET, "nodes": {}}
            entry = found.setdefault(row["service"], fresh)
            entry["endpoints"] += 1
            entry["passing"] += row["health"] == "passing" and not row["draining"]
            entry["nodes"][row["node"]] = None
        if count % _ENDPOINTS_PER_STEP == 0:
            await trio.lowlevel.checkpoint()
    rows = [{**found[name], "nodes": list(found[name]["nodes"])} for name in sorted(found)]
    yield json_response(rows).body


def endpoints(parts: Parts, service: str | None) -> Response:
    """Return the endpoints of a service (None: of all), sorted by node: GET /v1/endpoints."""
    return json_rows_response(_endpoints(parts, service))


def _endpoints(parts: Parts, service: str | None) -> Iterator[dict[str, Any] | None]:
    """Walk over the endpoints; None for each member that has none of `service`, for that was a step too."""
    for member in parts.node.each_endpoints():
        wanted = [entry for entry in member.entries if service is None or entry.service == service]
        if not wanted:
            yield None
        for entry in wanted:
            yield {
                "service": entry.service,
                "registration": entry.registration,
                "protocol": entry.protocol,
                "node": member.node,
                "address": str(member.address),
                "health": _health(entry.health),
                "draining": entry.draining or member.draining,
                "weight": entry.weight,
                "labels": dict(entry.labels),
                "member_status": member.status.label,
            }


def _health(number: int) -> str:
    try:
        return EndpointHealth(number).label
    except ValueError:
        return str(number)


def policy_documents(parts: Parts, scope: str) -> list[dict[str, Any]]:
    """Return the documents in force of a scope, sorted by name: GET /v1/policy/list."""
    accepted = parts.documents.in_force(scope)
    rows = []
    for entry in () if accepted is None else accepted.manifest.entries:
        kind, namespace, name = entry.name.split("/", 2)
        rows.append(
            {
                "name": name,
                "kind": kind,
                "namespace": namespace,
                "version_since": entry.since,
                "size": entry.size,
                "sha256": entry.sha256,
            }
        )
    return rows


def policy_status(parts: Parts) -> Response:
    """Return what this node and every member runs of each scope: GET /v1/policy/status."""
    rows = (
        {"name": row["name"], "status": row["status"], "policies": row["policies"], "self": row["self"]}
        for row in each_member_row(parts)
    )
    scopes = [_policy(policy) for policy in parts.node.own_state.policies]
    alarms = [_alarm(one) for one in alarms_of(parts.documents, wall_seconds())]
    return json_rows_response(rows, {"scopes": scopes, "alarms": alarms}, "members")


def _alarm(alarm: DocumentAlarm) -> dict[str, Any]:
    proofs = [base64.b64encode(proof).decode() for proof in alarm.proofs]
    return {
        "kind": alarm.kind,
        "scope": alarm.scope,
        "version": alarm.version,
        "text": alarm.text,
        "noted_at": alarm.noted_at or None,
        "proofs": proofs,
    }


def snapshot(parts: Parts) -> dict[str, Any]:
    """Return the snapshot the engine was given, decoded: GET /v1/proxy/snapshot."""
    current = parts.feed.snapshot
    if current is None:
        return {"version": None, "sections": {}}
    return {
        "version": current.version,
        "sections": {name: msgspec.to_builtins(current.section(name)) for name in current.root},
    }


def identities(parts: Parts) -> list[dict[str, Any]]:
    """Return the node's keys and certificates, sorted by identity: GET /v1/identity.

    `not_before` and `not_after` are those of the authority's certificate; null where there is none.
    """
    identity, usable = parts.identity.identity, parts.identity.keys.usable()
    svids = identity.svids
    return [
        {
            "spiffe_id": spiffe_id,
            "not_before": svids[spiffe_id].not_before if spiffe_id in svids else None,
            "not_after": svids[spiffe_id].not_after if spiffe_id in svids else None,
            "pins": [pin.hex() for pin in keys.pins],
            "shown": usable[spiffe_id].pin.hex() if spiffe_id in usable else None,
        }
        for spiffe_id, keys in identity.holding.keys.items()
    ]


def keys(parts: Parts) -> dict[str, Any]:
    """Return how this node's keys turn: GET /v1/keys."""
    now, keeper = monotonic(), parts.identity.keys
    return {
        "turns": keeper.turns_count,
        "next_turn_s": round((keeper.turning.turn_at - now) / SECOND_NS, 3),
        "heard": keeper.turning.is_heard,
        "settled": keeper.turning.is_settled,
        "waits_for": keeper.turning.waits_for(now),
        "shown": {name: pin.hex() for name, pin in parts.shown_pins().items()},
    }
