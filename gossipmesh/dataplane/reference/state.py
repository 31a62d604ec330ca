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
from collections.abc import Callable
from typing import Final, Protocol

import trio

from gossipmesh.dataplane.protocol import FEATURES, Denial, Ejection, EngineEvent
from gossipmesh.dataplane.reference.clock import now
from gossipmesh.dataplane.reference.demands import Demands
from gossipmesh.dataplane.reference.dial_queue import DialQueue
from gossipmesh.dataplane.reference.identities import Identities
from gossipmesh.dataplane.reference.peers import KnownPeers, Peers
from gossipmesh.dataplane.reference.pool import ConnectionPool, PooledConnection
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.dataplane.reference.tries import Attempts
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import node_name_of_spiffe_id, parse_spiffe_id
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.snapshot import (
    CallersSection,
    InboundSection,
    LimitsSection,
    ListenersSection,
    Section,
    UpstreamListener,
)
from gossipmesh.traffic.actions import Counted
from gossipmesh.traffic.admission import Admission
from gossipmesh.traffic.endpoints import EndpointChange
from gossipmesh.traffic.exchange import Exchange
from gossipmesh.traffic.ground import Ground, Stopped, Upstream
from gossipmesh.traffic.sections import Snapshot, decode_section_untrusted, require_known
from gossipmesh.traffic.tables import Tables
from gossipmesh.trust.peer_identity import Peer

_PATH_CHARS_MAX: Final = 1_024  # of a denied path, told to the agent


class UpstreamState:
    """The connections of one upstream; what decides about them is `gossipmesh.traffic.ground.Upstream`."""

    def __init__(self, rules: Upstream) -> None:
        self.rules = rules
        self.pool = ConnectionPool()

    @property
    def admission(self) -> Admission:
        """Return who gives out places for connections."""
        return self.rules.admission

    def keep(self, connection: PooledConnection) -> bool:
        """Keep a connection for later, unless its endpoint has left meanwhile."""
        if not self.rules.lists(connection.key):
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

    def close_unlisted(self) -> None:
        """Close idle connections to endpoints that have left."""
        self.pool.close_unless(self.rules.lists)


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
        self.listeners: dict[str, UpstreamListener] = {}
        self.closed = ""
        callers: CallersSection | None = None
        for section in sections.values():
            if isinstance(section, ListenersSection):
                self.listeners = {listener.name: listener for listener in section.upstreams}
                self.closed = section.closed
            elif isinstance(section, CallersSection):
                callers = section
        if callers is None or not {"limits", "listeners"} <= snapshot.root.keys():
            raise MalformedInput("a snapshot without limits, callers or listeners")
        self.node_spiffe_id = callers.node_spiffe_id
        self.trust_domain = parse_spiffe_id(callers.node_spiffe_id)[0]
        self.node = node_name_of_spiffe_id(callers.node_spiffe_id) or ""
        self.tables: Tables = Tables(
            sections.values(), self.node, None if previous is None else previous.tables
        )
        self.probe_name = f"{self.node}.node.{self.trust_domain}"
        self._callers = {caller.uid: caller.spiffe_id for caller in callers.callers}
        unregistered = callers.unregistered
        self._unregistered = callers.node_spiffe_id if unregistered is None else unregistered
        self.peers: KnownPeers = KnownPeers.of_sections(
            self.trust_domain, sections, None if previous is None else previous.peers
        )

    @property
    def limits(self) -> LimitsSection:
        """Return the numbers in force."""
        return self.tables.limits

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
        self.ground = Ground(rng)
        self.upstreams: dict[str, UpstreamState] = {}
        self.workloads = ConnectionPool(limits.WORKLOAD_CONNECTIONS_IDLE_MAX)
        self.draining = trio.Event()
        self.changed = trio.Event()
        self.attempts = Attempts(self.heed)
        self.demands = Demands(counters, on_event, self.ground.router)
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
        return self.ground.inbound(server_name or "")

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
                require_known(name, sections[name], FEATURES)
        return Applied(snapshot, sections, old)

    def apply(self, applied: Applied, instant: Instant) -> bool:
        """Swap a prepared snapshot in; the next request sees it. Tell whether peers may be gone by it."""
        self.applied = applied
        peers_changed = self.peers.learn(applied.peers)
        if peers_changed:
            self.end_gone()
        self.ground.apply(applied.tables, instant)
        for name, upstream in list(self.upstreams.items()):
            if self.ground.upstreams.get(name) is not upstream.rules:
                del self.upstreams[name]
            upstream.close_unlisted()
        self.heed()
        changed, self.changed = self.changed, trio.Event()
        changed.set()
        self.demands.applied()
        return peers_changed

    def end_gone(self) -> None:
        """End what leads to nodes that are what they were no more, whether it is in use or not.

        Cost: O(connections out of here), when credentials have changed.
        """
        for upstream in self.upstreams.values():
            self.peers.cut(upstream.pool.close_gone(self.peers.gone))
        for attempt in self.attempts.all():
            if self.peers.gone(attempt.peer):
                attempt.revoke()
                if attempt.caller is None:  # of a caller all connections are counted, in use or not
                    self.peers.cut()
        self.heed()
        for tunnel in list(self.tunnels):
            if self.peers.gone(tunnel.peer):
                tunnel.revoke()
                self.peers.cut()

    def unreached(self, node: str) -> None:
        """Take note that `node` is out of reach; if so are others, what waits for them moves home."""
        self.ground.unreached(node, now())
        self.heed()

    def reached(self, node: str, instant: Instant) -> None:
        """Take note of contact with `node`."""
        self.ground.reached(node, instant)
        self.heed()

    def review(self) -> None:
        """End tries that may not go on, and those that are better made elsewhere.

        Cost: O(tries under way).
        """
        self.ground.review(now())
        self.heed()

    def heed(self) -> None:
        """Carry out what an input to one exchange means for others, the agent and operators."""
        if not self.ground.effects:
            return  # as after nearly every input
        for effect in self.ground.take_effects():
            if isinstance(effect, Counted):
                self.counters.add(effect.name)
            elif isinstance(effect, Stopped):
                self.attempts.reset(effect.exchange, effect.reset)
            elif isinstance(effect, EndpointChange):
                self._tell(effect)
            else:
                self.counters.add("denials")
                method, path = effect.method or "", effect.path[:_PATH_CHARS_MAX].partition("?")[0]
                self.emit(Denial(effect.caller, effect.service, method, path, effect.rule))

    def _tell(self, change: EndpointChange) -> None:
        if change.ejected:
            self.counters.add("ejections")
        told = (change.upstream, change.registration, change.node, change.reason, change.ejected)
        self.emit(Ejection(*told))

    def set_identities(self, identities: Identities) -> None:
        """Use new SVIDs from now on; new roots end every idle connection."""
        old, self.identities = self.identities, identities
        self.peers.trust_roots(identities.roots)
        if old is not None and old.bundle_pem != identities.bundle_pem:
            for upstream in self.upstreams.values():
                upstream.pool.close_all()

    def connections(self, exchange: Exchange) -> UpstreamState:
        """Return the connections of the upstream that an exchange was led to.

        It may have left the snapshot since: then nothing of it is kept.
        """
        name, rules = exchange.upstream_name, exchange.upstream
        assert rules is not None, "it was led somewhere"
        known = self.upstreams.get(name)
        if known is None or known.rules is not rules:
            known = UpstreamState(rules)
            if self.ground.upstreams.get(name) is rules:
                self.upstreams[name] = known
        return known

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
        self.review()  # where there was nowhere to go there may be now
