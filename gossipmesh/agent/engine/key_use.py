"""An agent's parts as the turning of keys sees them: who publishes pins, who holds them, who shows keys.

Rules:
1. Who holds our set is not asked while the view after a start is not whole: nobody is no sign of being alone.
2. A peer that shows our state sum holds all that we hold. In a mesh that never rests sums are seldom equal:
   what was said so long ago, while somebody is heard, counts as held by all.
3. Who is cut off has no peers that could hold anything, and its own applications must not wait for them.
"""

import logging
from collections.abc import Callable, Collection
from typing import Final

from gossipmesh.agent.engine.identified_engine import IdentifiedEngine
from gossipmesh.agent.identity.key_turning import Pins
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import NodeId, parse_spiffe_id
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import IdentityPins
from gossipmesh.net.clock import monotonic

log = logging.getLogger("gossipmesh.agent.keys")

_SPREAD_NS: Final = 5 * SECOND_NS  # a few times what an update takes to reach a thousand nodes


class AgentKeyUse:
    """The mesh and the engine, as `key_keeper.KeyUse` asks for them."""

    def __init__(
        self,
        engine: IdentifiedEngine,
        node: GossipNode,
        *,
        publish: Callable[[tuple[IdentityPins, ...]], None],
        is_whole: Callable[[], bool],
        without_key_sets: Callable[[], Collection[NodeId]],
    ) -> None:
        """`publish` has the core sign a key set; `is_whole`: the view after a start is.

        `without_key_sets` are the members that publish none.
        """
        self._engine = engine
        self._node = node
        self._publish = publish
        self._is_whole = is_whole
        self._without_key_sets = without_key_sets
        self._published_at: Instant | None = None

    def publish_pins(self, pins: Pins) -> bool:
        """Have the core sign these as the node's key set; False when the credential does not allow it."""
        entries = tuple(IdentityPins(parse_spiffe_id(name)[1], listed) for name, listed in pins.items())
        try:
            self._publish(tuple(sorted(entries, key=lambda entry: entry.path)))
        except MalformedInput as error:
            log.error("the key set could not be published: %s", error)
            return False
        self._published_at = monotonic()
        return True

    def holders(self) -> tuple[int, int] | None:
        """Return how many live peers hold it, and of how many; None while nobody can tell."""
        if self._published_at is None or not self._is_whole():
            return None
        if self._node.isolated_since is not None:
            return 0, 0
        others_count = self._node.tally().attended_count - 1
        is_spread = monotonic() - self._published_at >= _SPREAD_NS
        if is_spread and self._node.hears_anybody(_SPREAD_NS):
            return others_count, others_count
        return self._node.key_set_heard_count(), others_count

    def show_keys(self) -> None:
        """Have the engine show the keys in use."""
        self._engine.show_keys()

    def shown_pins(self) -> dict[str, bytes]:
        """Return what the engine has confirmed."""
        return self._engine.shown_pins()

    def engine_able(self) -> bool:
        """Tell whether the engine judges by key sets."""
        return self._engine.supervisor.takes_pins

    def certified_only(self) -> bool:
        """Tell whether some other member that is there takes no keys without a certificate."""
        return any(self._is_there(node_id) for node_id in self._without_key_sets())

    def _is_there(self, node_id: NodeId) -> bool:
        view = None if node_id == self._node.own_node_id else self._node.member(node_id)
        return view is not None and view.status < MemberStatus.DEAD
