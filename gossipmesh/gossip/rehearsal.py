"""What a rehearsal does to a core beside its inputs; an agent calls nothing of this.

The simulator and the benchmarks begin with a mesh that knows itself, break what no input breaks, and play
members that say what they should not. They do it here, by values, so that no part of a core is theirs.
Rules:
1. What is said or asked for meanwhile is returned as effects, as from an input.
2. Records are checked as those that come over the network are.
Paper: none. Deviation: none.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from gossipmesh.gossip.base.effects import Effect
from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model import limits
from gossipmesh.model.instant import Instant
from gossipmesh.model.records import RecordKind, SignedRecord

_OWN_KINDS: Final = (
    RecordKind.CREDENTIAL,
    RecordKind.NODE_STATE,
    RecordKind.SERVICE_SET,
    RecordKind.KEY_SET,
)


def reseed(core: GossipNode, seed: bytes | str) -> None:
    """Let all that the core draws from here on follow from a seed."""
    core._ctx.rng.seed(seed)


def own_records(core: GossipNode) -> list[SignedRecord]:
    """Return what a core signed or carries of itself: credential, state, and what else there is."""
    own = core._catalog.get(core.own_node_id)
    assert own is not None
    return [own.records[kind] for kind in _OWN_KINDS if kind in own.records]


def know(core: GossipNode, records: Sequence[SignedRecord]) -> list[Effect]:
    """Let a core that has just started know a whole mesh, as if it had joined and compared with all of it."""
    _merge(core, records)
    for member in list(core._catalog):
        core._detector.status_changed(member)
    end_joining(core)
    # Only a newcomer forwards nothing of its first comparison, and tries again until there was one.
    core._repair.take_no_table()
    core._detector.view_complete()
    return core._ctx.drain()


def end_joining(core: GossipNode) -> None:
    """Let a core take its own join for done, as if somebody had answered it."""
    core._entrance.is_in = True


def know_renewed(core: GossipNode, records: Sequence[SignedRecord]) -> None:
    """Let a core know others' new credentials, and let it tell nobody of its own."""
    _merge(core, records)
    core._courier.queue.drop_subject(None, core.own_node_id)
    core._ctx.drain()


def share_messages(core: GossipNode, shared: dict[bytes, bytes]) -> None:
    """Keep of equal bytes one object over all cores that are given the same `shared`."""
    for member in core._catalog:
        for kind, message in list(member.messages.items()):
            member.messages[kind] = shared.setdefault(message, message)


def forget(core: GossipNode, node_id: bytes) -> None:
    """Lose a member and all it signed, as by a fault of ours that nothing tells of."""
    member = core._catalog.get(node_id)
    assert member is not None
    core._catalog.forget(member)
    core._detector.forget(member)


def hear(core: GossipNode, record: SignedRecord, now: Instant) -> list[Effect]:
    """Let a core take a record as one out of a packet, of whoever it is."""
    core._ctx.now = max(now, core._ctx.now)
    core._intake.take(record, None, Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX))
    return core._ctx.drain()


def say(core: GossipNode, node_id: bytes, messages: Iterable[bytes]) -> list[Effect]:
    """Send a member encoded messages, whatever they say, each in a packet that is sealed as it should be."""
    member = core._catalog.get(node_id)
    assert member is not None
    for message in messages:
        core._courier.send(member, [message], fill=False)
    return core._ctx.drain()


def offered_count(core: GossipNode) -> int:
    """Return how many members' services are in use. Cost: O(members)."""
    return sum(member.told is not None for member in core._catalog)


def _merge(core: GossipNode, records: Sequence[SignedRecord]) -> None:
    checks = Checks(4 * len(records))
    for record in records:
        core._catalog.merge_untrusted(record, checks)
