"""What this room tells the router, as values: it calls nobody.

Paper: none. Deviation: none.
"""

from typing import NamedTuple

from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.sessions.session import Session
from gossipmesh.model.member import Address
from gossipmesh.model.records import SignedRecord
from gossipmesh.wire.frames import FrameMessage


class PeerMet(NamedTuple):
    """A peer proved itself in this run and showed its state; `was_asked`: on a stream that we opened.

    `sender`: where its hello came from, None for a stream or a welcome.
    """

    member: Member
    run: int
    records: list[SignedRecord]
    checks: Checks
    was_asked: bool = False
    sender: Address | None = None


class LetIn(NamedTuple):
    """Somebody who came to us may be taken for our introducer: those we asked do not answer."""

    member: Member


class TooLong(NamedTuple):
    """What introduces us, or whoever is at an address, fits no datagram."""

    address: Address


class PingDue(NamedTuple):
    """A member that did not know us yet is to be asked once more."""

    member: Member


class Outlived(NamedTuple):
    """Another agent that runs under our keys, at that address, goes on as the node: ours ends."""

    address: Address


class Unrivalled(NamedTuple):
    """Others followed an agent at `address` up to `epoch`, and we go on; `was_told`: it was told to end."""

    address: Address
    epoch: int
    was_told: bool = False


class StreamReady(NamedTuple):
    """The peer of a stream we opened has proved itself: it is our turn to speak."""

    session: Session


class FrameReceived(NamedTuple):
    """An authentic message came on a stream."""

    session: Session
    message: FrameMessage


class RevokedCame(NamedTuple):
    """Whoever opened this stream proved a credential that Trust revokes; it is to be told."""

    session: Session


class StreamEnded(NamedTuple):
    """A stream is no more, whoever ended it."""

    session: Session


StreamFact = PeerMet | StreamReady | FrameReceived | RevokedCame | StreamEnded
