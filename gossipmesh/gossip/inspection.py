"""The inside of a core as values, for whoever must tell two states of one apart.

Ends at values: what is returned is a copy and changes nothing. An agent reads `node` instead.
Paper: none. Deviation: none.
"""

from typing import Any, NamedTuple

from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.gossip.membership.credentials import is_replaced
from gossipmesh.gossip.membership.endpoints import in_use
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import MemberStatus, Order
from gossipmesh.model.records import RecordKind, Verdict, Vote


def hello_refusal(judge: GossipNode, shown_by: GossipNode) -> str:
    """Return why a core would refuse the credential that another shows in a handshake; empty: it does not."""
    checks = Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX)
    try:
        credential = judge._handshake.admissible_untrusted(shown_by._ctx.keys.credential, checks)
    except MalformedInput as error:
        return str(error)
    held = judge._catalog.get(credential.node_id)
    return "replaced" if held is not None and is_replaced(credential, held.credential) else ""


class Held(NamedTuple):
    """How a member is held: `kinds` are those of its records, sorted; `heard_at` is -1 for never."""

    node_id: NodeId
    name: str
    status: MemberStatus
    order: Order
    verdict: Verdict | None
    kinds: tuple[int, ...]
    heard_at: int
    has_run: bool


class HeldVote(NamedTuple):
    """The last that a voter said of a target; `vote` is None after it took it back."""

    target: bytes
    voter: bytes
    vote: Vote | None
    arrived: Instant


class OpenCase(NamedTuple):
    """What a monitor knows of a target that has gone silent."""

    target: bytes
    state: str
    silent_since: int
    opened: int
    answers_in_a_row: int


class Timer(NamedTuple):
    """What is due when; `subject` is the member it is about, None for none."""

    name: str
    subject: bytes | None
    at: int


class Judging(NamedTuple):
    """What the detector weighs; `rounds` are (asked, heard) of the last control rounds."""

    votes: tuple[HeldVote, ...]
    cases: tuple[OpenCase, ...]
    rounds: tuple[tuple[int, int], ...]
    view_is_whole: bool


class Inspection(NamedTuple):
    """A core at one moment."""

    now: Instant
    members: tuple[Held, ...]
    timers: tuple[Timer, ...]
    scopes_pending: tuple[str, ...]
    judging: Judging


def inspect(core: GossipNode) -> Inspection:
    """Return what the core holds and waits for. Cost: O(members)."""
    return Inspection(
        now=core._ctx.now,
        members=tuple(members(core)),
        timers=tuple(
            Timer(name, subject if isinstance(subject, bytes) else None, at)
            for (name, subject), (at, _) in core._ctx.timers._live.items()
        ),
        scopes_pending=tuple(sorted(core._spreading._pending)),
        judging=_judging(core._detector),
    )


def members(core: GossipNode) -> list[Held]:
    """Return how every member is held, in the order in which they came."""
    return [_held(member) for member in core._catalog]


def held(core: GossipNode, node_id: bytes) -> Held | None:
    """Return how one member is held, state known or not; None when it is not held at all."""
    member = core._catalog.get(node_id)
    return None if member is None else _held(member)


def services_order(core: GossipNode, node_id: bytes) -> Order | None:
    """Return the order of the newest services held of a member; None when it never said any."""
    held = core._catalog.ledger.get(RecordKind.SERVICE_SET, node_id)
    return None if held is None else Order(*held.rank[:3])


def untold(core: GossipNode) -> list[str]:
    """Return whose endpoints are others than was told last: of nobody's, or a change was forgotten."""
    members = ((member, in_use(member, core.own_node_id)) for member in core._catalog)
    return [member.name for member, now in members if member.told != (None if now is None else now.entries)]


def _held(member: Any) -> Held:
    return Held(
        node_id=member.node_id,
        name=member.name,
        status=member.status,
        order=member.order,
        verdict=member.verdict,
        kinds=tuple(sorted(int(kind) for kind in member.messages)),
        heard_at=member.heard_at,
        has_run=member.run != 0,
    )


def _judging(detector: Any) -> Judging:
    return Judging(
        votes=tuple(
            HeldVote(target, voter, entry.vote, entry.arrived)
            for target, voters in detector.votes._votes.items()
            for voter, entry in voters.items()
        ),
        cases=tuple(
            OpenCase(
                target,
                case.state.value,
                case.evidence.silent_since,
                case.evidence.opened,
                case.evidence.answers_in_a_row,
            )
            for target, case in detector.desk._cases.items()
        ),
        rounds=tuple(detector.desk.control._rounds),
        view_is_whole=detector.judge.view_is_whole,
    )
