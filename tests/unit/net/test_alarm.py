"""An alarm rings when it is due, can be moved while somebody waits, and ends with its owner."""

import pytest
import trio
import trio.testing

from gossipmesh.model.instant import MILLISECOND_NS, NEVER, SECOND_NS
from gossipmesh.net.alarm import Alarm
from gossipmesh.net.clock import monotonic


async def test_it_rings_when_it_is_due_and_not_before() -> None:
    alarm = Alarm()
    began = monotonic()
    alarm.set(20 * MILLISECOND_NS)
    with trio.fail_after(5):
        await alarm.wait()
    assert monotonic() - began >= 20 * MILLISECOND_NS
    alarm.close()


@pytest.mark.parametrize("delay_ns", [0, -SECOND_NS, -NEVER])
async def test_what_is_past_rings_at_once_and_until_it_is_set_anew(delay_ns: int) -> None:
    alarm = Alarm()
    alarm.set(delay_ns)
    with trio.fail_after(5):
        await alarm.wait()
        await alarm.wait()
    alarm.set(NEVER)
    with trio.move_on_after(0.02) as waiting:
        await alarm.wait()
    assert waiting.cancelled_caught
    alarm.close()


async def test_it_is_moved_while_somebody_waits(nursery: trio.Nursery) -> None:
    alarm, rung = Alarm(), trio.Event()
    alarm.set(NEVER)

    async def wait() -> None:
        await alarm.wait()
        rung.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert not rung.is_set()
    alarm.set(MILLISECOND_NS)
    with trio.fail_after(5):
        await rung.wait()
    alarm.close()


async def test_who_waits_for_one_that_is_closed_is_told(nursery: trio.Nursery) -> None:
    alarm = Alarm()
    told = trio.Event()

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await alarm.wait()
        told.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    alarm.close()
    alarm.close()
    with trio.fail_after(5):
        await told.wait()
    with pytest.raises(trio.ClosedResourceError):
        await alarm.wait()
