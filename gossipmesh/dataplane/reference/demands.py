"""Asking the agent for services whose routes the snapshot does not hold, and waiting for its answer.

Any client may name anything, so what waits is bounded, and a name the agent knows nothing of is answered at
once for a while. Ends at the question: routes come with a snapshot.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import trio

from gossipmesh.dataplane.protocol import Demand, EngineEvent
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model import limits
from gossipmesh.traffic.routing import ServiceRouter

WAIT_S: Final = 5.0  # an agent that is busy, or that starts again, is back before
ASK_AGAIN_S: Final = 1.0
UNKNOWN_FOR_S: Final = 1.0


class _Asked:
    """One service that was asked for: until when no new question is sent, and who waits."""

    __slots__ = ("answered", "until_s", "waiting_count")

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.until_s = 0.0
        self.waiting_count = 0


class Demands:
    """What was asked for and is not answered yet."""

    def __init__(
        self,
        counters: Counters,
        emit: Callable[[EngineEvent], None],
        find: Callable[[str], ServiceRouter | None],
    ) -> None:
        """`find` returns the rules of a service that the snapshot in force holds."""
        self._counters = counters
        self._emit = emit
        self._find = find
        self._asked: OrderedDict[str, _Asked] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()

    async def wait(self, service: str) -> ServiceRouter | None:
        """Return a service's rules once they came; None when the agent knows none, or after WAIT_S."""
        if trio.current_time() < self._unknown.get(service, 0.0):
            return None
        asked = self._place(service)
        if asked is None:
            self._counters.add("demands_shed")
            return None
        asked.waiting_count += 1
        end_s = trio.current_time() + WAIT_S
        try:
            while not asked.answered.is_set() and trio.current_time() < end_s:
                self._send(asked, service)  # again each second: an agent may have come meanwhile
                with trio.move_on_at(min(end_s, asked.until_s)):
                    await asked.answered.wait()
        finally:
            asked.waiting_count -= 1
            if not asked.waiting_count and self._asked.get(service) is asked and self._is_over(asked):
                del self._asked[service]
        return self._find(service)

    def applied(self) -> None:
        """Wake who waits for a service the new snapshot holds."""
        for service in [name for name in self._asked if self._find(name) is not None]:
            self._asked.pop(service).answered.set()

    def unknown(self, service: str) -> None:
        """Take the agent's word that nobody knows a service: who waits for it need not."""
        self._unknown[service] = trio.current_time() + UNKNOWN_FOR_S
        self._unknown.move_to_end(service)
        if len(self._unknown) > limits.DEMANDS_WAITING_MAX:
            self._unknown.popitem(last=False)
        asked = self._asked.pop(service, None)
        if asked is not None:
            asked.answered.set()

    def _place(self, service: str) -> _Asked | None:
        """Return where to wait for a service; None when too many wait."""
        asked = self._asked.get(service)
        if asked is None:
            if len(self._asked) >= limits.DEMANDS_WAITING_MAX and not self._forget_one():
                return None
            asked = self._asked[service] = _Asked()
        return None if asked.waiting_count >= limits.DEMANDS_WAITING_MAX else asked

    def _send(self, asked: _Asked, service: str) -> None:
        """Send the question unless it was sent lately."""
        if self._is_over(asked):
            asked.until_s = trio.current_time() + ASK_AGAIN_S
            self._counters.add("demands")
            self._emit(Demand(service))

    def _is_over(self, asked: _Asked) -> bool:
        return trio.current_time() >= asked.until_s

    def _forget_one(self) -> bool:
        """Make room if the oldest question is over and nobody waits for its answer."""
        service, oldest = next(iter(self._asked.items()))
        if oldest.waiting_count or not self._is_over(oldest):
            return False
        del self._asked[service]
        return True
