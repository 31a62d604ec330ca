"""What this node's engine is told to judge its peers by: members' keys and credentials, Trust, who is heard.

It ends at values for the snapshot compiler; tables are `pin_index`'s, judging is the engine's.
"""

from collections.abc import Callable, Collection, Iterator, Mapping

from gossipmesh.agent.engine.pin_index import KeyCatalog, PinIndex, Pins
from gossipmesh.model.engine_features import PINS
from gossipmesh.model.identity import NodeId
from gossipmesh.model.member_keys import MemberKeys
from gossipmesh.model.service import NodeEndpoints
from gossipmesh.traffic.inputs import PeerInputs
from gossipmesh.trust.documents import TrustedDocuments


class PeerFacts:
    """The index of keys, and what else belongs to it."""

    def __init__(
        self,
        catalog: KeyCatalog,
        documents: TrustedDocuments,
        *,
        features: Callable[[], frozenset[str]],
        hears: Callable[[], bool],
    ) -> None:
        """`features`: what every engine attached can; `hears`: this node hears another member."""
        self._index = PinIndex(catalog)
        self._documents = documents
        self.features = features
        self._hears = hears
        self._told: tuple[frozenset[str], bool] | None = None

    def begin(self) -> Iterator[None]:
        """Walk over the members, step by step, unless that was done."""
        yield from self._index.begin()

    def take(self, node_id: NodeId, keys: MemberKeys | None) -> bool:
        """Take in what a member's keys are judged by now; tell whether it is news."""
        return self._index.take(node_id, keys)

    def listed(self, service: str, members: Collection[NodeEndpoints]) -> tuple[Pins, ...]:
        """Return the pins each of those who serve a service lists for it."""
        return tuple(self._index.pins_of(member.node_id, service) for member in members)

    @property
    def without_key_sets(self) -> Collection[NodeId]:
        """Return the members whose build publishes no key sets."""
        return self._index.without_key_sets

    def read_only(self, services: Collection[str]) -> None:
        """Remember the pins of no other services than these."""
        self._index.read_only(services)

    def differ(self) -> bool:
        """Tell whether the engine, or who is heard, is other than when `inputs` were last made."""
        return self._told is not None and self._told != (self.features(), self._hears())

    def inputs(self, listed: Mapping[str, tuple[Pins, ...]]) -> PeerInputs | None:
        """Return what a snapshot says of peers; None for an engine that would not take it."""
        features, hears = self._told = (self.features(), self._hears())
        trust = self._documents.trust
        if PINS not in features or trust is None:
            return None
        # The tables' dictionaries go on changing while a thread compiles; their values never do.
        return PeerInputs(
            dict(self._index.pins),
            dict(self._index.credentials),
            trust.intermediates,
            hears,
            listed,
            tuple(sorted(trust.revoked_leaves)),
        )
