"""Memory and CPU of a process, from /proc."""

import os
from pathlib import Path
from typing import Final, NamedTuple

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """Resident memory, and CPU seconds since the process started."""

    rss_bytes: int
    cpu_s: float


def usage_of(pid: int | None) -> Usage:
    """Return what a process uses; zeros when there is none."""
    if pid is None:
        return Usage(0, 0.0)
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        # The name (second field) may hold anything; the rest begins after its last parenthesis.
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return Usage(pages * _PAGE_BYTES, (int(times[11]) + int(times[12])) / _TICKS_PER_S)
    except (OSError, ValueError, IndexError):
        return Usage(0, 0.0)
