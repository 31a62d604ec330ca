"""Whose turn it is: endpoints take turns as often as their weights say, in integers.

Paper: Parekh and Gallager's fair queueing (stride scheduling): every endpoint has a turn on one line;
the smallest is next and moves on by SCALE / weight. Rules:

1. A step is that times 0.75 to 1.25, by one random number: no pattern of requests stays in step with it.
2. Who is new gets a turn within one step, evenly spread from one random number on, so that callers that
   begin together do not begin at the same endpoint.
3. Who was away does not catch up: its turn is now at the earliest.
"""

from collections.abc import Sequence
from heapq import heapify, heapreplace
from typing import Final, NamedTuple

from gossipmesh.traffic.endpoints import EndpointKey

SCALE: Final = 1 << 32
_ONE: Final = 1 << 32


class Standing:
    """The turn of one endpoint, which all pools that hold it share."""

    __slots__ = ("turn",)

    def __init__(self, turn: int) -> None:
        self.turn = turn


class Line(NamedTuple):
    """One pool's endpoints: a heap of (turn, position), and by position their standings and weights."""

    heap: list[tuple[int, int]]
    standings: Sequence[Standing]
    weights: Sequence[int]


class Turns:
    """Turns of one upstream's endpoints; kept while pools come and go."""

    def __init__(self) -> None:
        self._standings: dict[EndpointKey, Standing] = {}
        self._clock = 0

    def has_all(self, keys: Sequence[EndpointKey]) -> bool:
        """Tell whether every one has a turn."""
        return all(key in self._standings for key in keys)

    def keep_only(self, keys: Sequence[EndpointKey]) -> None:
        """Forget the others."""
        known = self._standings
        self._standings = {key: known[key] for key in keys if key in known}

    def enter(self, keys: Sequence[EndpointKey], weights: Sequence[int], random: float) -> Line:
        """Return the line of a pool; `random` places who is new.

        Cost: O(endpoints).
        """
        place = int(random * _ONE)
        gap = _ONE // max(sum(1 for key in keys if key not in self._standings), 1)
        standings = []
        for key, weight in zip(keys, weights, strict=True):
            step = SCALE // weight
            standing = self._standings.get(key)
            if standing is None:
                standing = self._standings[key] = Standing(self._clock + (step * (place % _ONE) >> 32))
                place += gap
            else:
                standing.turn = min(max(standing.turn, self._clock), self._clock + step + step // 4)
            standings.append(standing)
        heap = [(standing.turn, position) for position, standing in enumerate(standings)]
        heapify(heap)
        return Line(heap, standings, weights)

    def take(self, line: Line, random: float) -> int:
        """Return the position whose turn it is, and move its turn on.

        Cost: O(log endpoints).
        """
        heap, standings, weights = line
        turn, position = heap[0]
        while standings[position].turn != turn:  # taken for a retry meanwhile
            heapreplace(heap, (standings[position].turn, position))
            turn, position = heap[0]
        if turn > self._clock:
            self._clock = turn
        step = SCALE // weights[position]
        moved = turn + step - step // 4 + (step * int(random * _ONE) >> 33)
        standings[position].turn = moved
        heapreplace(heap, (moved, position))
        return position
