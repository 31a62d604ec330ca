"""What was said for and against each member: the answer to "why is it dead?".

A bounded journal; it decides nothing. The oldest entry goes first and is counted.
Deviation: no paper asks for it; operators do, after every death.
"""

from collections import deque
from typing import Final

import msgspec

from gossipmesh.gossip.base import kept
from gossipmesh.model import limits
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import Instant

KINDS: Final = (
    "case-opened",
    "case-closed",
    "vote-sent",
    "vote-received",
    "unvote",
    "verdict",
    "applied",
    "refuted",
    "beaten-by-life",
    "unreachable",
    "reachable",
    "quarantine",
    "held-mass-death",
    "revoked",
)


class HistoryEntry(msgspec.Struct, frozen=True):
    """One thing that happened; `by` is who did it, `cause` the class of a vote, empty for none."""

    at: Instant
    subject: NodeId
    kind: str
    by: NodeId
    cause: str
    detail: str
    local_health: int


@kept.part("history")
class History:
    """The last `limits.HISTORY_ENTRIES_MAX` entries over all members."""

    def __init__(self, entries_max: int = limits.HISTORY_ENTRIES_MAX) -> None:
        self._entries: deque[HistoryEntry] = deque(maxlen=entries_max)
        self.noted_count = 0

    def note(
        self,
        now: Instant,
        subject: NodeId,
        kind: str,
        by: NodeId,
        cause: str = "",
        detail: str = "",
        local_health: int = 0,
    ) -> None:
        """Add an entry."""
        self.noted_count += 1
        self._entries.append(HistoryEntry(now, subject, kind, by, cause, detail, local_health))

    def of(self, subject: bytes) -> list[HistoryEntry]:
        """Return what is remembered of one member, oldest first."""
        return [entry for entry in self._entries if entry.subject == subject]

    def all(self) -> list[HistoryEntry]:
        """Return everything that is remembered, oldest first."""
        return list(self._entries)
