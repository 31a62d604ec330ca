"""Who holds the loop is counted and named; a wait is nobody's stall."""

import pytest
import trio

from gossipmesh.agent import loop_watch
from gossipmesh.agent.loop_watch import STALL_NS, LoopWatch
from gossipmesh.model.instant import MILLISECOND_NS, Instant


class Clocks:
    """Time that passes when a task says so: by the clock, and on the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        self.busy = 0
        monkeypatch.setattr(loop_watch, "monotonic", lambda: Instant(self.now))
        monkeypatch.setattr(loop_watch, "thread_busy_ns", lambda: self.busy)

    def pass_ms(self, spent_ms: int, busy_ms: int) -> None:
        self.now += spent_ms * MILLISECOND_NS
        self.busy += busy_ms * MILLISECOND_NS


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


async def test_long_steps_are_counted_by_both_clocks_and_the_busy_ones_named(clocks: Clocks) -> None:
    watch = LoopWatch()

    async def greedy() -> None:
        clocks.pass_ms(30, 25)
        await trio.lowlevel.checkpoint()
        clocks.pass_ms(50, 1)  # the machine was busy, or another thread ran
        await trio.lowlevel.checkpoint()
        clocks.pass_ms(5, 5)

    trio.lowlevel.add_instrument(watch)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(greedy)
    finally:
        trio.lowlevel.remove_instrument(watch)
    assert (watch.stalls_count, watch.busy_stalls_count) == (2, 1)
    assert (watch.longest_ns, watch.longest_busy_ns) == (50 * MILLISECOND_NS, 25 * MILLISECOND_NS)
    ((name, stalls),) = watch.busy_stalls.items()
    assert name == watch.longest_busy_task
    assert "greedy" in name
    assert stalls == (1, 25 * MILLISECOND_NS)


async def test_waiting_is_no_stall(clocks: Clocks) -> None:
    watch = LoopWatch()
    trio.lowlevel.add_instrument(watch)
    try:
        with trio.move_on_after(0.01):
            await trio.sleep_forever()
    finally:
        trio.lowlevel.remove_instrument(watch)
    assert watch.stalls_count == 0
    assert STALL_NS == 20 * MILLISECOND_NS
