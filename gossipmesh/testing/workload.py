"""A small workload: a real HTTP/1.1 service and a line-based TCP service, as the mesh's users run them.

It stands for a program the mesh does not know: plain blocking sockets, a thread per connection and
nothing of gossipmesh imported, so that it starts at once and costs little memory. `/healthz` answers
200; any other path answers JSON `{service, version, node, upstream}`. The TCP service answers each
line with such an object. With `--upstream`, a request is passed on through the local mesh proxy and
its answer is nested, so that one request crosses the whole chain.

`/slow/S` answers after S seconds, `/stream/S` piece by piece for S seconds, `/chunks/N` in N chunks of one
byte; a WebSocket is answered frame by frame with what it sent. None of these asks the upstream.
"""

import argparse
import json
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

CLIENT_TIMEOUT_S: Final = 300.0
UPSTREAM_TIMEOUT_S: Final = 10.0  # longer than a stopped machine is waited for: docs/TRAFFIC.md, "Retries"
HEAD_BYTES_MAX: Final = 65_536
BODY_BYTES_MAX: Final = 1_048_576
CHUNK_BYTES: Final = 65_536
REASONS: Final = {200: "OK", 400: "Bad Request", 502: "Bad Gateway"}
SLOW_S_MAX: Final = 3_600.0
CHUNKS_MAX: Final = 1_000_000
PIECE_INTERVAL_S: Final = 0.25
WEBSOCKET_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
NODE_HEADER: Final = "X-Node"


class Workload:
    """What one instance says of itself, and whom it asks before it answers."""

    def __init__(self, name: str, version: str, node: str, upstream: str | None) -> None:
        self._identity = {"service": name, "version": version, "node": node}
        self._upstream = upstream

    @property
    def node(self) -> str:
        """Return the name of the node it runs on."""
        return self._identity["node"]

    def said(self) -> bytes:
        """Return who answers, without asking anybody."""
        return json.dumps(self._identity).encode()

    def answer(self) -> tuple[int, bytes]:
        """Return a status and a JSON body; 502 when the upstream did not answer well."""
        reply: dict[str, Any] = dict(self._identity)
        status = 200
        if self._upstream is not None:
            try:
                reply["upstream"] = self._ask_upstream()
            except (OSError, ValueError) as error:
                status, reply["error"] = 502, f"upstream {self._upstream}: {error}"
        return status, json.dumps(reply).encode()

    def _ask_upstream(self) -> Any:
        scheme, _, address = (self._upstream or "").partition("://")
        host, _, port = address.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), UPSTREAM_TIMEOUT_S) as connection:
            if scheme == "tcp":
                connection.sendall(b"hello\n")
                return json.loads(_read_line(connection))
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
            head, rest = _read_head(connection, b"")
            if head is None:
                raise ValueError("closed before an answer")
            body = _read_body(connection, head, rest)[0]
            status = int(head.split(b" ", 2)[1])
            if status != 200:
                raise ValueError(f"answered {status} {body[:200].decode(errors='replace')}")
            return json.loads(body)


def _read_line(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < HEAD_BYTES_MAX:
        chunk = connection.recv(CHUNK_BYTES)
        if not chunk:
            break
        data += chunk
    return data


def _read_head(connection: socket.socket, data: bytes) -> tuple[bytes | None, bytes]:
    """Return (head, what followed it); head is None when the peer closed or sent too much."""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(CHUNK_BYTES)
        if not chunk or len(data) > HEAD_BYTES_MAX:
            return None, b""
        data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _header(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return b""


def _read_body(connection: socket.socket, head: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Return (body, what followed it) for a message with a length, chunks, or neither."""
    if _header(head, b"transfer-encoding").lower() == b"chunked":
        body, held, at = bytearray(), bytearray(data), 0
        while len(body) < BODY_BYTES_MAX:
            while (end := held.find(b"\r\n", at)) < 0:
                held = held[at:] + _more(connection)
                at = 0
            size = int(held[at:end].partition(b";")[0], 16)
            while len(held) < end + size + 4:
                held += _more(connection)
            body += held[end + 2 : end + 2 + size]
            at = end + size + 4
            if size == 0:
                break
        return bytes(body), bytes(held[at:])
    length = min(int(_header(head, b"content-length") or 0), BODY_BYTES_MAX)
    while len(data) < length:
        data += _more(connection)
    return data[:length], data[length:]


def _more(connection: socket.socket) -> bytes:
    chunk = connection.recv(CHUNK_BYTES)
    if not chunk:
        raise ValueError("closed in the middle of a message")
    return chunk


def serve_http(connection: socket.socket, workload: Workload) -> None:
    """Answer HTTP/1.1 requests on one connection until the peer closes it."""
    data = b""
    while True:
        head, data = _read_head(connection, data)
        if head is None:
            return
        _, data = _read_body(connection, head, data)
        method, _, target = head.partition(b"\r\n")[0].partition(b" ")
        if _header(head, b"upgrade").lower() == b"websocket":
            serve_websocket(connection, workload, head, data)
            return
        if target.startswith((b"/stream/", b"/chunks/")):
            send_pieces(connection, workload, target)
            continue
        if target.startswith(b"/slow/"):
            _wait(_number(target, SLOW_S_MAX))
            status, body = 200, workload.said()
        else:
            status, body = (200, b"ok\n") if target.startswith(b"/healthz") else workload.answer()
        close = _header(head, b"connection").lower() == b"close"
        answer = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{'Connection: close' if close else 'Server: workload'}\r\n\r\n"
        ).encode()
        connection.sendall(answer if method == b"HEAD" else answer + body)
        if close:
            return


def _number(target: bytes, most: float) -> float:
    """Return the number a path such as `/slow/3` ends with, bounded."""
    return min(float(target.split(b" ")[0].rpartition(b"/")[2]), most)


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def send_pieces(connection: socket.socket, workload: Workload, target: bytes) -> None:
    """Answer in many chunks: blanks first, who answers last, so that the whole is JSON."""
    head = f"HTTP/1.1 200 OK\r\n{NODE_HEADER}: {workload.node}\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head.encode())
    count = int(_number(target, CHUNKS_MAX))
    if target.startswith(b"/chunks/"):
        connection.sendall(b"1\r\n \r\n" * count)
    else:
        for _ in range(int(_number(target, SLOW_S_MAX) / PIECE_INTERVAL_S)):
            connection.sendall(b"1\r\n \r\n")
            _wait(PIECE_INTERVAL_S)
    body = workload.said()
    connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))


def serve_websocket(connection: socket.socket, workload: Workload, head: bytes, data: bytes) -> None:
    """Accept a WebSocket and send back each short message until the peer closes (RFC 6455 section 5.2)."""
    import base64  # only who is asked for a WebSocket pays for these
    import hashlib

    digest = hashlib.sha1(_header(head, b"sec-websocket-key") + WEBSOCKET_GUID).digest()  # noqa: S324
    accept = base64.b64encode(digest).decode()
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Accept: {accept}", f"{NODE_HEADER}: {workload.node}"]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    while True:
        while len(data) < 6:
            data += _more(connection)
        size = data[1] & 0x7F
        if size > 125:
            raise ValueError("a longer message than this service takes")
        while len(data) < 6 + size:
            data += _more(connection)
        mask, masked, first = data[2:6], data[6 : 6 + size], data[:1]
        data = data[6 + size :]
        message = bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))
        connection.sendall(first + bytes([size]) + message)
        if first[0] & 0x0F == 8:
            return


def serve_tcp(connection: socket.socket, workload: Workload) -> None:
    """Answer each line with a line of JSON until the peer closes."""
    while _read_line(connection):
        connection.sendall(workload.answer()[1] + b"\n")


def _connection_thread(
    serve: Callable[[socket.socket, Workload], None], connection: socket.socket, workload: Workload
) -> None:
    connection.settimeout(CLIENT_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        try:
            serve(connection, workload)
        except (OSError, ValueError):
            return  # the peer went away or sent nonsense; the next connection is another matter


def listen(address: str) -> socket.socket:
    """Return a socket listening on `ADDRESS:PORT`."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=256)


def main() -> None:
    """Serve until killed; prints one line when the address is bound."""
    parser = argparse.ArgumentParser(prog="gossipmesh.testing.workload")
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", default="")
    parser.add_argument("--node", default=socket.gethostname())
    parser.add_argument(
        "--upstream", help="http://ADDRESS:PORT or tcp://ADDRESS:PORT, asked before answering"
    )
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--http", metavar="ADDRESS:PORT")
    kind.add_argument("--tcp", metavar="ADDRESS:PORT")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.stack_size(256 * 1024)
    workload = Workload(options.name, options.version, options.node, options.upstream)
    serve = serve_http if options.http else serve_tcp
    with listen(options.http or options.tcp) as listener:
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        try:
            while True:
                connection, _ = listener.accept()
                arguments = (serve, connection, workload)
                threading.Thread(target=_connection_thread, args=arguments, daemon=True).start()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
