"""The trace of a run: one line per event, kept as a running hash and, when asked, as text."""

import hashlib
from collections.abc import Callable
from typing import Final

LINES_AT_ONCE: Final = 256


class Trace:
    """Hashes every line given to it; two runs with one seed must end with one digest.

    `sink` gets each line as text, for a person who compares two runs.
    """

    def __init__(self, sink: Callable[[str], None] | None = None) -> None:
        self._digest = hashlib.blake2b(digest_size=16)
        self._waiting: list[str] = []
        self._sink = sink
        self.lines_count = 0

    def record(self, at_ns: int, line: str) -> None:
        """Add one line that happened at virtual time `at_ns`."""
        text = f"{at_ns} {line}\n"
        self._waiting.append(text)
        self.lines_count += 1
        if len(self._waiting) >= LINES_AT_ONCE:
            self._fold()
        if self._sink is not None:
            self._sink(text)

    def digest(self) -> str:
        """Return the hash over all lines so far, in hex."""
        self._fold()
        return self._digest.hexdigest()

    def _fold(self) -> None:
        self._digest.update("".join(self._waiting).encode())
        self._waiting.clear()


def fingerprint(payload: bytes) -> str:
    """Return a short stable name for a payload, for trace lines."""
    return hashlib.blake2b(payload, digest_size=6).hexdigest()
