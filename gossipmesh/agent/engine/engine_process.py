"""Engines as operating system processes: starting one, ending it, and telling whether it still runs.

Knows no engine by name: what is started is the words of a choice (`engine_choice`), and each engine has a
socket of its own.
Rules:
1. Started by posix_spawn in a session of its own: a Ctrl-C for the agent does not reach it, and it outlives
   the agent.
2. A process is held by a descriptor: a signal meets that very process or none, whoever has its number now.
"""

import os
import select
import signal
from pathlib import Path
from typing import Final

from gossipmesh.agent.config import EngineChoice
from gossipmesh.agent.engine.engine_choice import engine_words
from gossipmesh.model import limits
from gossipmesh.model.access_log import AccessLogSettings
from gossipmesh.model.errors import OperatorError
from gossipmesh.net.files import open_file, require_own_folder
from gossipmesh.net.interpreter import safe_environment

_SOCKETS: Final = ("engine.sock", "engine-2.sock")  # one that serves, and one that drains
_LOG_TAIL_BYTES: Final = 400


class EngineProcess:
    """One engine's process; `socket_path` is where it listens for an agent."""

    def __init__(self, pid: int, socket_path: Path) -> None:
        """Take hold of a process.

        Raises:
            OSError: there is none of that number, or no descriptor for it. State unchanged.
        """
        self.pid = pid
        self.socket_path = socket_path
        self._descriptor = os.pidfd_open(pid)

    def is_running(self) -> bool:
        """Tell whether it has not ended; one that was our child is reaped here."""
        if self._descriptor < 0:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if not poll.poll(0):
            return True
        try:
            os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pass  # an earlier agent started it
        self.close()
        return False

    def end(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.is_running():
            try:
                signal.pidfd_send_signal(self._descriptor, number)
            except ProcessLookupError:
                pass

    def close(self) -> None:
        """Let go of the process, which goes on."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class EngineDriver:
    """Starts the engine that was chosen, in one folder, and finds those that run there."""

    def __init__(
        self, choice: EngineChoice, folder: Path, access_log: AccessLogSettings, log_path: Path
    ) -> None:
        self._choice = choice
        self._folder = folder
        self._access_log = access_log
        self._log_path = log_path

    def socket_paths(self) -> list[Path]:
        """Return where an engine of this node may listen, whether or not one does."""
        return [self._folder / name for name in _SOCKETS]

    def start(self, socket_path: Path) -> EngineProcess:
        """Start an engine that listens at `socket_path`.

        Raises:
            OperatorError: the engine that was chosen cannot be run, its process or log file cannot be made,
                or others could change that, or put something else where the access log is written.
        """
        words = [*engine_words(self._choice), "--socket", str(socket_path), *self._access_log.arguments()]
        try:
            require_own_folder(next(folder for folder in self._access_log.path.parents if folder.exists()))
            return EngineProcess(self._spawn(words), socket_path)
        except OSError as error:
            raise OperatorError(f"cannot start the engine ({' '.join(words)}): {error.strerror}") from None

    def found(self, pid: int, socket_path: Path) -> EngineProcess:
        """Return an engine's process that was found running.

        Raises:
            OSError: it has ended. State unchanged.
        """
        return EngineProcess(pid, socket_path)

    def _spawn(self, words: list[str]) -> int:
        path = self._log_path
        if path.exists() and path.stat().st_size > limits.ENGINE_LOG_BYTES_MAX // 2:
            path.replace(path.with_name(path.name + ".1"))
        log = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ]
        environment = safe_environment(os.environ)
        try:
            return os.posix_spawn(words[0], words, environment, file_actions=actions, setsid=True)
        finally:
            os.close(log)

    def last_words(self) -> str:
        """Return the last line of what engines wrote to their log, for an error message."""
        try:
            descriptor = open_file(self._log_path, os.O_RDONLY)
            try:
                start = max(0, os.fstat(descriptor).st_size - _LOG_TAIL_BYTES)
                tail = os.pread(descriptor, _LOG_TAIL_BYTES, start).decode(errors="replace").strip()
            finally:
                os.close(descriptor)
        except (OSError, OperatorError):
            return ""
        return tail.splitlines()[-1] if tail else ""

    @property
    def log_path(self) -> Path:
        """Return where engines write what goes wrong."""
        return self._log_path
