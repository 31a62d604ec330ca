"""What exchanges stand on and leave behind: the tables in force, upstreams, endpoints' records, effects.

Sans-IO, one task at a time. Rules:

1. Balancers, admission and retry budgets live by upstream name from snapshot to snapshot and take its
   numbers; what is known of endpoints is one registry for all of them (`gossipmesh.traffic.endpoints`).
2. What an input to one exchange means for others, and what the agent and operators are to know, is an effect;
   the engine takes them after each input, in order.
3. After a snapshot, and once a second, every try under way is judged again: it ends where its caller may not
   go on, or where a try that may be made again has somewhere better to go.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from gossipmesh.model.instant import Instant
from gossipmesh.model.snapshot import InboundSection, LimitsSection, SnapshotEndpoint, UpstreamSection
from gossipmesh.traffic.actions import Counted, Reset
from gossipmesh.traffic.admission import Admission
from gossipmesh.traffic.balance import Balancer, RandomSource
from gossipmesh.traffic.endpoints import EndpointChange, EndpointKey, EndpointStates, key_of
from gossipmesh.traffic.retries import RetryBudget
from gossipmesh.traffic.routing import ServiceRouter
from gossipmesh.traffic.tables import Tables


class Upstream:
    """What is remembered of one set of endpoints: turns, places, retries."""

    __slots__ = ("_keys", "admission", "balancer", "budget")

    def __init__(self, section: UpstreamSection, limits: LimitsSection, states: EndpointStates) -> None:
        self.balancer = Balancer(section, limits, states)
        self.admission = Admission(limits)
        self.budget = RetryBudget.of(limits)
        self._keys = {key_of(endpoint) for endpoint in section.endpoints}

    def update(self, section: UpstreamSection, limits: LimitsSection) -> list[EndpointKey]:
        """Take a new section and new numbers; return which endpoints left it."""
        balancer = self.balancer
        if section is balancer.section and limits is balancer.limits:
            return []
        gone = balancer.update(section, limits)
        self.admission.update(limits)
        self.budget.update(limits)
        self._keys = {key_of(endpoint) for endpoint in section.endpoints}
        return gone

    def close(self) -> list[EndpointKey]:
        """List nobody any more: the upstream left the snapshot; return who it listed."""
        gone, self._keys = list(self._keys), set()
        return gone

    def lists(self, key: EndpointKey) -> bool:
        """Tell whether an endpoint is one of this upstream now."""
        return key in self._keys

    def lets_go(self, key: EndpointKey) -> bool:
        """Tell whether an endpoint is a last resort, or has left and does not merely finish what it has."""
        if key in self._keys:
            return self.balancer.is_last_resort(key)
        return f"{key[0]}/{key[1]}" not in self.balancer.section.draining


class UnderWay(Protocol):
    """An exchange with a try under way."""

    def review(self, now: Instant) -> Reset | None:
        """Judge the try again."""
        ...


class Stopped(msgspec.Struct, frozen=True):
    """A try under way ends by what happened elsewhere."""

    exchange: UnderWay
    reset: Reset


class Denied(msgspec.Struct, frozen=True):
    """A caller was refused by `rule`, or its connection ended; `method` and `path` are empty for TCP."""

    caller: str
    service: str
    method: str
    path: str
    rule: str


Effect = Counted | EndpointChange | Stopped | Denied


class Ground:
    """Everything exchanges share."""

    def __init__(self, rng: RandomSource) -> None:
        self.rng = rng
        self.states = EndpointStates()
        self.upstreams: dict[str, Upstream] = {}
        self.open: dict[UnderWay, None] = {}
        """Exchanges with a try under way, oldest first."""
        self.effects: list[Effect] = []
        self._tables: Tables | None = None

    @property
    def tables(self) -> Tables:
        """Return the tables in force; nothing is asked before there are some."""
        assert self._tables is not None
        return self._tables

    def apply(self, tables: Tables, now: Instant) -> None:
        """Swap new tables in; the next request sees them, and tries under way are judged by them."""
        self._tables = tables
        self.states.isolation.own = tables.node
        gone: list[EndpointKey] = []
        for name in list(self.upstreams):
            section = tables.upstreams.get(name)
            if section is None:
                gone += self.upstreams.pop(name).close()
            else:
                gone += self.upstreams[name].update(section, tables.limits)
        self.states.forget_unlisted(gone, tables.upstreams.values())
        self.tell_changes()
        self.review(now)

    def router(self, service: str) -> ServiceRouter | None:
        """Return the rules of a service, None when the tables have none."""
        return None if self._tables is None else self._tables.routes.router(service)

    def inbound(self, server_name: str) -> InboundSection | None:
        """Return the workload of this node that an SNI names, None when there is none."""
        return None if self._tables is None else self._tables.inbounds.get(server_name)

    def upstream(self, name: str) -> Upstream | None:
        """Return the state of an upstream the tables have, made at first use."""
        state = self.upstreams.get(name)
        if state is None and self._tables is not None and name in self._tables.upstreams:
            state = Upstream(self._tables.upstreams[name], self._tables.limits, self.states)
            self.upstreams[name] = state
        return state

    def pick(
        self, upstream: Upstream, now: Instant, tried: Sequence[SnapshotEndpoint]
    ) -> SnapshotEndpoint | None:
        """Return where a try goes, None for nowhere; letting in endpoints that are out is counted."""
        endpoint = upstream.balancer.pick(self.rng, now, tried)
        if upstream.balancer.panicked:
            self.count("panics")
        return endpoint

    def review(self, now: Instant) -> None:
        """End tries that may not go on, and those that are better made elsewhere.

        Cost: O(tries under way).
        """
        for exchange in list(self.open):
            reset = exchange.review(now)
            if reset is not None:
                self.effects.append(Stopped(exchange, reset))

    def unreached(self, node: str, now: Instant) -> None:
        """Take note that `node` is out of reach; if so are others, what waits for them moves home."""
        if self.states.unreached(node, now):
            self.count("isolations")
            self.review(now)

    def reached(self, node: str, now: Instant) -> None:
        """Take note of contact with `node`."""
        if self.states.reached(node, now):
            self.tell_changes()

    def count(self, name: str) -> None:
        """Count once."""
        self.effects.append(Counted(name))

    def tell_changes(self) -> None:
        """Make effects of which endpoints went out and which came back."""
        if self.states.changes:
            self.effects += self.states.take_changes()

    def take_effects(self) -> list[Effect]:
        """Return the effects since the last call, in order."""
        effects, self.effects = self.effects, []
        return effects
