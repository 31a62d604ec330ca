"""What the rest of an agent reads of the members: one by one, for ten thousand at once would hold the loop.

The walks look at each member when they come to it; whoever goes through one slowly sees some of them later
than others, none twice, and none that was forgotten meanwhile. Ends at values.
Paper: none. Deviation: none.
"""

from collections.abc import Callable, Iterator, Sequence
from heapq import nsmallest
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.settings import MemberView
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.endpoints import in_use
from gossipmesh.gossip.membership.key_sets import keys_of
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.identity import NodeId, node_id_of, node_spiffe_id
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.member_keys import MemberKeys
from gossipmesh.model.records import SEQUENCE_WHOLE
from gossipmesh.model.service import NodeEndpoints

_BY_NAME: Final = attrgetter("name")
_UNREACHABLE: Final = attrgetter("unreachable")
_HELD: Final = attrgetter("endpoints_retained")


class Tally(NamedTuple):
    """How many members there are, ourselves included; the statuses in their order."""

    by_status: dict[MemberStatus, int]
    unreachable_count: int
    endpoints_retained_count: int

    @property
    def members_count(self) -> int:
        """Return how many members have a state, whatever their status."""
        return sum(self.by_status.values())

    @property
    def attended_count(self) -> int:
        """Return how many members are neither dead nor left."""
        return sum(count for status, count in self.by_status.items() if status < MemberStatus.DEAD)


def is_anybody_heard(catalog: Catalog, since: int) -> bool:
    """Tell whether a packet of any member came since an instant. Cost: O(members) where none did."""
    since = max(0, since)  # who was never heard has a negative instant
    return any(member.heard_at >= since for member in catalog)


def agreed_count(catalog: Catalog, since: int) -> int:
    """Return how many live members, without ourselves, had our state sum after an instant."""
    return sum(member.agreed_at > since for member in catalog if member.status is MemberStatus.ALIVE)


def each_keys(catalog: Catalog, ctx: Context) -> Iterator[MemberKeys]:
    """Yield what everybody's TLS keys are judged by, in order of arrival; then whom Trust revokes."""
    for member in list(catalog):
        if catalog.get(member.node_id) is member:
            yield keys_of(member)
    yield from revoked_by_trust(catalog, ctx)


def revoked_by_trust(catalog: Catalog, ctx: Context) -> Iterator[MemberKeys]:
    """Yield whom Trust revokes, but for those of whom a later generation is known."""
    trust = ctx.documents.trust
    for name, generation in () if trust is None else sorted(trust.revoked.items()):
        node_id = node_id_of(node_spiffe_id(ctx.trust_domain, name))
        member = catalog.get(node_id)
        if member is None or member.credential.generation <= generation:
            yield MemberKeys(
                node_id=node_id,
                name=name,
                generation=generation,
                serial=SEQUENCE_WHOLE,
                ends=0,
                has_key_sets=True,
                is_revoked=True,
                entries=None,
            )


def tally_of(catalog: Catalog) -> Tally:
    """Count the members. Cost: O(members) for what hardly anybody is, a twentieth of a microsecond each."""
    unreachable_count, held_count = _count(catalog, _UNREACHABLE), endpoints_retained_count(catalog)
    if catalog.isolated_since >= 0:
        unreachable_count = len(catalog.reachable)
    return Tally(catalog.standing.by_status, unreachable_count, held_count)


def endpoints_retained_count(catalog: Catalog) -> int:
    """Return how many members' endpoints are held though they died. Cost: O(members), as above."""
    return _count(catalog, _HELD)


def _count(catalog: Catalog, flag: Callable[[Member], bool]) -> int:
    """Count who has a state and a flag: nobody, mostly, and then no member's state is looked for."""
    if not any(map(flag, catalog)):
        return 0
    return sum(member.messages.state is not None for member in filter(flag, catalog))


def find(catalog: Catalog, name: str) -> NodeId | None:
    """Return the id of the member of a name; None when there is none. Cost: O(members)."""
    return next((member.node_id for member in catalog if member.name == name), None)


def names_of(catalog: Catalog, statuses: Sequence[MemberStatus], count_max: int) -> list[str]:
    """Return the first names, in their order, of members of these statuses. Cost: O(members)."""
    found = (m.name for m in catalog if m.status in statuses and m.messages.state is not None)
    return nsmallest(count_max, found)


def view_of(catalog: Catalog, ctx: Context, node_id: bytes) -> MemberView | None:
    """Return a member as the rest of the agent reads it; None before a state is known.

    While this node is isolated no other is reachable, whatever was found of it before.
    """
    member = catalog.get(node_id)
    return None if member is None else _seen_from(catalog, ctx, member)


def _seen_from(catalog: Catalog, ctx: Context, member: Member) -> MemberView | None:
    view = member.view(ctx.now)
    if view is None or catalog.isolated_since < 0 or member.node_id == catalog.own_id:
        return view
    return msgspec.structs.replace(view, unreachable=view.status is MemberStatus.ALIVE)


def each_member(catalog: Catalog, ctx: Context) -> Iterator[MemberView]:
    """Yield every member with a known state, ourselves included, sorted by name."""
    for member in _sorted(catalog):
        if catalog.get(member.node_id) is member:
            view = _seen_from(catalog, ctx, member)
            if view is not None:
                yield view


def each_endpoints(catalog: Catalog) -> Iterator[NodeEndpoints]:
    """Yield the endpoints in use by member, sorted by member name."""
    for member in _sorted(catalog):
        found = in_use(member, catalog.own_id)
        if found is not None and catalog.get(member.node_id) is member:
            yield found


def _sorted(catalog: Catalog) -> list[Member]:
    return sorted(catalog, key=_BY_NAME)
