"""Tells when a verdict of long ago is to be voted on anew: somebody cannot judge what we hold.

A verdict is a quorum of the members there were. Whoever joins later counts others, and may rightly refuse
it for ever. Rules:
1. Who cannot judge a verdict it was shown finds the member silent itself, and goes on voting or asking.
2. So, whoever goes on for five seconds, or at once if what we hold would not convince ourselves any more,
   makes the target's monitors look again and vote, for ten seconds.
3. Then they are quiet for half a minute: their own votes are no reason for one another to go on.
4. A new verdict replaces the held one only where that is valid no more; else it is for the newcomer.
Paper: none; docs/GOSSIP.md, "Failure detection", 14.
"""

from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.model.instant import SECOND_NS, Instant

_RENEWAL_NS: Final = 10 * SECOND_NS
_QUIET_NS: Final = 30 * SECOND_NS
_PATIENCE_NS: Final = 5 * SECOND_NS
_GAP_NS: Final = 5 * SECOND_NS


@kept.value("doubted death")
class _Doubt:
    """What was said against one of the gone: since when, last when, and until when we vote anew."""

    __slots__ = ("first", "last", "until")

    def __init__(self, now: Instant) -> None:
        self.first = now
        self.last = now
        self.until = Instant(-1)


@kept.part("renewals")
class Renewals:
    """Doubts about deaths, by whose death it is."""

    def __init__(self) -> None:
        self._doubts: dict[bytes, _Doubt] = {}

    def asked(self, node_id: bytes, now: Instant, *, convinces: bool) -> Instant | None:
        """Note a vote or an alarm against somebody gone; return until when its case is open again, if it is.

        `convinces`: what we hold against it would still convince ourselves.
        """
        doubt = self._doubts.setdefault(node_id, _Doubt(now))
        if now - doubt.last > _GAP_NS:
            doubt.first = now
        doubt.last = now
        if doubt.until >= 0 and now < doubt.until + _QUIET_NS:
            return doubt.until if now < doubt.until else None
        if convinces and now - doubt.first < _PATIENCE_NS:
            return None
        doubt.until = Instant(now + _RENEWAL_NS)
        return doubt.until

    def forget(self, node_id: bytes) -> None:
        """Begin anew with a member that is none any more."""
        self._doubts.pop(node_id, None)
