"""What a shell reads of the core, beside the effects that it is given.

Ends at values: nothing here changes anything, and none of it is a step. The node composes what is read.
Paper: none. Deviation: none.
"""

from collections.abc import Iterator, Sequence

import msgspec

from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.history import HistoryEntry
from gossipmesh.gossip.base.settings import GossipStatistics, MemberView, OpeningView
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.dissemination.opening import Opening
from gossipmesh.gossip.dissemination.queue import Share
from gossipmesh.gossip.failure.detector import Detector
from gossipmesh.gossip.membership import views
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.endpoints import in_use
from gossipmesh.gossip.membership.key_sets import keys_of
from gossipmesh.gossip.membership.own import OwnRecords
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.member_keys import MemberKeys
from gossipmesh.model.records import NodeState
from gossipmesh.model.service import NodeEndpoints
from gossipmesh.wire.codec import encode
from gossipmesh.wire.datagram import decode_record


class Reads:
    """The reading half of `GossipNode`."""

    _ctx: Context
    _catalog: Catalog
    _own: OwnRecords
    _own_id: NodeId
    _courier: Courier
    _detector: Detector
    _opening: Opening

    @property
    def own_node_id(self) -> NodeId:
        """Return our id."""
        return self._own_id

    @property
    def own_state(self) -> NodeState:
        """Return the state we last signed."""
        return self._own.state

    @property
    def incarnation(self) -> tuple[int, int]:
        """Return (generation, epoch)."""
        return (self._own.generation, self._own.epoch)

    @property
    def runs(self) -> tuple[int, ...]:
        """Return the ids that we were known by since our start, the newest first."""
        return (self._ctx.run_id, *self._own.former_runs)

    @property
    def local_health(self) -> int:
        """Return how much we distrust ourselves; 0 is healthy."""
        return self._detector.health.score

    @property
    def isolated_since(self) -> Instant | None:
        """Return when we last heard anybody, while we hear nobody and nobody answers us; None otherwise."""
        since = self._catalog.isolated_since
        return None if since < 0 else Instant(since)

    @property
    def opening(self) -> OpeningView:
        """Return whether this node answers calls yet, and what it waits for."""
        return self._opening.view()

    @property
    def roll_missing_count(self) -> int | None:
        """Return how many pages of the roll that Trust names are missing; None: even its index is."""
        return self._catalog.credentials.roll.missing_count()

    def members(self) -> list[MemberView]:
        """Return every member with a known state, ourselves included, sorted by name."""
        return list(self.each_member())

    def endpoints(self) -> list[NodeEndpoints]:
        """Return the endpoints in use by member, sorted by member name."""
        return list(self.each_endpoints())

    def member(self, node_id: bytes) -> MemberView | None:
        """Return one member; None when its state is not known."""
        return views.view_of(self._catalog, self._ctx, node_id)

    def find(self, name: str) -> NodeId | None:
        """Return the id of the member of a name; None when there is none."""
        return views.find(self._catalog, name)

    def names(self, statuses: Sequence[MemberStatus], count_max: int) -> list[str]:
        """Return the first names, in their order, of members of these statuses."""
        return views.names_of(self._catalog, statuses, count_max)

    def endpoints_of(self, node_id: bytes) -> NodeEndpoints | None:
        """Return one member's endpoints; None when none are in use."""
        member = self._catalog.get(node_id)
        return None if member is None else in_use(member, self._own_id)

    def keys_of(self, node_id: bytes) -> MemberKeys | None:
        """Return what a member's TLS keys are judged by, state known or not; None when it is none."""
        member = self._catalog.get(node_id)
        return None if member is None else keys_of(member)

    def each_credential(self) -> Iterator[bytes]:
        """Yield every credential held, our own and tombstones too, as the authority signed it (wire form)."""
        for member in self._catalog:
            if member.messages.credential is not None:
                yield encode(decode_record(member.messages.credential))

    def each_keys(self) -> Iterator[MemberKeys]:
        """Walk over what everybody's TLS keys are judged by: ourselves, others, and whoever is revoked."""
        return views.each_keys(self._catalog, self._ctx)

    def key_set_heard_count(self) -> int:
        """Return how many live members have shown since that they hold our newest key set; 0 without one.

        Whose state sum was ours holds all that we hold. Cost: O(members).
        """
        since = self._own.keys_signed_at
        return 0 if since < 0 else views.agreed_count(self._catalog, since)

    def each_member(self) -> Iterator[MemberView]:
        """Walk over what `members` returns, for who does not want all of it at once."""
        return views.each_member(self._catalog, self._ctx)

    def each_endpoints(self) -> Iterator[NodeEndpoints]:
        """Walk over what `endpoints` returns."""
        return views.each_endpoints(self._catalog)

    def tally(self) -> views.Tally:
        """Return how many members there are, by status."""
        return views.tally_of(self._catalog)

    def hears_anybody(self, within_ns: int) -> bool:
        """Tell whether a packet of any member came within so long before our last step."""
        return views.is_anybody_heard(self._catalog, self._ctx.now - within_ns)

    def documents_sum_before(self) -> bytes:
        """Return the documents sum as builds before `trust-2` count it, for comparing with such a node."""
        return self._catalog.sums.documents_before

    def state_sums(self) -> tuple[bytes, bytes]:
        """Return the group sum and the documents sum, 16 bytes each."""
        return self._catalog.sums.both()

    def history(self, node_id: bytes) -> list[HistoryEntry]:
        """Return what was said for and against a member, oldest first; the last 256 entries over all."""
        return self._ctx.history.of(node_id)

    def queue_depths(self) -> dict[str, int]:
        """Return how many updates wait to be sent, by the share they are filled from."""
        queue = self._courier.queue
        return {share.name.lower(): queue.length_of(share) for share in Share}

    def statistics(self) -> GossipStatistics:
        """Return a copy of the counters."""
        now = self._ctx.statistics
        return msgspec.structs.replace(
            now,
            dropped=dict(now.dropped),
            refused=dict(now.refused),
            refused_policies=dict(now.refused_policies),
            queue_length=len(self._courier.queue),
            members=len(self._catalog),
            endpoints_retained=views.endpoints_retained_count(self._catalog),
            history_noted=self._ctx.history.noted_count,
            lag_ms=self._ctx.lag_ms,
        )
