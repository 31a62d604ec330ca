"""Signals: what each asks of a running agent."""

import signal
from collections.abc import Callable
from typing import Final, NamedTuple

import trio

_TOLD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP)


class Wishes(NamedTuple):
    """What is to be done: to leave the mesh, to end for a successor, to read files anew.

    `leave` is called again for each further signal of that kind.
    """

    leave: Callable[[], None]
    restart: Callable[[], None]
    reload: Callable[[], None]


async def watch_signals(wishes: Wishes) -> None:
    """Do what signals ask, until cancelled."""
    with trio.open_signal_receiver(*_TOLD) as signals:
        async for number in signals:
            if number == signal.SIGUSR2:
                wishes.restart()
            elif number == signal.SIGHUP:
                wishes.reload()
            else:
                wishes.leave()
