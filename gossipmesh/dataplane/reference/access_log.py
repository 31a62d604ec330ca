"""The access log: one JSON line per request or TCP connection, with Envoy's field names.

Lines are made at once and written by a thread in batches, so that a slow disk never holds a request; what
waits is bounded and what does not fit is counted. SIGHUP reopens the file. Ends at bytes in lines: the file
and its bounds are `log_file`'s. Rules:

1. The thread is our own and looks for itself four times a second while there are lines. Handing each batch to
   a pool of threads and waiting for it costs the loop twice what the writing does, and small batches hold up
   the requests that run beside them by less.
2. What two threads share is a deque, and numbers that one of them alone changes. The file is written by who
   holds the lock.
"""

import threading
from collections import deque
from typing import Final

import trio

from gossipmesh.dataplane.reference.log_file import LogFile
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model import limits
from gossipmesh.model.access_log import AccessLogSettings

_BATCH_S: Final = 0.25


class AccessLog:
    """A bounded queue of lines and the thread that empties it into the file."""

    def __init__(self, settings: AccessLogSettings, counters: Counters) -> None:
        """Open the file; nothing is written before `maintain` or `flush`.

        Raises:
            OSError: it cannot be used. State unchanged.
        """
        self.sample_ratio = settings.sample_ratio
        self._counters = counters
        self._lines: deque[str] = deque()
        self._queued_chars = 0  # in all; the loop's
        self._taken_chars = 0  # in all; changed under the lock
        self._errors_count = 0  # so, too
        self._shed_count = 0
        self._told_errors_count = 0
        self._told_shed_count = 0
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._writing = threading.Lock()
        self._file = LogFile(settings)

    def write(self, line: str) -> None:
        """Add one line, or count it as dropped."""
        lines = self._lines
        waiting_chars = self._queued_chars - self._taken_chars
        if len(lines) >= limits.ACCESS_LOG_QUEUE_MAX or waiting_chars >= limits.ACCESS_LOG_QUEUE_BYTES_MAX:
            self._counters.add("access_log_dropped")
            return
        self._queued_chars += len(line)
        lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def reopen(self) -> None:
        """Go on in a new file of the same name, after a rotation."""
        self._file.reopen()
        self._wake.set()

    def maintain(self) -> None:
        """Once a second: see that the thread is there, and count what it could not write."""
        if self._thread is None:
            thread = threading.Thread(target=self._write_on, name="access log", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the machine has no thread left; lines wait, within their bound
                self._counters.add("access_log_errors")
            else:
                self._thread = thread
        self._count()

    async def flush(self) -> None:
        """Write what is queued now."""
        try:
            await trio.to_thread.run_sync(self._write_batch)
        except RuntimeError:  # no thread could be started: what waits is written at the end
            self._counters.add("access_log_errors")
        self._count()

    def close(self) -> None:
        """Write what is left and close the file."""
        self._write_batch()
        with self._writing:
            self._closed.set()
            self._file.close()
        self._wake.set()
        self._count()

    def _write_on(self) -> None:
        """Write until the log is closed; the thread."""
        while not self._closed.is_set():
            self._wake.wait()
            self._closed.wait(_BATCH_S)
            if not self._write_batch():
                # Only now: waking this thread is work of the loop's, which it need not do each time.
                self._wake.clear()
                if self._lines or self._file.reopen_due:
                    self._wake.set()  # since it looked

    def _write_batch(self) -> bool:
        """Write what is queued now, and reopen the file if that is due; in any thread. False: neither was."""
        with self._writing:
            if self._closed.is_set():
                return True
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if not lines and not self._file.reopen_due:
                return False
            self._taken_chars += sum(map(len, lines))
            written = self._file.write(lines)
            self._errors_count += written.errors_count
            self._shed_count += written.shed_count
            return True

    def _count(self) -> None:
        errors_count, shed_count = self._errors_count, self._shed_count
        if errors_count > self._told_errors_count:
            self._counters.add("access_log_errors", errors_count - self._told_errors_count)
            self._told_errors_count = errors_count
        if shed_count > self._told_shed_count:
            self._counters.add("access_log_shed", shed_count - self._told_shed_count)
            self._told_shed_count = shed_count
