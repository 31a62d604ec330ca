"""Logs: JSON lines on stderr, through a bounded queue, so that a slow pipe never holds the loop.

Rules:
1. A record that finds the queue full is dropped and counted; the count is logged when there is room.
2. Fields are names, addresses, versions and sentences; keys, tokens and bodies are never passed here.
"""

import json
import logging
import os
import queue
import threading
from typing import Any, Final

from gossipmesh.model.text import visible
from gossipmesh.net.log_record import shown

_QUEUE_MAX: Final = 10_000
_STOP_TIMEOUT_S: Final = 2.0


def fields(**values: Any) -> dict[str, dict[str, Any]]:
    """Return the `extra` of a log call: named values that become keys of the JSON line."""
    return {"fields": values}


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, message, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its end."""
        text = json.dumps(shown(record, self), default=str)
        return visible(text)  # ASCII, but for DEL, which json lets through


class QueuedHandler(logging.Handler):
    """Hands formatted lines to a thread that writes them to a descriptor."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.dropped_count = 0
        self._descriptor = descriptor
        self._dropped_told = 0
        self._queue: queue.Queue[str | None] = queue.Queue(_QUEUE_MAX)
        self._thread = threading.Thread(target=self._write, name="log-writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record, or count it as dropped."""
        try:
            self._queue.put_nowait(self.format(record))
        except queue.Full:
            self.dropped_count += 1

    def stop(self) -> None:
        """Write what is queued and end the thread; bounded, even when nobody reads the pipe."""
        try:
            self._queue.put(None, timeout=_STOP_TIMEOUT_S)
        except queue.Full:
            return
        self._thread.join(_STOP_TIMEOUT_S)

    def _write(self) -> None:
        while (line := self._queue.get()) is not None:
            dropped = self.dropped_count
            if dropped > self._dropped_told:
                line += "\n" + json.dumps(
                    {"level": "warning", "message": "log records dropped", "count": dropped}
                )
                self._dropped_told = dropped
            try:
                os.write(self._descriptor, line.encode() + b"\n")
            except OSError:
                self.dropped_count += 1


def start_logging(level: str, descriptor: int = 2) -> QueuedHandler:
    """Send the `gossipmesh` loggers to `descriptor`; the caller stops what this returns."""
    handler = QueuedHandler(descriptor)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger("gossipmesh")
    root.handlers = [handler]
    root.propagate = False
    set_level(level)
    return handler


def set_level(level: str) -> None:
    """Log what is at least of `level`, one of the configuration's words."""
    logging.getLogger("gossipmesh").setLevel(level.upper())
