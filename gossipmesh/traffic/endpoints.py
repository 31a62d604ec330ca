"""What a node remembers of endpoints: one registry for all its upstreams.

`shop/cart` and its subset `shop/cart@v2` name the same endpoints: a refused connection seen through one
counts for both, and an endpoint is forgotten when no upstream lists it any more. Rules:

1. An endpoint is (node, registration, address): a new address is a new endpoint.
2. The memory is bounded; the least recently used goes first.
3. Whoever goes out or comes back is told of, once each way, with the upstream that saw it go.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable

import msgspec

from gossipmesh.model import limits as bounds
from gossipmesh.model.instant import Instant
from gossipmesh.model.snapshot import SnapshotEndpoint, UpstreamSection
from gossipmesh.traffic.ejection import EndpointState, pardon
from gossipmesh.traffic.isolation import Isolation

EndpointKey = tuple[str, str, str, int]
"""(node, registration, host, port); of a local workload the node is empty."""

REASON_RETURNED = "returned"
REASON_REMOVED = "removed"
REASON_PARDONED = "caller_isolated"


class EndpointChange(msgspec.Struct, frozen=True):
    """An endpoint went out (`ejected`) or is in use again; `reason` says why."""

    upstream: str
    registration: str
    node: str
    reason: str
    ejected: bool


def key_of(endpoint: SnapshotEndpoint) -> EndpointKey:
    """Return what an endpoint is."""
    return endpoint.node, endpoint.registration, endpoint.address.host, endpoint.address.port


class EndpointStates:
    """The registry, and this node's own contact with others."""

    def __init__(self, states_max: int = bounds.ENDPOINT_STATES_MAX, own: str = "") -> None:
        self._states: OrderedDict[EndpointKey, EndpointState] = OrderedDict()
        self._states_max = states_max
        self.changes: list[EndpointChange] = []
        """What went out and came back, until it is taken."""
        self.isolation = Isolation(own)
        self.generation = 0

    def get(self, key: EndpointKey) -> EndpointState | None:
        """Return what is known of an endpoint, None for nothing."""
        return self._states.get(key)

    def touch(self, key: EndpointKey) -> EndpointState:
        """Return the endpoint's state, made now if there is none."""
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = EndpointState()
            if len(self._states) > self._states_max:
                oldest, _ = next(iter(self._states.items()))
                self._drop(oldest)
        else:
            self._states.move_to_end(key)
        return state

    def forget_unlisted(self, gone: Iterable[EndpointKey], sections: Collection[UpstreamSection]) -> None:
        """Drop those of `gone`, which left some upstream, that no upstream in `sections` lists.

        Cost: O(endpoints of `sections`) if any of `gone` is known.
        """
        known = [key for key in gone if key in self._states]
        if not known:
            return
        listed = {key_of(endpoint) for section in sections for endpoint in section.endpoints}
        for key in known:
            if key not in listed:
                self._drop(key)

    def _drop(self, key: EndpointKey) -> None:
        state = self._states.pop(key)
        self.generation += 1
        if state.ejected_until is not None:
            self.came_back(key, state, REASON_REMOVED)

    def went_out(self, key: EndpointKey, state: EndpointState, upstream: str, reason: str) -> None:
        """Say that a try through `upstream` took an endpoint out; every balancer looks again."""
        state.ejected_through = upstream
        self._changed(key, state, reason, True)

    def came_back(self, key: EndpointKey, state: EndpointState, reason: str = REASON_RETURNED) -> None:
        """Say that an endpoint is in use again; every balancer looks again."""
        self._changed(key, state, reason, False)

    def _changed(self, key: EndpointKey, state: EndpointState, reason: str, ejected: bool) -> None:
        node, registration, _, _ = key
        self.changes.append(EndpointChange(state.ejected_through, registration, node, reason, ejected))
        self.generation += 1

    def availability_changed(self) -> None:
        """Say that a trial began or ended; every balancer looks again."""
        self.generation += 1

    def take_changes(self) -> list[EndpointChange]:
        """Return what went out and came back since the last call, in order."""
        if not self.changes:
            return []
        changes, self.changes = self.changes, []
        return changes

    def unreached(self, node: str, now: Instant) -> bool:
        """Note that `node` was out of reach; True when this node is isolated from now on."""
        began = self.isolation.unreached(node, now)
        if began or self.isolation.isolated:
            self.generation += 1
        return began

    def reached(self, node: str, now: Instant) -> bool:
        """Note contact with `node`; True when it ends an isolation, whose ejections are undone.

        Cost: O(1), but for the end of an isolation.
        """
        since = self.isolation.since
        lost = self.isolation.reached(node)
        if not lost:
            return False
        self.generation += 1
        for key, state in self._states.items():
            if key[0] in lost and state.ejected_until is not None and state.ejected_at >= since:
                pardon(state, now)
                self.came_back(key, state, REASON_PARDONED)
        return True
