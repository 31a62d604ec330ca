"""When a node believes that its own name is another agent's, or nobody's: at once, unless it is just back.

Ends at the record that was shown; what is believed of it in the end is `own`'s. Rules:
1. A node that runs in the mesh has the mesh's Trust: what that verifies it believes at once.
2. A node that is back from its disk, a long pause or isolation has the Trust of before. The key that
   signed what it is shown may have been stolen and dropped since, and whoever shows it may be just back as
   well. It goes on for five seconds, in which Trust comes from anybody who has a newer one.
3. A node without members on its disk got its Trust from the authority just now: rule 1.
Paper: none. Deviation: none.
"""

from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.records import SignedRecord

_DOUBT_NS: Final = 5 * SECOND_NS  # Trust comes within one or two, packets lost or not
_PAUSE_NS_MIN: Final = 5 * SECOND_NS


@kept.part("succession")
class Succession:
    """What was shown and is not believed yet: the last such record."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._doubts_until: Instant = ctx.now
        self._put_off: SignedRecord | None = None

    def note_absence(self) -> None:
        """Doubt for five seconds from now; what is put off already is judged when it was to be."""
        if self._put_off is None:
            self._doubts_until = Instant(self._ctx.now + _DOUBT_NS)

    def note_pause(self, late_ns: int) -> None:
        """Take that this process was stopped for so long; Trust does not turn in a moment of load."""
        if late_ns >= _PAUSE_NS_MIN:
            self.note_absence()

    def put_off(self, record: SignedRecord) -> bool:
        """Keep a verified record until we may believe it (timer `successor`); False: we may now."""
        if self._ctx.now >= self._doubts_until:
            return False
        self._put_off = record
        self._ctx.timers.set(("successor", None), self._doubts_until)
        return True

    def take(self) -> SignedRecord | None:
        """Return what was put off, to be judged now."""
        record, self._put_off = self._put_off, None
        return record
