"""The launcher's view of an agent: its admin API over the Unix socket, asked from trio."""

import json
from pathlib import Path
from typing import Any, Final

import h11
import trio

CHUNK_BYTES: Final = 65_536
QUERY_TIMEOUT_S: Final = 3.0


class AgentSilent(Exception):
    """The agent did not answer: not running, paused, or its socket not there yet."""


class AdminError(Exception):
    """The agent answered with an error; `status` is HTTP's, `code` its own word for it."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code


async def ask(
    socket_path: Path,
    path: str,
    *,
    method: str = "GET",
    body: bytes = b"",
    timeout_s: float = QUERY_TIMEOUT_S,
) -> Any:
    """Send one request to the agent at `socket_path`; return its decoded JSON, or bytes as they are.

    Raises:
        AgentSilent: no answer within `timeout_s`.
        AdminError: an answer with status 400 or above.
    """
    try:
        with trio.fail_after(timeout_s):
            status, content_type, data = await _exchange(socket_path, path, method, body)
    except (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError) as error:
        raise AgentSilent(f"no answer from {socket_path} to {method} {path}: {error!r}") from error
    decoded = data if "octet-stream" in content_type or not data else json.loads(data)
    if status >= 400:
        told = decoded if isinstance(decoded, dict) else {}
        raise AdminError(status, str(told.get("code", "")), str(told.get("error", f"status {status}")))
    return decoded


async def _exchange(socket_path: Path, path: str, method: str, body: bytes) -> tuple[int, str, bytes]:
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", "localhost"), ("Content-Length", str(len(body))), ("Connection", "close")]
    request = connection.send(h11.Request(method=method, target=path, headers=headers))
    content = connection.send(h11.Data(data=body)) if body else b""
    end = connection.send(h11.EndOfMessage())
    status, content_type, received = 0, "", bytearray()
    async with await trio.open_unix_socket(str(socket_path)) as stream:
        await stream.send_all((request or b"") + (content or b"") + (end or b""))
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(CHUNK_BYTES))
            elif isinstance(event, h11.Response):
                status = event.status_code
                content_type = dict(event.headers).get(b"content-type", b"").decode()
            elif isinstance(event, h11.Data):
                received += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, content_type, bytes(received)
            elif isinstance(event, h11.ConnectionClosed):
                raise OSError("the agent closed the connection before it answered")
