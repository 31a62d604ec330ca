"""What the core asks of its failure detector, `monitor_detector.MonitorDetector`: fixed monitors that vote.

Ends at the names: the simulator composes a core of another detector, to compare the two.
Paper: SWIM section 3 names one detector. Deviation: see `monitor_detector`.
"""

from typing import Protocol

from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.failure.local_health import LocalHealth
from gossipmesh.gossip.membership.catalog import Change, Checks
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address
from gossipmesh.model.records import SignedRecord, Vote
from gossipmesh.wire.datagram import (
    Ack,
    Check,
    Heartbeat,
    Nack,
    Ping,
    PingReq,
    RelayedAck,
    Seen,
    Unvote,
    VerdictId,
)


class Detector(Protocol):
    """Finds members that stopped. Every call is within a step of the core; effects go to its context."""

    health: LocalHealth

    def start(self) -> None:
        """Begin."""

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers it sets, and what each is for."""

    def fresh_ping(self, member: Member) -> bytes:
        """Return an encoded ping for a member with our sums, of a sequence that nothing waits for."""

    def heard(self, member: Member, arrived: Instant, seen: Seen | None) -> bool:
        """Note that an authentic packet arrived, and tell whether its sender was doubted here before.

        None for `seen`: a stream proved it lives now.
        """

    def proved_by_stream(self, member: Member) -> None:
        """Note that a member proved itself on a stream that was opened for want of an answer by datagram."""

    def carried(self, member: Member) -> None:
        """Note that a member's packets come by a carrier."""

    def receive_ping(self, member: Member, ping: Ping, arrived: Instant) -> None:
        """Answer."""

    def receive_ack(self, member: Member, ack: Ack, arrived: Instant) -> None:
        """Take an answer."""

    def receive_ping_req(self, member: Member, request: PingReq) -> None:
        """Ping for another."""

    def receive_nack(self, member: Member, nack: Nack) -> None:
        """Note that a helper is well: it said that it had asked, and that the target did not answer."""

    def receive_relayed_ack(self, member: Member, ack: RelayedAck) -> None:
        """Take a helper's word."""

    def receive_heartbeat(self, member: Member, heartbeat: Heartbeat) -> None:
        """Take a sign of life of somebody we watch."""

    def receive_check(self, member: Member, check: Check) -> None:
        """Look at a target of ours."""

    def receive_vote(self, member: Member, vote: Vote, arrived: Instant, checks: Checks) -> None:
        """Take a monitor's vote."""

    def receive_unvote(self, member: Member, unvote: Unvote) -> None:
        """Take a vote back."""

    def receive_verdict_id(self, member: Member, held: VerdictId) -> None:
        """Note that a member holds a verdict."""

    def paused(self, late_ns: int) -> None:
        """Void what a pause of our own made look like silence."""

    def status_changed(self, member: Member) -> None:
        """Follow a change of a member's status or state."""

    def merge_verdict_untrusted(self, record: SignedRecord, checks: Checks) -> Change | None:
        """Judge a verdict from outside and have it kept if it holds; None when it says nothing new.

        Raises:
            MalformedInput: it does not hold, or is about somebody unknown. Remote's fault. State unchanged.
        """

    def verdict_merged(self, change: Change, sender: Member | None) -> None:
        """Follow a verdict about another: ask its target first, or let it take effect and pass it on."""

    def answers_later(self, change: Change) -> bool:
        """Tell whether a verdict against ourselves is answered later than now."""

    def engine_probed(self, number: int, answered: bool, refused: bool) -> None:
        """Take an engine's answer."""

    def port_refused(self, address: Address) -> None:
        """Note that a gossip port refused a packet of ours; anyone can forge that."""

    def lag_noted(self) -> bool:
        """Follow a change of our own lag; True when our state is to be signed anew."""

    def view_complete(self) -> None:
        """Note that we once held all that a peer holds."""

    def release_mass_death(self) -> None:
        """Let go the endpoints of those who died together."""

    def forget(self, member: Member) -> None:
        """Drop everything that waits for a member that is no more."""
