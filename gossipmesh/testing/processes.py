"""Processes of a mesh under test: started, signalled and, whatever happens, ended by their keeper.

Every process carries a random mark in its environment, and its children inherit it: so an engine that
outlives its agent, as it should, is still found and ended. Nothing without the mark is ever signalled.
"""

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import trio

MARK_VARIABLE: Final = "GOSSIPMESH_TEST_RUN"
END_TIMEOUT_S: Final = 10.0
SWEEPS_MAX: Final = 20
LINE_BYTES_MAX: Final = 16_777_216
CHUNK_BYTES: Final = 65_536


async def follow_json_lines(
    process: "subprocess.Popen[bytes]", take: Callable[[dict[str, Any]], None]
) -> None:
    """Hand each JSON line a process prints to `take`, until it ends; started with a pipe for stdout."""
    if process.stdout is None:
        raise ValueError("a process that is followed is started with a pipe for stdout")
    buffer = bytearray()
    async with trio.lowlevel.FdStream(os.dup(process.stdout.fileno())) as stream:
        while data := await stream.receive_some(CHUNK_BYTES):
            buffer += data
            *lines, rest = buffer.split(b"\n")
            buffer = bytearray(rest[:LINE_BYTES_MAX])
            for line in lines:
                take(json.loads(line))


class CommandResult:
    """What a command printed and how it ended."""

    def __init__(self, arguments: Sequence[str], completed: "subprocess.CompletedProcess[bytes]") -> None:
        self.arguments = list(arguments)
        self.code = completed.returncode
        self.stdout = (completed.stdout or b"").decode(errors="replace")
        self.stderr = (completed.stderr or b"").decode(errors="replace")


class ProcessKeeper:
    """Starts processes with their output in files under `directory`, and ends all of them.

    Interface: `start`, `command`, `signal`, `is_running`, `close`. `close` may be called at any time,
    more than once, and needs no event loop.
    """

    def __init__(self, directory: Path) -> None:
        self._logs = directory / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._mark = secrets.token_hex(16)
        self._children: list[subprocess.Popen[bytes]] = []

    def environment(self) -> dict[str, str]:
        """Return the environment every process of this run gets."""
        return {**os.environ, MARK_VARIABLE: self._mark, "PYTHONUNBUFFERED": "1"}

    def log_path(self, name: str) -> Path:
        """Return where the process called `name` writes what it prints."""
        return self._logs / f"{name}.log"

    def start(
        self, name: str, arguments: Sequence[str], *, stdin_pipe: bool = False, stdout_pipe: bool = False
    ) -> "subprocess.Popen[bytes]":
        """Start a process in a session of its own, so that a Ctrl-C at the terminal reaches only us."""
        with self.log_path(name).open("ab") as log:
            child = subprocess.Popen(
                list(arguments),
                stdin=subprocess.PIPE if stdin_pipe else subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout_pipe else log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,
            )
        self._children.append(child)
        return child

    async def command(
        self, arguments: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0
    ) -> CommandResult:
        """Run a command to its end; killed when it takes longer than `timeout_s` (then code -9)."""
        completed = subprocess.CompletedProcess(
            list(arguments), -signal.SIGKILL, b"", f"not finished within {timeout_s:g} s".encode()
        )
        with trio.move_on_after(timeout_s):
            completed = await trio.run_process(
                list(arguments),
                stdin=stdin,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=self.environment(),
                start_new_session=True,
            )
        return CommandResult(arguments, completed)

    def signal(self, pid: int, number: signal.Signals) -> bool:
        """Send a signal to a process of this run; False when there is no such process (any more)."""
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            # Looked at after the handle is held: the number cannot be given to another process since.
            if not self._is_marked(pid):
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        self._reap()
        return True

    def is_running(self, pid: int) -> bool:
        """Tell whether `pid` is a process of this run that has not ended."""
        self._reap()
        return self._is_marked(pid)

    def _is_marked(self, pid: int) -> bool:
        # The kernel shows a process without environment for a moment after exec; a child of our own that
        # was not reaped keeps its number, so it needs no mark.
        if any(child.pid == pid and child.returncode is None for child in self._children):
            return True
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        return f"{MARK_VARIABLE}={self._mark}".encode() in environment.split(b"\0")

    def _reap(self) -> None:
        for child in self._children:
            child.poll()

    def marked_pids(self) -> list[int]:
        """Return the pids of this run's processes, children of children too, ascending."""
        pids = sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())
        return [pid for pid in pids if pid != os.getpid() and self._is_marked(pid)]

    def close(self) -> None:
        """Kill every process of this run and wait for those that are our children."""
        # An agent killed between two looks may have started an engine meanwhile: look until none is left.
        for _ in range(SWEEPS_MAX):
            pids = self.marked_pids()
            for pid in pids:
                self.signal(pid, signal.SIGKILL)
            for child in self._children:
                try:
                    child.wait(END_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    continue
            if not pids:
                break
        for child in self._children:
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
        self._children.clear()
