"""What the engine serves: the applied snapshot, and what must outlive one.

Responsible for turning a snapshot into lookups and for swapping it in whole. Ends at connections. Rules:

1. `prepare` reads everything and changes nothing; `apply` cannot fail.
2. Balancers, budgets and pools live by upstream name from snapshot to snapshot; decoded sections and
   route indexes live as long as their hash.
3. An endpoint that left: its idle connections are closed, and tries under way that may be made again are
   stopped if there is somewhere better to make them. Not those at one that merely drains: it finishes
   what it has. Others go on, and keepalive bounds what waits for a dead one.
"""

import random
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from gossipmesh.dataplane.protocol import Ejection, EngineEvent
from gossipmesh.dataplane.reference.demands import Demands
from gossipmesh.dataplane.reference.dial_queue import DialQueue
from gossipmesh.dataplane.reference.identities import Identities
from gossipmesh.dataplane.reference.peers import KnownPeers, Peers
from gossipmesh.dataplane.reference.pool import ConnectionPool, PooledConnection
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.dataplane.reference.tries import Attempt, Attempts, Stop
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import node_name_of_spiffe_id, parse_spiffe_id
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.snapshot import (
    CallersSection,
    InboundSection,
    LimitsSection,
    ListenersSection,
    RoutesSection,
    Section,
    SnapshotEndpoint,
    UpstreamListener,
    UpstreamSection,
)
from gossipmesh.traffic.admission import Admission
from gossipmesh.traffic.balance import Balancer
from gossipmesh.traffic.endpoints import EndpointKey, EndpointStates, key_of
from gossipmesh.traffic.retries import REASON_BUDGET, RetryBudget, RetryDecision
from gossipmesh.traffic.routing import RouteTable, ServiceRouter
from gossipmesh.traffic.sections import Snapshot, decode_section_untrusted
from gossipmesh.trust.peer_identity import Peer


def now() -> Instant:
    """Return now on trio's clock, which tests may drive."""
    return Instant(int(trio.current_time() * SECOND_NS))


class UpstreamState:
    """What the engine remembers of one upstream."""

    def __init__(self, section: UpstreamSection, limits: LimitsSection, states: EndpointStates) -> None:
        self.balancer = Balancer(section, limits, states)
        self.admission = Admission(limits)
        self.budget = RetryBudget.of(limits)
        self.pool = ConnectionPool()
        self._keys = {key_of(endpoint) for endpoint in section.endpoints}

    def update(self, section: UpstreamSection, limits: LimitsSection) -> list[EndpointKey]:
        """Take a new section; return what left it."""
        gone: list[EndpointKey] = []
        changed = section is not self.balancer.section
        if changed or limits is not self.balancer.limits:
            gone = self.balancer.update(section, limits)
            self.admission.update(limits)
            self.budget.update(limits)
        if changed:
            self._keep_only({key_of(endpoint) for endpoint in section.endpoints})
        return gone

    def close(self) -> list[EndpointKey]:
        """Let go of everything, and return it; the upstream left the snapshot."""
        gone = list(self._keys)
        self._keep_only(set())
        return gone

    def keep(self, connection: PooledConnection) -> bool:
        """Keep a connection for later, unless its endpoint has left meanwhile."""
        if connection.key not in self._keys:
            return False
        self.pool.give(connection, now())
        return True

    def deliver(self, connection: PooledConnection) -> None:
        """Give a connection just made to who has waited longest, or keep it."""
        want = self.pool.wants.oldest(connection.place)
        if want is not None:
            want.serve(connection)
        else:
            self.keep_or_close(connection)

    def keep_or_close(self, connection: PooledConnection) -> None:
        """Keep an unused connection for later, or close it when nobody could use it."""
        if not self.keep(connection):
            connection.close()

    def _keep_only(self, keys: set[EndpointKey]) -> None:
        self._keys = keys
        self.pool.keep_only(keys)

    def lets_go(self, key: EndpointKey) -> bool:
        """Tell whether an endpoint is a last resort, or has left and does not merely finish what it has."""
        if key in self._keys:
            return self.balancer.is_last_resort(key)
        return f"{key[0]}/{key[1]}" not in self.balancer.section.draining


class Tunnel(Protocol):
    """An opaque connection to another node, under way."""

    @property
    def peer(self) -> Peer | None:
        """Return who is at the other end."""
        ...

    def revoke(self) -> None:
        """End it: who is there is not what it was."""
        ...


class Applied:
    """One snapshot, decoded and indexed; never changed."""

    def __init__(self, snapshot: Snapshot, sections: dict[str, Section], previous: "Applied | None") -> None:
        self.snapshot = snapshot
        self.sections = sections
        self.upstreams: dict[str, UpstreamSection] = {}
        self.inbounds: dict[str, InboundSection] = {}
        self.listeners: dict[str, UpstreamListener] = {}
        self.closed = ""
        routes: list[RoutesSection] = []
        limits: LimitsSection | None = None
        callers: CallersSection | None = None
        for section in sections.values():
            if isinstance(section, RoutesSection):
                routes.append(section)
            elif isinstance(section, UpstreamSection):
                self.upstreams[section.upstream] = section
            elif isinstance(section, InboundSection):
                self.inbounds[section.server_name] = section
            elif isinstance(section, ListenersSection):
                self.listeners = {listener.name: listener for listener in section.upstreams}
                self.closed = section.closed
            elif isinstance(section, CallersSection):
                callers = section
            elif isinstance(section, LimitsSection):
                limits = section
        if limits is None or callers is None or "listeners" not in snapshot.root:
            raise MalformedInput("a snapshot without limits, callers or listeners")
        self.limits = limits
        self.node_spiffe_id = callers.node_spiffe_id
        self.trust_domain = parse_spiffe_id(callers.node_spiffe_id)[0]
        self.node = node_name_of_spiffe_id(callers.node_spiffe_id) or ""
        self.probe_name = f"{self.node}.node.{self.trust_domain}"
        self._callers = {caller.uid: caller.spiffe_id for caller in callers.callers}
        unregistered = callers.unregistered
        self._unregistered = callers.node_spiffe_id if unregistered is None else unregistered
        self.peers: KnownPeers = KnownPeers.of_sections(
            self.trust_domain, sections, None if previous is None else previous.peers
        )
        self.routes: RouteTable = RouteTable.build(routes, None if previous is None else previous.routes)

    def caller_of(self, uid: int) -> str:
        """Return the identity a local uid speaks with; empty: none, it may not call."""
        return self._callers.get(uid, self._unregistered)


class EngineState:
    """Everything connections share."""

    def __init__(
        self, counters: Counters, rng: random.Random, on_event: Callable[[EngineEvent], None]
    ) -> None:
        self.counters = counters
        self.rng = rng
        self.emit = on_event
        self.applied: Applied | None = None
        self.identities: Identities | None = None
        self.upstreams: dict[str, UpstreamState] = {}
        self.endpoint_states = EndpointStates()
        self.workloads = ConnectionPool(limits.WORKLOAD_CONNECTIONS_IDLE_MAX)
        self.draining = trio.Event()
        self.changed = trio.Event()
        self.attempts = Attempts()
        self.demands = Demands(counters, on_event, self.router)
        self.dials = DialQueue()
        self.peers = Peers(counters)
        self.tunnels: set[Tunnel] = set()

    @property
    def limits(self) -> LimitsSection:
        """Return the numbers in force; nothing goes anywhere before there are some."""
        assert self.applied is not None
        return self.applied.limits

    @property
    def idle_timeout_tcp_s(self) -> float:
        """Return how long an opaque connection may be silent."""
        return self.limits.idle_timeout_tcp_ns / SECOND_NS

    def inbound(self, server_name: str | None) -> InboundSection | None:
        """Return the workload of this node that an SNI names, None when there is none."""
        return None if self.applied is None else self.applied.inbounds.get(server_name or "")

    def prepare(self, snapshot: Snapshot) -> Applied:
        """Decode and index a snapshot; sections with a known hash are taken over.

        Raises:
            MalformedInput: it cannot be executed. Remote's fault. State unchanged.
        """
        old = self.applied
        sections: dict[str, Section] = {}
        for name, digest in snapshot.root.items():
            if old is not None and old.snapshot.root.get(name) == digest:
                sections[name] = old.sections[name]
            else:
                sections[name] = decode_section_untrusted(name, snapshot.sections[digest])
        return Applied(snapshot, sections, old)

    def apply(self, applied: Applied) -> bool:
        """Swap a prepared snapshot in; the next request sees it. Tell whether peers may be gone by it."""
        self.applied = applied
        peers_changed = self.peers.learn(applied.peers)
        self.endpoint_states.isolation.own = applied.node
        gone: list[EndpointKey] = []
        for name in list(self.upstreams):
            section = applied.upstreams.get(name)
            if section is None:
                gone += self.upstreams.pop(name).close()
            else:
                gone += self.upstreams[name].update(section, applied.limits)
        self.endpoint_states.forget_unlisted(gone, applied.upstreams.values())
        self.tell_changes()
        if peers_changed:
            self.end_gone()
        self.review()
        changed, self.changed = self.changed, trio.Event()
        changed.set()
        self.demands.applied()
        return peers_changed

    def end_gone(self) -> None:
        """End what leads to nodes that are what they were no more, whether it is in use or not.

        Callers' requests are ended by `review`.
        Cost: O(connections out of here), when credentials have changed.
        """
        for upstream in self.upstreams.values():
            self.peers.cut(upstream.pool.close_gone(self.peers.gone))
        for attempt in self.attempts.all():
            if attempt.connection is not None and self.peers.gone(attempt.connection.peer):
                attempt.stop(Stop.REVOKED)
                self.peers.cut()
        for tunnel in list(self.tunnels):
            if self.peers.gone(tunnel.peer):
                tunnel.revoke()
                self.peers.cut()

    def review(self) -> None:
        """End tries that may not go on, and those that are better made elsewhere.

        Cost: O(tries under way).
        """
        for attempt in self.attempts.all():
            self._review(attempt)

    def _review(self, attempt: Attempt) -> None:
        if attempt.allowed is not None and not attempt.allowed():
            attempt.stop(Stop.GONE)
        elif attempt.upstream and attempt.can_move:
            upstream = self.upstreams.get(attempt.upstream)
            cut = self.endpoint_states.isolation.is_lost(attempt.key[0])
            if upstream is None or not (cut or upstream.lets_go(attempt.key)):
                return
            if upstream.balancer.has_better(attempt.key, now(), attempt.tried):
                attempt.stop(Stop.CUT if cut else Stop.REMOVED)

    def pick(
        self, upstream: UpstreamState, instant: Instant, tried: Sequence[SnapshotEndpoint]
    ) -> SnapshotEndpoint | None:
        """Return where a try goes, None for nowhere; letting in endpoints that are out is counted."""
        endpoint = upstream.balancer.pick(self.rng, instant, tried)
        if upstream.balancer.panicked:
            self.counters.add("panics")
        return endpoint

    def count_decision(self, decision: RetryDecision) -> None:
        """Count what was decided after a failed try, where an operator would want to know."""
        if decision.retry:
            self.counters.add("retries")
        elif decision.reason == REASON_BUDGET:
            self.counters.add("retries_over_budget")

    def is_served(self, router: ServiceRouter) -> bool:
        """Tell whether anybody serves what the rules of a service lead to."""
        applied = self.applied
        return applied is not None and any(
            applied.upstreams[backend.upstream].endpoints
            for route in router.section.routes
            for backend in route.backends
            if backend.upstream in applied.upstreams
        )

    def unreached(self, node: str) -> None:
        """Take note that `node` is out of reach; if so are others, what waits for them moves home."""
        if self.endpoint_states.unreached(node, now()):
            self.counters.add("isolations")
            self.review()

    def reached(self, node: str, instant: Instant) -> None:
        """Take note of contact with `node`."""
        if self.endpoint_states.reached(node, instant):
            self.tell_changes()

    def tell_changes(self) -> None:
        """Tell the agent which endpoints went out and which came back."""
        if not self.endpoint_states.changes:
            return  # as after nearly every request
        for change in self.endpoint_states.take_changes():
            if change.ejected:
                self.counters.add("ejections")
            self.emit(
                Ejection(change.upstream, change.registration, change.node, change.reason, change.ejected)
            )

    def set_identities(self, identities: Identities) -> None:
        """Use new SVIDs from now on; new roots end every idle connection."""
        old, self.identities = self.identities, identities
        self.peers.trust_roots(identities.roots)
        if old is not None and old.bundle_pem != identities.bundle_pem:
            for upstream in self.upstreams.values():
                upstream.pool.close_all()

    def upstream(self, name: str) -> UpstreamState | None:
        """Return the state of an upstream the snapshot has, made at first use."""
        state = self.upstreams.get(name)
        if state is None and self.applied is not None and name in self.applied.upstreams:
            state = UpstreamState(self.applied.upstreams[name], self.applied.limits, self.endpoint_states)
            self.upstreams[name] = state
        return state

    def close(self) -> None:
        """Close every idle connection; the engine ends."""
        for upstream in self.upstreams.values():
            upstream.pool.close_all()
        self.workloads.close_all()

    def maintain(self, holds_other_end: Callable[[socket.socket], bool]) -> None:
        """Once a second: close connections idle too long, end tries nobody waits for."""
        self.peers.alone(now())
        if self.applied is not None:
            # Four fifths: the other side's limit is the same, and it must not close first.
            idle_before = Instant(now() - self.applied.limits.idle_timeout_http_ns * 4 // 5)
            for upstream in self.upstreams.values():
                upstream.pool.reap(idle_before)
            self.workloads.reap(idle_before)
        for attempt in self.attempts.all():
            attempt.check_client(holds_other_end)
            if attempt.node:
                self._review(attempt)  # where there was nowhere to go there may be now

    async def router_for(self, service: str) -> ServiceRouter | None:
        """Return the rules of a service, asking the agent and waiting a while when there are none."""
        return self.router(service) or await self.demands.wait(service)

    def router(self, service: str) -> ServiceRouter | None:
        """Return the rules of a service, None when the snapshot has none."""
        return None if self.applied is None else self.applied.routes.router(service)
