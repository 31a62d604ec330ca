"""How often one party may have something done that costs the authority disk: renewals, lines about refusals.

Sans-IO. Who is paced proved an enrolled key or a token first, so there are no more parties than those.
"""

from collections.abc import Hashable
from typing import Final

from gossipmesh.model.instant import DAY_S, WallSeconds

RENEWALS_AT_ONCE: Final = 30  # services registered one by one each ask for a certificate
RENEWAL_EVERY_S: Final = 60
REFUSALS_PER_DAY: Final = 8


class Bucket:
    """Lets each party do a thing `at_once_max` times, and then once every so many seconds."""

    def __init__(self, at_once_max: int, every_s: int) -> None:
        self._at_once_max = at_once_max
        self._every_s = every_s
        self._full_at: dict[Hashable, float] = {}

    def take(self, party: Hashable, now: WallSeconds) -> bool:
        """Tell whether `party` may now, and count it if so."""
        whole = self._at_once_max * self._every_s
        # A bucket is kept as the time at which it would be full again; a clock set back empties none.
        full_at = min(max(self._full_at.get(party, now), now), now + whole)
        fits = full_at + self._every_s <= now + whole
        self._full_at[party] = full_at + self._every_s * fits
        if len(self._full_at) > 2 * len(self._recent(now)) + 64:
            self._full_at = self._recent(now)
        return fits

    def _recent(self, now: WallSeconds) -> dict[Hashable, float]:
        return {party: full_at for party, full_at in self._full_at.items() if full_at > now}


def renewals() -> Bucket:
    """Return what paces the renewals of a node."""
    return Bucket(RENEWALS_AT_ONCE, RENEWAL_EVERY_S)


def refusals() -> Bucket:
    """Return what paces the lines about refusals of one token or node."""
    return Bucket(REFUSALS_PER_DAY, DAY_S // REFUSALS_PER_DAY)
