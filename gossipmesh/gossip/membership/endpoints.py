"""A member's endpoints: decoded when their record came, kept, and told of as they change.

Rules:
1. What a record says of endpoints is decoded where it is verified, and nowhere again; equal entries of
   different members are one object.
2. A member keeps what of them was last told to be in use; whatever may change them is followed by a delta
   from there. What all of them share is put beside them when they are told or asked for.
3. In use are those of members that are neither dead nor left, and of those who died together. A member that
   was enrolled anew has them as told until its new state is here, which comes with its new credential.
Ends at values: who serves what, by service, is kept by whoever takes the deltas.
Paper: none. Deviation: none.
"""

from functools import lru_cache
from sys import intern
from typing import Final

import msgspec

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import MemberChanged, ServicesChanged
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.member import MemberStatus, NodePhase
from gossipmesh.model.records import ServiceSet
from gossipmesh.model.service import (
    EndpointsDelta,
    NodeEndpoints,
    ServiceEntry,
    services_differing,
    services_of,
)
from gossipmesh.wire.datagram import decode_record

# So many are found again, over all cores of a process. Replicas of a workload say the same, and a mesh has
# more members than workloads; what was forgotten here is only kept twice.
_SETS_MAX: Final = 256
_ENTRIES_MAX: Final = 512
_SERVICE_SETS: Final = msgspec.msgpack.Decoder(ServiceSet)


@lru_cache(_SETS_MAX)
def shared_entries(entries: tuple[ServiceEntry, ...]) -> tuple[ServiceEntry, ...]:
    """Return the one object of these entries."""
    return tuple(map(_shared_entry, entries))


@lru_cache(_ENTRIES_MAX)
def _shared_entry(entry: ServiceEntry) -> ServiceEntry:
    return msgspec.structs.replace(
        entry,
        registration=intern(entry.registration),
        service=intern(entry.service),
        protocol=intern(str(entry.protocol)),  # our own may be of the enum
        labels=tuple((intern(name), intern(value)) for name, value in entry.labels),
    )


def entries_of(message: bytes | None) -> tuple[ServiceEntry, ...] | None:
    """Return the services in a message that was verified when it came; None for no message."""
    if message is None:
        return None
    return shared_entries(_SERVICE_SETS.decode(decode_record(message).body).entries)


def in_use(member: Member, own_id: bytes) -> NodeEndpoints | None:
    """Return a member's endpoints as they are now; None when none are in use.

    Our own are in our own use, as those of one alive, also while the others hold us dead.
    """
    state, is_dead = member.state, member.status is MemberStatus.DEAD
    is_out = is_dead and member.node_id == own_id
    retained = is_dead and member.endpoints_retained
    if member.entries is None or state is None or not (member.serving or retained or is_out):
        return None
    return NodeEndpoints(
        node_id=member.node_id,
        node=member.name,
        address=state.mesh_addresses[0],
        draining=state.phase != NodePhase.SERVING,
        status=MemberStatus.ALIVE if is_out else member.status,
        since=member.changed_at,
        unreachable=member.unreachable and member.status is MemberStatus.ALIVE,
        retained=retained and not is_out,
        entries=member.entries,
    )


@kept.part("telling")
class Telling:
    """Tells of members and their services, and of what that changes of their endpoints."""

    def __init__(self, ctx: Context, own_id: bytes) -> None:
        self._ctx = ctx
        self._own_id = own_id

    def member(self, member: Member, status: MemberStatus, before: MemberStatus | None) -> None:
        """Tell of a member's status, addresses or phase, which all of its endpoints share."""
        delta = self._delta(member, services_of((*(member.told or ()), *(member.entries or ()))))
        self._ctx.notify(MemberChanged(member.node_id, member.name, status, before, delta))

    def services(self, member: Member) -> None:
        """Tell that a member's services may be others, or are (not) in use any more."""
        self._ctx.notify(ServicesChanged(member.node_id, self._delta(member, None)))

    def _delta(self, member: Member, touched: tuple[str, ...] | None) -> EndpointsDelta | None:
        """Note what of a member is told now; return what is to be told. `touched`: None for what differs."""
        told, after = member.told, in_use(member, self._own_id)
        member.told = None if after is None else after.entries
        if told is None and after is None:
            return None
        if touched is None:
            touched = services_differing(told or (), member.told or ())
        return EndpointsDelta(member.node_id, touched, after) if touched else None
