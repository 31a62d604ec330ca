"""What one member may say against others: its votes cost a signature check, and either may cost a ranking.

Rules:
1. About one target a voter needs two votes a second, so it has four, and bursts for a reader that was late.
2. Who the monitors of a target are is computed once, over all members. Those who rightly turn to us turn to a
   monitor, which has that at hand; whoever makes us compute many is sparing with it, or is not heard.
Deviation: no paper counts what accusing costs the accused's monitors.
"""

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.budgets import KeyedBudgets
from gossipmesh.gossip.failure.monitors import Monitors
from gossipmesh.model import limits
from gossipmesh.model.instant import Instant


@kept.part("accusations")
class Accusations:
    """Budgets of votes by (voter, target), and of rankings by whoever has us make them."""

    def __init__(self, monitors: Monitors) -> None:
        self._monitors = monitors
        self._votes = KeyedBudgets(limits.VOTES_PER_TARGET_PER_S, limits.VOTES_PER_TARGET_BURST)
        self._rankings = KeyedBudgets(limits.RANKINGS_PER_MEMBER_PER_S, limits.RANKINGS_PER_MEMBER_BURST)

    def admits_check(self, sender: bytes, target: bytes, now: Instant) -> bool:
        """Count an alarm; False: it would cost a ranking more than its sender may have."""
        return self._monitors.has_ranked(target) or self._rankings.take_key(sender, now)

    def admits_vote(self, voter: bytes, target: bytes, now: Instant) -> bool:
        """Count a vote, before its signature is looked at; False: more than anybody needs."""
        return self._votes.take_key((voter, target), now) and self.admits_check(voter, target, now)
