"""The engine's own words on stderr, bounded when that is a file: it begins anew when it is full.

Whoever starts an engine rotates the file between two of them; this bounds what one engine writes in months,
and in the minutes when everything fails at once. The disk's last tenth is left to others.
"""

import logging
import os
import stat
import sys
from collections.abc import Callable
from typing import Final

import msgspec

from gossipmesh.model import limits
from gossipmesh.model.text import visible
from gossipmesh.net.log_record import shown

_RESERVE_SHARE: Final = 10


class JsonLines(logging.Formatter):
    """One JSON object a record, a traceback inside it; words of others are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its end."""
        return visible(msgspec.json.encode(shown(record, self)).decode())


class EngineLog(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes records to stderr as long as there is room; each one left out is told to `on_shed`."""

    def __init__(self, on_shed: Callable[[], None], bytes_max: int = limits.ENGINE_LOG_BYTES_MAX) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(JsonLines())
        self._on_shed = on_shed
        self._bytes_max = bytes_max

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, or leave it out."""
        try:
            has_room = self._has_room(self.stream.fileno())
        except (OSError, ValueError):
            has_room = True  # no file at all: a pipe somebody reads, or a test's
        if has_room:
            super().emit(record)
        else:
            self._on_shed()

    def _has_room(self, descriptor: int) -> bool:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return True
        disk = os.fstatvfs(descriptor)
        if disk.f_bavail < disk.f_blocks // _RESERVE_SHARE:
            return False
        if status.st_size > self._bytes_max:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b'{"level":"warning","message":"the log was full and begins anew"}\n')
        return True
