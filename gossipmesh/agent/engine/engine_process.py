"""The engine as an operating system process: starting one, and telling whether it still runs.

Started by posix_spawn in a session of its own: a Ctrl-C for the agent does not reach it, and it
outlives the agent.
"""

import os
import signal
from pathlib import Path
from typing import Final

from gossipmesh.model import limits
from gossipmesh.model.access_log import AccessLogSettings
from gossipmesh.model.errors import OperatorError
from gossipmesh.net.files import open_file, require_own_folder
from gossipmesh.net.interpreter import module_words, safe_environment

ENGINE_MODULE: Final = "gossipmesh.dataplane.reference"
_LOG_TAIL_BYTES: Final = 400


def spawn_engine(socket_path: Path, access_log: AccessLogSettings, log_path: Path) -> int:
    """Start an engine that listens at `socket_path`; return its process id.

    Raises:
        OperatorError: the process or its log file cannot be made, or others could change that, or put
            something else where the access log is written.
    """
    command = module_words(ENGINE_MODULE)
    command += ["--socket", str(socket_path), *access_log.arguments()]
    try:
        require_own_folder(next(folder for folder in access_log.path.parents if folder.exists()))
        if log_path.exists() and log_path.stat().st_size > limits.ENGINE_LOG_BYTES_MAX // 2:
            log_path.replace(log_path.with_name(log_path.name + ".1"))
        log = open_file(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ]
        environment = safe_environment(os.environ)
        try:
            return os.posix_spawn(command[0], command, environment, file_actions=actions, setsid=True)
        finally:
            os.close(log)
    except OSError as error:
        raise OperatorError(f"cannot start the engine ({' '.join(command)}): {error.strerror}") from None


def is_running(pid: int) -> bool:
    """Tell whether `pid` is an engine that has not ended; one that was our child is reaped here."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != pid
    except ChildProcessError:
        pass  # an earlier agent started it
    try:
        # A zombie has no command line, and a number that was used again has another one.
        return ENGINE_MODULE.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def end_engine(pid: int, number: signal.Signals) -> None:
    """Send a signal to an engine, unless it has ended."""
    if is_running(pid):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def log_tail(log_path: Path) -> str:
    """Return the engine log's last line, for an error message."""
    try:
        descriptor = open_file(log_path, os.O_RDONLY)
        try:
            start = max(0, os.fstat(descriptor).st_size - _LOG_TAIL_BYTES)
            tail = os.pread(descriptor, _LOG_TAIL_BYTES, start).decode(errors="replace").strip()
        finally:
            os.close(descriptor)
    except (OSError, OperatorError):
        return ""
    return tail.splitlines()[-1] if tail else ""
