"""The commands' way to the agent of this machine: HTTP over its Unix socket.

Every failure is a sentence that says what to do about it.
"""

import http.client
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import click

from gossipmesh.model.errors import OperatorError

DEFAULT_SOCKET: Final = "/var/lib/gossipmesh/agent.sock"
SOCKET_VARIABLE: Final = "GOSSIPMESH_SOCKET"
REQUEST_TIMEOUT_S: Final = 5.0
RESPONSE_BYTES_MAX: Final = 67_108_864  # the members, services and endpoints of ten thousand nodes fit

F = TypeVar("F", bound=Callable[..., Any])


class AgentRefused(OperatorError):
    """The agent answered with an error: `status` is HTTP's, `code` the agent's own word for it."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code


class AdminClient:
    """Asks one agent; a connection per request, so nothing has to be closed."""

    def __init__(self, socket_path: str | Path | None = None, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.path = Path(socket_path or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET)
        self._timeout_s = timeout_s

    def get_json(self, path: str, **query: str) -> Any:
        """Return the decoded answer to a GET.

        Raises:
            OperatorError: no agent, no permission, no answer; AgentRefused for an error it sent.
        """
        return self._decoded(self._request("GET", _target(path, query)))

    def get_bytes(self, path: str, **query: str) -> bytes | None:
        """Return the body of the answer to a GET, None where there is nothing (404).

        Raises:
            OperatorError: as for `get_json`.
        """
        try:
            return self._request("GET", _target(path, query))
        except AgentRefused as refusal:
            if refusal.status == http.client.NOT_FOUND:
                return None
            raise

    def post_bytes(self, path: str, body: bytes = b"") -> Any:
        """Send `body` and return the decoded answer, None for an empty one.

        Raises:
            OperatorError: as for `get_json`.
        """
        answer = self._request("POST", path, body)
        return self._decoded(answer) if answer else None

    def _request(self, method: str, target: str, body: bytes | None = None) -> bytes:
        connection = _UnixConnection(self.path, self._timeout_s)
        headers = {} if body is None else {"Content-Type": "application/octet-stream"}
        try:
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
            data = response.read(RESPONSE_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException) as error:
            raise OperatorError(self._sentence(error, f"{method} {target}")) from error
        finally:
            connection.close()
        if len(data) > RESPONSE_BYTES_MAX:
            raise OperatorError(f"the agent's answer to {target} is over {RESPONSE_BYTES_MAX} bytes")
        if response.status >= http.client.BAD_REQUEST:
            raise _refusal(response.status, data, target)
        return data

    def _decoded(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise OperatorError(f"what answers on {self.path} is not a gossipmesh agent: no JSON") from error

    def _sentence(self, error: Exception, request: str) -> str:
        choose = f"or name another socket with --socket or {SOCKET_VARIABLE}"
        if isinstance(error, FileNotFoundError):
            return (
                f"no agent at {self.path}: there is no such socket; start one with "
                f"`gossipmesh agent --config FILE`, {choose}"
            )
        if isinstance(error, PermissionError):
            return f"no permission to open {self.path}: run this as root or as the agent's user, {choose}"
        if isinstance(error, ConnectionRefusedError):
            return f"no agent at {self.path}: it is not running any more; start it, {choose}"
        if isinstance(error, TimeoutError):
            return (
                f"the agent at {self.path} did not answer {request} within {self._timeout_s:g} s; see its log"
            )
        return f"asking the agent at {self.path} for {request} failed: {error or type(error).__name__}"


class _UnixConnection(http.client.HTTPConnection):
    """http.client over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket file."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def socket_option(command: F) -> F:
    """Add `--socket` to a command, as the parameter `socket_path`."""
    option = click.option(
        "--socket",
        "socket_path",
        type=click.Path(dir_okay=False),
        metavar="PATH",
        help=f"The agent's socket (default: ${SOCKET_VARIABLE} or {DEFAULT_SOCKET}).",
    )
    return option(command)


def _target(path: str, query: dict[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _refusal(status: int, data: bytes, target: str) -> AgentRefused:
    try:
        told = json.loads(data)
    except ValueError:
        told = {}
    if not isinstance(told, dict):
        told = {}
    sentence = str(told.get("error") or f"the agent answered {target} with status {status}")
    return AgentRefused(status, str(told.get("code", "")), sentence)
