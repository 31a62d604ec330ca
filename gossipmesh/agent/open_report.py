"""Tells the authority, once a start, that this node is open: who is enrolled later founds no mesh beside it.

Ends at the request (`agent.identity.enrolment`). An authority that is away, or that knows no such
request, is told again later, ever less often.
"""

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from gossipmesh.agent.gate import Gate
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.opening import HowOpened

log = logging.getLogger("gossipmesh.agent")

_RETRY_S_MIN: Final = 5.0
_RETRY_S_MAX: Final = 300.0
_JITTER: Final = 0.2


class OpenReporter:
    """Waits for this node to be open, then reports until that is taken."""

    def __init__(
        self, gate: Gate, report: Callable[[HowOpened], Awaitable[None]], rng: random.Random
    ) -> None:
        """`report` tells the authority how this node was opened; an OperatorError: it is to be told again."""
        self._gate = gate
        self._report = report
        self._rng = rng

    async def run(self) -> None:
        """Report; returns once that is done, or is of no use."""
        await self._gate.wait_open()
        how = HowOpened.AS_BEFORE if self._gate.opened is None else HowOpened(self._gate.opened.how)
        retry_s = _RETRY_S_MIN
        while True:
            try:
                await self._report(how)
                return
            except OperatorError as error:
                log.debug("the authority was not told that this node is open: %s", error)
            await trio.sleep(retry_s * self._rng.uniform(1.0, 1.0 + _JITTER))
            retry_s = min(2 * retry_s, _RETRY_S_MAX)
