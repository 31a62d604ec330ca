"""An HTTP/1.1 server made of the standard library's: `python plain_server.py HOST:PORT`.

What it received is said in the answer: a test compares what left one end with what reached the other.
"""

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

BLOCK_BYTES = 65_536
NEVER = threading.Event()  # waited for with a timeout, a thread sleeps


class Handler(BaseHTTPRequestHandler):
    """`/bytes/N`, `/slow/SECONDS`, `/events/N`, `/trailers`, `/hints`; a body is counted and hashed."""

    protocol_version = "HTTP/1.1"
    # One write a message, as servers in production make it.
    wbufsize = -1

    def do_GET(self) -> None:
        _, _, rest = self.path.partition("/")
        kind, _, argument = urlsplit(rest).path.partition("/")
        if kind == "bytes":
            self._answer_bytes(int(argument))
        elif kind == "slow":
            NEVER.wait(float(argument))
            self._answer(b"slow\n")
        elif kind == "events":
            self._answer_chunks([b"data: %d\n\n" % number for number in range(int(argument))], pause_s=0.02)
        elif kind == "trailers":
            self._answer_chunks([b"hello ", b"world\n"], trailers={"x-checksum": "sha256:1234"})
        elif kind == "hints":
            self.send_response_only(103)
            self.send_header("Link", "</style.css>; rel=preload")
            self.end_headers()
            self._answer(b"hinted\n")
        else:
            self._answer(json.dumps(dict(self.headers.items())).encode())

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        digest, size = hashlib.sha256(), 0
        for block in self._body():
            digest.update(block)
            size += len(block)
        self._answer(json.dumps({"bytes": size, "sha256": digest.hexdigest()}).encode())

    do_POST = do_PUT

    def _body(self) -> Any:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            left = int(self.headers.get("content-length", 0))
            while left:
                block = self.rfile.read(min(left, BLOCK_BYTES))
                left -= len(block)
                yield block
            return
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    def _answer_bytes(self, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        block = bytes(range(256)) * 256
        while size > 0 and self.command != "HEAD":
            self.wfile.write(block[:size])
            size -= len(block)

    def _answer_chunks(
        self, pieces: list[bytes], pause_s: float = 0.0, trailers: dict[str, str] | None = None
    ) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        if trailers:
            self.send_header("Trailer", ", ".join(trailers))
        self.end_headers()
        for piece in pieces if self.command != "HEAD" else []:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()
            NEVER.wait(pause_s)
        lines = "".join(f"{name}: {value}\r\n" for name, value in (trailers or {}).items())
        if self.command != "HEAD":
            self.wfile.write(f"0\r\n{lines}\r\n".encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """With room for a load generator's connections."""

    request_queue_size = 512
    daemon_threads = True


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    Server((host, int(port)), Handler).serve_forever()
