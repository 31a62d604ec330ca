"""One stream: its handshake, its keys, and where its conversation stands.

Deviation: no paper speaks of streams; memberlist's have no handshake and no pages.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from gossipmesh.gossip.base.effects import StreamId
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.membership.state_sums import Rank
from gossipmesh.model.instant import NEVER
from gossipmesh.model.records import NodeCredential, SignedRecord
from gossipmesh.trust.seal import Sealer
from gossipmesh.wire.frames import FrameReader, StreamHello

CARRY: Final = "carry"
ROLL: Final = "roll"
Name = tuple[int, bytes]
Step = Callable[[], Iterator[object] | None]
"""What is done once everything before it was merged; yields facts, and None where it may be interrupted."""


class Session:
    """Mutable; owned by `streams`.

    `purpose` is sync, table, policy, trust, roll, ping, carry, or serve (accepted).
    A sync turns into a table and back while a newcomer joins, one that serves into one that carries with its
    first packet; `began` is what it was opened as.
    """

    def __init__(self, stream: StreamId, *, opener: bool, purpose: str, scope: str | None) -> None:
        self.stream = stream
        self.opener = opener
        self.ends_at = NEVER
        self.is_shut_out = False  # the opener is revoked by Trust: it gets that and nothing else
        self.purpose = purpose
        self.began = purpose
        self.scope = scope
        self.reader = FrameReader()
        self.nonce = b""
        self.expected: Member | None = None
        self.member: Member | None = None
        self.peer_id: bytes = b""
        self.hello: StreamHello | None = None
        self.credential: NodeCredential | None = None
        self.sealer: Sealer | None = None
        self.unsealer: Sealer | None = None
        self.sent_count = 0
        self.received_count = 0
        self.completed = False
        self.listed = False  # the other has said all it holds where we differ
        self.entries: dict[Name, Rank] = {}
        self.give: deque[Name] = deque()
        self.ask: deque[Name] = deque()
        self.backlog: deque[SignedRecord | Step] = deque()
        self.parts = bytearray()
        self.questions_count = 0
        self.pages_count = 0
        self.news_count = 0  # records of the other's that changed what we hold
