"""What a process has used, from /proc: CPU seconds and proportional memory."""

import os
from collections.abc import Iterable
from pathlib import Path


def cpu_s(pids: Iterable[int]) -> float:
    """Return user and system CPU seconds used so far by these processes, all their threads included."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / ticks


def rss_mb(pid: int) -> float:
    """Return the resident memory of one process in MB (10^6 bytes)."""
    return _field_kb(Path(f"/proc/{pid}/status"), "VmRSS:") * 1024 / 1e6


def peak_mb(pid: int) -> float:
    """Return the most resident memory one process ever had, in MB (10^6 bytes)."""
    return _field_kb(Path(f"/proc/{pid}/status"), "VmHWM:") * 1024 / 1e6


def anonymous_mb(pid: int) -> float:
    """Return the part of a process's resident memory that is no page of a file, in MB (10^6 bytes)."""
    return _field_kb(Path(f"/proc/{pid}/status"), "RssAnon:") * 1024 / 1e6


def pss_mb(pid: int) -> float:
    """Return the proportional share of memory of one process in MB (10^6 bytes)."""
    return _field_kb(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") * 1024 / 1e6


def pin(pid: int, core: int) -> None:
    """Keep a process, all its threads, on one core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def _field_kb(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ValueError(f"{path} has no field {name}")
