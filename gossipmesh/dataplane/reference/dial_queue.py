"""Who may shake hands now: a handshake is work of our own, and waiting for it is nobody else's fault.

Rules:

1. At most `limits.HANDSHAKES_PER_ENDPOINT_MAX` handshakes with one endpoint are under way; others wait, and
   no clock runs for them. What is learnt meanwhile holds for them: when one fails, all behind it do.
2. A timeout is only the endpoint's when this process was there to see it: `LoopLag` adds up by how much the
   loop was late while anybody was connecting.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeVarTuple

import trio

from gossipmesh.model import limits
from gossipmesh.traffic.endpoints import EndpointKey

_LAG_STEP_S: Final = 0.05
_Words = TypeVarTuple("_Words")


class Learnt(NamedTuple):
    """Why a connection could not be made, for those who wait to make another."""

    detail: str
    unreached: bool


class _Waiter:
    __slots__ = ("failure", "granted", "woken")

    def __init__(self) -> None:
        self.woken = trio.Event()
        self.granted = False
        self.failure: Learnt | None = None


class DialQueue:
    """Handshakes under way, and who waits to begin one, by endpoint."""

    def __init__(self, at_once_max: int = limits.HANDSHAKES_PER_ENDPOINT_MAX) -> None:
        self._at_once_max = at_once_max
        self._under_way: dict[EndpointKey, int] = {}
        self._waiting: dict[EndpointKey, deque[_Waiter]] = {}
        self._nursery: trio.Nursery | None = None
        self.lag = LoopLag()

    async def run(self) -> None:
        """Run what is started, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            await self.lag.run()

    def start(self, dial: Callable[[*_Words], Awaitable[None]], *words: *_Words) -> None:
        """Run `dial(*words)` beside its caller, who may leave before it ends."""
        assert self._nursery is not None, "nothing is served before `run`"
        self._nursery.start_soon(dial, *words)

    async def enter(self, key: EndpointKey) -> Learnt | None:
        """Wait for a place; None when it is held and `leave` must follow, else why one before us failed."""
        under_way = self._under_way.get(key, 0)
        if under_way < self._at_once_max:
            self._under_way[key] = under_way + 1
            self.lag.begin()
            return None
        waiter = _Waiter()
        self._waiting.setdefault(key, deque()).append(waiter)
        try:
            await waiter.woken.wait()
        except trio.Cancelled:
            if waiter.granted:
                self.leave(key, None)
            else:
                self._give_up(key, waiter)
            raise
        return waiter.failure

    def leave(self, key: EndpointKey, failure: Learnt | None) -> None:
        """Give the place to the next; `failure`: tell all who wait instead."""
        waiting = self._waiting.get(key)
        if failure is not None:
            for waiter in self._waiting.pop(key, ()):
                waiter.failure = failure
                waiter.woken.set()
        elif waiting:
            waiter = waiting.popleft()
            if not waiting:
                del self._waiting[key]
            waiter.granted = True
            waiter.woken.set()
            return
        self.lag.end()
        self._under_way[key] -= 1
        if not self._under_way[key]:
            del self._under_way[key]

    def _give_up(self, key: EndpointKey, waiter: _Waiter) -> None:
        waiting = self._waiting.get(key)
        if waiting is not None and waiter in waiting:
            waiting.remove(waiter)
            if not waiting:
                del self._waiting[key]


class LoopLag:
    """By how much the loop was late, in all, while anybody was connecting."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self._connecting_count = 0
        self._begun = trio.Event()

    def begin(self) -> None:
        """Say that somebody connects."""
        self._connecting_count += 1
        self._begun.set()

    def end(self) -> None:
        """Say that somebody has done."""
        self._connecting_count -= 1

    async def run(self) -> None:
        """Watch until cancelled; nothing runs while nobody connects."""
        while True:
            if not self._connecting_count:
                self._begun = trio.Event()
                await self._begun.wait()
            due = trio.current_time() + _LAG_STEP_S
            await trio.sleep_until(due)
            late_s = trio.current_time() - due
            if late_s >= _LAG_STEP_S:  # less is how any machine schedules
                self.total_s += late_s
