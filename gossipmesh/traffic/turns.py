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
from typing import Final

from gossipmesh.traffic.endpoints import EndpointKey

SCALE: Final = 1 << 32
_ONE: Final = 1 << 32


class Turns:
    """Turns of one upstream's endpoints; kept while pools come and go."""

    def __init__(self) -> None:
        self._turns: dict[EndpointKey, int] = {}
        self._clock = 0

    def has_all(self, keys: Sequence[EndpointKey]) -> bool:
        """Tell whether every one has a turn."""
        return all(key in self._turns for key in keys)

    def keep_only(self, keys: Sequence[EndpointKey]) -> None:
        """Forget the others."""
        turns = self._turns
        self._turns = {key: turns[key] for key in keys if key in turns}

    def enter(
        self, keys: Sequence[EndpointKey], weights: Sequence[int], random: float
    ) -> list[tuple[int, int]]:
        """Return a heap of (turn, position) for a pool; `random` places who is new.

        Cost: O(endpoints).
        """
        place = int(random * _ONE)
        gap = _ONE // max(sum(1 for key in keys if key not in self._turns), 1)
        heap = []
        for position, (key, weight) in enumerate(zip(keys, weights, strict=True)):
            step = SCALE // weight
            turn = self._turns.get(key)
            if turn is None:
                turn = self._clock + (step * (place % _ONE) >> 32)
                place += gap
            else:
                turn = min(max(turn, self._clock), self._clock + step + step // 4)
            self._turns[key] = turn
            heap.append((turn, position))
        heapify(heap)
        return heap

    def take(
        self, heap: list[tuple[int, int]], keys: Sequence[EndpointKey], weights: Sequence[int], random: float
    ) -> int:
        """Return the position whose turn it is, and move its turn on.

        Cost: O(log endpoints).
        """
        turn, position = heap[0]
        while self._turns[keys[position]] != turn:  # taken for a retry meanwhile
            heapreplace(heap, (self._turns[keys[position]], position))
            turn, position = heap[0]
        self._clock = max(self._clock, turn)
        step = SCALE // weights[position]
        moved = turn + step - step // 4 + (step * int(random * _ONE) >> 33)
        self._turns[keys[position]] = moved
        heapreplace(heap, (moved, position))
        return position
