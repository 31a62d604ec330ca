"""Token buckets, alone, by identity and by address prefix, that bound what strangers and storms can cost.

Deviation: GOSSIP counts strangers per /64; for IPv4 a prefix is one address, because several nodes
behind one network prefix are the usual case there.
"""

import ipaddress
from collections import OrderedDict
from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Address

PREFIXES_MAX: Final = 4_096


@kept.value("token bucket", is_alone=True)
class TokenBucket:
    """`per_s` tokens a second, at most `burst` saved; starts full. Kept as the instant it is full again."""

    __slots__ = ("_cost_ns", "_full_at", "_spent_ns_max")

    def __init__(self, per_s: int, burst: int, now: Instant) -> None:
        self._cost_ns = SECOND_NS // per_s
        self._spent_ns_max = self._cost_ns * (burst - 1)
        self._full_at: int = now

    def allows(self, now: Instant) -> bool:
        """Tell whether there is a token; takes none."""
        return self._full_at - now <= self._spent_ns_max

    def take(self, now: Instant) -> bool:
        """Take one token if there is one."""
        full_at = self._full_at if self._full_at > now else now
        if full_at - now > self._spent_ns_max:
            return False
        self._full_at = full_at + self._cost_ns
        return True


@kept.value("budgets")
class KeyedBudgets:
    """One bucket per key, the least recently used forgotten first."""

    __slots__ = ("_buckets", "_burst", "_keys_max", "_per_s")

    def __init__(self, per_s: int, burst: int, *, keys_max: int = PREFIXES_MAX) -> None:
        self._per_s = per_s
        self._burst = burst
        self._keys_max = keys_max
        self._buckets: OrderedDict[object, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def allows(self, key: object, now: Instant) -> bool:
        """Tell whether `key` has a token left; takes none, remembers nothing."""
        bucket = self._buckets.get(key)
        return bucket is None or bucket.allows(now)

    def take_key(self, key: object, now: Instant) -> bool:
        """Take one token of `key`."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._per_s, self._burst, now)
            if len(self._buckets) > self._keys_max:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(now)

    def require_untrusted(self, key: object, now: Instant) -> None:
        """Go on only while `key` has a token left.

        Raises:
            OverRate: it has none. Remote's fault. State unchanged.
        """
        if not self.allows(key, now):
            raise OverRate("more than anybody needs to say")


class OverRate(Untrusted):
    """What comes faster than anybody needs; the newest of it is taken later, by repair."""


@kept.value("prefix budgets")
class PrefixBudgets(KeyedBudgets):
    """One bucket per sender prefix (v4: address, v6: /64)."""

    __slots__ = ()

    def take(self, sender: Address, now: Instant) -> bool:
        """Take one token of the sender's prefix."""
        return self.take_key(_prefix_of(sender.host), now)


def _prefix_of(host: str) -> str:
    if ":" not in host:
        return host
    try:
        return ipaddress.IPv6Address(host.partition("%")[0]).packed[:8].hex()
    except ValueError:
        return host
