"""Waiting for what an engine is to do, with one bound for all: an engine that does it late has failed."""

from collections.abc import Callable
from typing import Final

import trio

PATIENCE_S: Final = 10.0
_LOOK_S: Final = 0.01


async def until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Return True once `condition` holds, False when it does not within the time."""
    with trio.move_on_after(patience_s):
        while not condition():  # noqa: ASYNC110  what is waited for happens in another process
            await trio.sleep(_LOOK_S)
        return True
    return condition()
