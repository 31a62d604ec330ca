"""What went wrong with single connections, told with its traceback a few times and counted beyond."""

import logging
from typing import Final

import trio

from gossipmesh.model import limits
from gossipmesh.net.shortage import is_own_shortage

log = logging.getLogger("gossipmesh.engine")

_INTERVAL_S: Final = 10.0


class Reports:
    """Writes at most limits.REPORTS_PER_INTERVAL_MAX errors in each interval."""

    def __init__(self) -> None:
        self._ends_at = 0.0
        self._told_count = 0
        self._untold_count = 0

    def report(self, error: BaseException) -> None:
        """Tell of an error; a shortage of our own is a sentence, whatever call met it."""
        now = trio.current_time()
        if now >= self._ends_at:
            if self._untold_count:
                log.error("%d more errors of connections were not told", self._untold_count)
            self._ends_at, self._told_count, self._untold_count = now + _INTERVAL_S, 0, 0
        if self._told_count >= limits.REPORTS_PER_INTERVAL_MAX:
            self._untold_count += 1
            return
        self._told_count += 1
        if isinstance(error, OSError) and is_own_shortage(error):
            log.error("this engine is short of something: %s", error)
        else:
            log.error("a connection failed: %r", error, exc_info=error)
