"""Each signal asks for one thing, as often as it comes."""

import os
import signal

import trio
import trio.testing

from gossipmesh.agent.signals import Wishes, watch_signals
from tests.unit.dataplane.engine_kit import until


async def test_each_signal_asks_for_its_own(nursery: trio.Nursery) -> None:
    asked: list[str] = []
    wishes = Wishes(*(lambda name=name: asked.append(name) for name in ("leave", "restart", "reload")))
    nursery.start_soon(watch_signals, wishes)
    await trio.testing.wait_all_tasks_blocked()
    for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
        before = len(asked)
        os.kill(os.getpid(), number)
        await until(lambda before=before: len(asked) > before)
    assert asked == ["reload", "restart", "leave", "leave"]
    nursery.cancel_scope.cancel()
