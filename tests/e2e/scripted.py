"""A workload that behaves as a test says: it counts, fails, and withholds answers. It runs in the test."""

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit


class ScriptedWorkload:
    """HTTP on `(host, port)`.

    `/fails/N/...` answers 503 the first N times and then 200; `/held/...` is not answered before
    `release`; anything else is answered 200.
    """

    def __init__(self, host: str, port: int) -> None:
        self.requests: Counter[str] = Counter()
        self.headers: dict[str, dict[str, str]] = {}
        self._released = threading.Event()
        self._server = ThreadingHTTPServer((host, port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "ScriptedWorkload":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def release(self) -> None:
        """Let every held answer go."""
        self._released.set()

    def _answer(self, method: str, target: str, headers: dict[str, str]) -> int:
        path = urlsplit(target).path
        self.requests[f"{method} {path}"] += 1
        self.headers[path] = headers
        words = path.strip("/").split("/")
        if words[0] == "held":
            self._released.wait(60.0)
        failures = int(words[1]) if words[0] == "fails" else 0
        return 503 if self.requests[f"{method} {path}"] <= failures else 200

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        workload = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                status = workload._answer(self.command, self.path, dict(self.headers.items()))
                self.send_response(status)
                self.send_header("content-length", "3")
                self.end_headers()
                self.wfile.write(b"ok\n")

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Handler
