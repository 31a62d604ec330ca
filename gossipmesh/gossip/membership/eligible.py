"""Who may watch others: noted as it changes, and taken by the rankings of monitors when they are next asked.

Ends at ids: who watches whom is `failure`'s. Nobody is called when something changes, so a table of thousands
that is joined page by page costs one note a member. Paper: none. Deviation: none.
"""

from typing import NamedTuple

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.membership.standing import Standing


class EligibleChanges(NamedTuple):
    """What changed since the last call: by member, whether it may be a monitor; None: anybody may have."""

    trust_version: int
    joins: dict[bytes, bool] | None


@kept.part("eligible")
class Eligible:
    """Ourselves and everyone reachable, with what changed; never more changes than there were members."""

    def __init__(self, standing: Standing, own_id: bytes) -> None:
        self._standing = standing
        self._own_id = own_id
        self._trust_version = 0
        self._joins: dict[bytes, bool] | None = None
        self.has_news = True  # asked with every vote and beat, and nearly always answered by no

    def ids(self) -> list[bytes]:
        """Return who may be a monitor: ourselves and everyone reachable."""
        return [self._own_id, *(member.node_id for member in self._standing.reachable)]

    def note(self, trust_version: int, node_id: bytes | None = None, joins: bool = False) -> None:
        """Note that a member may be a monitor now (`joins`) or not; without one anybody may have changed."""
        self._trust_version = trust_version
        self.has_news = True
        if node_id is None:
            self._joins = None
        elif self._joins is not None:
            self._joins[node_id] = joins

    def take(self) -> EligibleChanges:
        """Return what changed since the last call."""
        changes = EligibleChanges(self._trust_version, self._joins)
        self._joins = {}
        self.has_news = False
        return changes
