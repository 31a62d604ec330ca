"""Waiting on conditions with a deadline, instead of sleeping and hoping."""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from gossipmesh.testing.admin import AdminError, AgentSilent

POLL_INTERVAL_S: Final = 0.1


class WaitedInVain(Exception):
    """A condition did not come true in time; says what was waited for and what was seen last."""


async def wait_until(
    description: str,
    condition: Callable[[], Awaitable[str | None]],
    timeout_s: float,
    interval_s: float = POLL_INTERVAL_S,
) -> float:
    """Ask `condition` until it returns None (it holds); return the seconds that took.

    `condition` returns a sentence saying what is still missing. An agent that does not answer yet
    counts as missing.

    Raises:
        WaitedInVain: not within `timeout_s`; the message ends with the last sentence.
    """
    start_s = trio.current_time()
    missing: str | None = "nothing was seen"
    with trio.move_on_after(timeout_s):
        while True:
            try:
                missing = await condition()
            except (AgentSilent, AdminError) as error:
                missing = str(error)
            if missing is None:
                return trio.current_time() - start_s
            await trio.sleep(interval_s)
    raise WaitedInVain(f"{description}: not within {timeout_s:g} s; last seen: {missing}")


def first_leaf(error: BaseException) -> BaseException:
    """Return the first exception inside the groups that nurseries wrap around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
