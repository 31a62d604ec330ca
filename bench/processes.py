"""Processes of a benchmark: run one, pin it, and read what it has used from /proc (CPU seconds, memory)."""

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from gossipmesh.model.member import Address

LISTENING_S: Final = 10
ENDING_S: Final = 10


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
    """Return the most resident memory one process had since `forget_peak`, in MB (10^6 bytes)."""
    return _field_kb(Path(f"/proc/{pid}/status"), "VmHWM:") * 1024 / 1e6


def forget_peak(pid: int) -> None:
    """Have `peak_mb` begin anew for a process; needs to be its user, or root."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


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


@contextlib.contextmanager
def running(command: Sequence[str], core: int, address: Address) -> Iterator[int]:
    """Start a process on one core, wait until it listens on `address`, yield its pid, end it afterwards.

    Raises:
        RuntimeError: it ended at once, or does not listen; its last words are told.
    """
    with tempfile.TemporaryFile() as words, started(command, core, words) as process:
        try:
            wait_listening(address, process)
        except RuntimeError as error:
            words.seek(0)
            said = words.read()[-400:].decode(errors="replace").strip()
            raise RuntimeError(f"{command[0]}: {error}: {said}") from None
        yield process.pid


@contextlib.contextmanager
def started(
    command: Sequence[str], core: int, words: IO[bytes], environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process on one core, its error output going to `words`; end it by pid afterwards."""
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=words,
        env=environment,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_listening(address: Address, process: subprocess.Popen[bytes]) -> None:
    """Return once something accepts on `address`.

    Raises:
        RuntimeError: the process ended, or nothing listens within LISTENING_S.
    """
    deadline = time.perf_counter() + LISTENING_S
    while time.perf_counter() < deadline:
        try:
            socket.create_connection(address.socket_address(), timeout=1).close()
            return
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.02)
        if process.poll() is not None:
            raise RuntimeError(f"it ended at once with code {process.returncode}")
    raise RuntimeError(f"nothing listens on {address} after {LISTENING_S} s")


def _field_kb(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ValueError(f"{path} has no field {name}")
