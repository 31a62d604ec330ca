"""The access log: one JSON line per request or TCP connection, with Envoy's field names.

Lines are made at once and written by a thread in batches, so that a slow disk never holds a request; what
waits is bounded and what does not fit is counted. SIGHUP reopens the file. Ends at bytes in lines: the file
and its bounds are `log_file`'s.
"""

from typing import Final

import trio

from gossipmesh.dataplane.reference.log_file import LogFile, Written
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model import limits
from gossipmesh.model.access_log import AccessLogSettings

_FLUSH_INTERVAL_S: Final = 0.5  # a batch takes a thread, and with it others' time


class AccessLog:
    """A bounded queue of lines and the task that empties it into the file."""

    def __init__(self, settings: AccessLogSettings, counters: Counters) -> None:
        """Open the file.

        Raises:
            OSError: it cannot be used. State unchanged.
        """
        self.sample_ratio = settings.sample_ratio
        self._counters = counters
        self._lines: list[str] = []
        self._chars_count = 0
        self._wake = trio.Event()
        self._writing = trio.Lock()
        self._file = LogFile(settings)

    def write(self, line: str) -> None:
        """Add one line, or count it as dropped."""
        lines = self._lines
        full = len(lines) >= limits.ACCESS_LOG_QUEUE_MAX
        if full or self._chars_count >= limits.ACCESS_LOG_QUEUE_BYTES_MAX:
            self._counters.add("access_log_dropped")
            return
        lines.append(line)
        self._chars_count += len(line)
        if len(lines) == 1:
            self._wake.set()

    def reopen(self) -> None:
        """Go on in a new file of the same name, after a rotation."""
        self._file.reopen()
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled; `close` writes what is queued then."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await self.flush()
            await trio.sleep(_FLUSH_INTERVAL_S)

    async def flush(self) -> None:
        """Write what is queued, in a thread; one at a time."""
        async with self._writing:
            while self._lines or self._file.reopen_due:
                lines = self._take()
                try:
                    self._count(await trio.to_thread.run_sync(self._file.write, lines))
                except RuntimeError:  # no thread could be started: the machine has none left
                    self._count(Written(errors_count=1, shed_count=len(lines)))

    def _take(self) -> list[str]:
        lines, self._lines, self._chars_count = self._lines, [], 0
        return lines

    def _count(self, written: Written) -> None:
        if written.errors_count:
            self._counters.add("access_log_errors", written.errors_count)
        if written.shed_count:
            self._counters.add("access_log_shed", written.shed_count)

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._lines:
            self._count(self._file.write(self._take()))
        self._file.close()
