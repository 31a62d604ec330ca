"""Who watches whom: the members of highest rendezvous hash of (target, member, Trust version).

Everyone computes the same from the same members, nobody chooses. Rules:
1. Eligible is who is enrolled, has a state, and is not held dead, unattended or left; a target never watches
   itself.
2. A target's ranking is computed once (O(members)) and kept up to date per change (O(1) per kept target), so
   that a thousand members cost a thousand hashes per watched target, once. Who came and who went is told, so
   that nobody walks over all the others to find it.
3. Fewer than three eligible members condemn nobody: two cannot tell a crash from a cut.
Paper: Thaler and Ravishankar 1998 (rendezvous hashing). Deviation: Trust's version is hashed in, so that a
    new Trust moves every set of monitors.
"""

import hashlib
from bisect import insort
from collections import OrderedDict
from heapq import nlargest
from typing import Final, NamedTuple

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.membership.eligible import Eligible

_HASH_BYTES: Final = 8
_KEPT_TARGETS_MAX: Final = 256
_KEPT_RANKS: Final = 24
_SPARE_RANKS: Final = 12
_CANDIDATES_MAX: Final = 8 * _KEPT_RANKS  # kept while a ranking is made: more cost memory, fewer cost sorting
_HASHES_PER_REFRESH_MAX: Final = 1_024  # 1 ms; beyond, rankings are made anew one by one, when asked for


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


@kept.value("ranking")
class _Ranking:
    """The best of one target, as (hash, id) with the greatest hash first (hashes are negated)."""

    __slots__ = ("best", "is_whole")

    def __init__(self, best: list[tuple[int, bytes]], is_whole: bool) -> None:
        self.best = best
        self.is_whole = is_whole


@kept.part("monitors")
class Monitors:
    """Rankings over the eligible members, who are listed when nothing tells who changed."""

    def __init__(self, eligible: Eligible) -> None:
        self._eligible = eligible
        self._members: dict[bytes, None] = {}
        self._version = bytes(8)
        self._is_stale = True
        self._changes: dict[bytes, bool] = {}
        self._rankings: OrderedDict[bytes, _Ranking] = OrderedDict()
        self.computed_count = 0
        self.listed_count = 0

    def _take_changes(self) -> None:
        """Note what became of Trust and of who is eligible; acted on by `_refresh`."""
        changes = self._eligible.take()
        version = changes.trust_version.to_bytes(8, "big")
        if version != self._version:
            self._version = version
            self._rankings.clear()
        if changes.joins is None:
            self._is_stale = True
        elif not self._is_stale:
            self._changes.update(changes.joins)

    def _refresh(self) -> None:
        """Bring members and rankings in line. Cost: O(members) where nothing tells who changed."""
        if self._eligible.has_news:
            self._take_changes()
        if not self._is_stale and not self._changes:
            return
        if self._is_stale:
            self.listed_count += 1
            members = dict.fromkeys(self._eligible.ids())
            gone = {node_id: None for node_id in self._members if node_id not in members}
            new = [node_id for node_id in members if node_id not in self._members]
            self._members = members
        else:
            gone = {one: None for one, stays in self._changes.items() if not stays and one in self._members}
            new = [one for one, stays in self._changes.items() if stays and one not in self._members]
            for node_id in gone:
                del self._members[node_id]
            self._members.update(dict.fromkeys(new))
        self._is_stale = False
        self._changes = {}
        self._keep_up(gone, new)

    def _keep_up(self, gone: dict[bytes, None], new: list[bytes]) -> None:
        """Bring the rankings in line, the least recently asked for only as far as that is cheap."""
        changes_count = len(gone) + len(new)
        if changes_count > _KEPT_RANKS:
            while changes_count * len(self._rankings) > _HASHES_PER_REFRESH_MAX:
                self._rankings.popitem(last=False)
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
        """Hash every member once: 3 ms for ten thousand, for all but the best are forgotten on the way."""
        version, copy = self._version, hashlib.blake2b(target, digest_size=_HASH_BYTES).copy
        least = b""
        best: list[tuple[bytes, bytes]] = []
        for node_id in self._members:
            digest = copy()
            digest.update(node_id + version)
            value = digest.digest()
            if value >= least and node_id != target:
                best.append((value, node_id))
                if len(best) >= _CANDIDATES_MAX:
                    least = nlargest(_KEPT_RANKS, (value for value, _ in best))[-1]
                    best = [pair for pair in best if pair[0] >= least]
        pairs = sorted((-int.from_bytes(value, "big"), node_id) for value, node_id in best)
        return _Ranking(pairs[:_KEPT_RANKS], len(self._members) - (target in self._members) <= _KEPT_RANKS)

    def has_ranked(self, target: bytes) -> bool:
        """Tell whether the monitors of a target are at hand; O(members) otherwise."""
        if self._eligible.has_news:
            self._take_changes()
        return target in self._rankings

    def others_count(self, target: bytes) -> int:
        """Return how many eligible members could watch a target."""
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
