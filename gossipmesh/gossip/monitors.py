"""Who watches whom: the members of highest rendezvous hash of (target, member, Trust version).

Everyone computes the same from the same members, nobody chooses. Rules:
1. Eligible is who is enrolled, has a state, and is not held dead, unattended or left; a target never watches
   itself.
2. A target's ranking is computed once (O(members)) and kept up to date per change (O(1) per kept target), so
   that a thousand members cost a thousand hashes per watched target, once.
3. Fewer than three eligible members certify nobody: two cannot tell a crash from a cut.
Paper: Thaler and Ravishankar 1998 (rendezvous hashing). Deviation: Trust's version is hashed in, so that a
    new Trust moves every set of monitors.
"""

import hashlib
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Iterable
from heapq import nlargest
from typing import Final, NamedTuple

_HASH_BYTES: Final = 8
_KEPT_TARGETS_MAX: Final = 256
_KEPT_RANKS: Final = 24
_SPARE_RANKS: Final = 12
_HASHES_PER_REFRESH_MAX: Final = 4_096  # 4 ms; beyond, rankings are made anew one by one, when asked for


class Panel(NamedTuple):
    """How many monitors a target has, and how many of them make a quorum; 0 for: nobody can."""

    monitors_count: int
    quorum: int


def panel_of(others_count: int, monitors_max: int) -> Panel:
    """Return the panel of a target that `others_count` eligible members could watch."""
    monitors_count = min(monitors_max, others_count)
    if others_count < 2:
        return Panel(monitors_count, 0)
    return Panel(monitors_count, monitors_count // 2 + 1)


class _Ranking:
    """The best of one target, as (hash, id) with the greatest hash first (hashes are negated)."""

    __slots__ = ("best", "is_whole")

    def __init__(self, best: list[tuple[int, bytes]], is_whole: bool) -> None:
        self.best = best
        self.is_whole = is_whole


class Monitors:
    """Rankings over the eligible members; `eligible` lists their ids when a ranking is made anew."""

    def __init__(self, eligible: Callable[[], Iterable[bytes]]) -> None:
        self._list = eligible
        self._members: dict[bytes, None] = {}
        self._version = bytes(8)
        self._is_stale = True
        self._rankings: OrderedDict[bytes, _Ranking] = OrderedDict()
        self.computed_count = 0

    def expire(self, trust_version: int) -> None:
        """Note that who is eligible, or Trust, changed; acted on when next asked."""
        version = trust_version.to_bytes(8, "big")
        if version != self._version:
            self._version = version
            self._rankings.clear()
        self._is_stale = True

    def _refresh(self) -> None:
        self._is_stale = False
        members = dict.fromkeys(self._list())
        gone = {node_id: None for node_id in self._members if node_id not in members}
        new = [node_id for node_id in members if node_id not in self._members]
        self._members = members
        changes_count = len(gone) + len(new)
        if changes_count > _KEPT_RANKS and changes_count * len(self._rankings) > _HASHES_PER_REFRESH_MAX:
            self._rankings.clear()
            return
        for target in list(self._rankings):
            self._update(target, gone, new)

    def _update(self, target: bytes, gone: dict[bytes, None], new: list[bytes]) -> None:
        ranking = self._rankings[target]
        if gone:
            ranking.best = [pair for pair in ranking.best if pair[1] not in gone]
        for node_id in new:
            if node_id == target:
                continue
            pair = (self._hash(target, node_id), node_id)
            if ranking.is_whole or pair < ranking.best[-1]:
                insort(ranking.best, pair)
            if len(ranking.best) > _KEPT_RANKS:
                ranking.best.pop()
                ranking.is_whole = False
        if not ranking.is_whole and len(ranking.best) < _SPARE_RANKS:
            del self._rankings[target]

    def _hash(self, target: bytes, node_id: bytes) -> int:
        digest = hashlib.blake2b(target + node_id + self._version, digest_size=_HASH_BYTES).digest()
        return -int.from_bytes(digest, "big")

    def _ranking(self, target: bytes) -> list[tuple[int, bytes]]:
        if self._is_stale:
            self._refresh()
        ranking = self._rankings.get(target)
        if ranking is None:
            self.computed_count += 1
            ranking = self._rank_all(target)
            self._rankings[target] = ranking
            if len(self._rankings) > _KEPT_TARGETS_MAX:
                self._rankings.popitem(last=False)
        else:
            self._rankings.move_to_end(target)
        return ranking.best

    def _rank_all(self, target: bytes) -> _Ranking:
        """Hash every member once: 4 ms for ten thousand, because hardly any is made a number or sorted."""
        version, begun = self._version, hashlib.blake2b(target, digest_size=_HASH_BYTES)
        digests: list[bytes] = []
        for node_id in self._members:
            digest = begun.copy()
            digest.update(node_id + version)
            digests.append(digest.digest())
        # One more than is kept: the target itself may be among them.
        least = min(nlargest(_KEPT_RANKS + 1, digests), default=b"")
        best = sorted(
            (self._hash(target, node_id), node_id)
            for node_id, digest in zip(self._members, digests, strict=True)
            if digest >= least and node_id != target
        )
        return _Ranking(best[:_KEPT_RANKS], len(self._members) - (target in self._members) <= _KEPT_RANKS)

    def has_ranked(self, target: bytes) -> bool:
        """Tell whether the monitors of a target are at hand; O(members) otherwise."""
        return target in self._rankings

    def others_count(self, target: bytes) -> int:
        """Return how many eligible members could watch a target."""
        if self._is_stale:
            self._refresh()
        return len(self._members) - (target in self._members)

    def of(self, target: bytes, count: int) -> list[bytes]:
        """Return the ids of the `count` best monitors of a target, best first. Cost: O(members) at first."""
        return [node_id for _, node_id in self._ranking(target)[:count]]

    def rank(self, target: bytes, node_id: bytes) -> int | None:
        """Return a member's rank among the monitors of a target from 1, None beyond those kept."""
        for place, (_, other) in enumerate(self._ranking(target), 1):
            if other == node_id:
                return place
        return None

    def rank_as_if(self, target: bytes, node_id: bytes) -> int:
        """Return the rank a member has or, were it eligible, would have; for votes of members now gone."""
        own = (self._hash(target, node_id), node_id)
        place = 1
        for pair in self._ranking(target):
            if pair >= own:
                return place
            place += 1
        return place
