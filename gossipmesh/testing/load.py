"""The load driver: a process of its own that sends requests at a constant rate and forgets nothing.

Open loop: a request leaves when its time has come, whether or not earlier ones were answered, so that
a stall shows as failures or latency and never as a lower rate. Every request enters a node's local outbound
port; unless its target says another kind (KINDS), it is an idempotent GET with a small answer. Prints JSON
lines: `progress` twice a second, `failure` for each failed request, `session` for each long-lived
connection that ended (`gossipmesh.testing.sessions`), one `summary` at the end (SIGTERM, end of stdin, or
`--for`).

A reused connection that the proxy closed before the first byte of an answer is tried once more on a
new one, as RFC 9112 section 9.3.1 lets clients do, and counted as `reconnects`.
"""

import argparse
import json
import math
import signal
import sys
from collections import Counter
from typing import Any, Final, TextIO

import h11
import msgspec
import trio

from gossipmesh.model.instant import SECOND_NS
from gossipmesh.net import clock
from gossipmesh.testing import sessions

FAILURES_KEPT_MAX: Final = 10_000
IN_FLIGHT_MAX: Final = 2_000
IDLE_CONNECTIONS_MAX: Final = 8
PROGRESS_INTERVAL_S: Final = 0.5
FINISH_TIMEOUT_S: Final = 12.0
CHUNK_BYTES: Final = 65_536
FLAG_HEADER: Final = b"x-gossipmesh-flag"
LINE_BYTES_MAX: Final = 65_536


class Kind(msgspec.Struct, frozen=True):
    """A way to ask: the path asked for (None: the target's), and a body sent in pieces with pauses."""

    method: str = "GET"
    path: str | None = None
    piece: bytes = b""
    pieces: int = 0
    pause_s: float = 0.0


KINDS: Final = {
    "get": Kind(),
    "post": Kind("POST", None, b"x" * 256, 1),
    "slow-get": Kind(path="/slow/3"),
    "slow-post": Kind("POST", "/slow/3", b"x" * 256, 1),
    "trickled-post": Kind("POST", "/slow/0.5", b"x" * 100, 10, 0.2),
    "stream": Kind(path="/stream/3"),
    "chunks": Kind(path="/chunks/100000"),
    "tcp": Kind("CONNECT"),
}
"""What a target may ask in; `tcp` opens a tunnel, sends one line and reads one."""


class Target(msgspec.Struct, frozen=True):
    """Where requests enter (`node`, the address of its outbound port) and what they ask for."""

    node: str
    host: str
    port: int
    authority: str
    path: str = "/"
    kind: str = "get"

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read `[KIND:]NODE,ADDRESS:PORT,HOST[/PATH]`; raises ValueError when it is not that."""
        node, address, url = text.split(",", 2)
        kind, _, node = node.rpartition(":")
        host, _, port = address.rpartition(":")
        authority, slash, path = url.partition("/")
        return cls(node, host.strip("[]"), int(port), authority, slash + path or "/", kind or "get")

    def __str__(self) -> str:
        kind = "" if self.kind == "get" else f"{self.kind}:"
        return f"{kind}{self.node},{self.host}:{self.port},{self.authority}{self.path}"


class Outcome(msgspec.Struct, omit_defaults=True):
    """One request: when it was sent (monotonic seconds, this machine's), and what became of it.

    `status` 0 means no answer, and `error` says why; `version` is `service:version` of who answered.
    """

    at_s: float
    node: str
    authority: str
    status: int = 0
    latency_ms: float = 0.0
    version: str = ""
    served_by: str = ""
    flag: str = ""
    error: str = ""
    kind: str = "get"

    @property
    def failed(self) -> bool:
        """Tell whether the client did not get what it asked for."""
        return not 200 <= self.status < 400


class NoAnswer(Exception):
    """The connection ended before a whole answer; `stale` when a reused one gave not a single byte."""

    def __init__(self, reason: str, *, stale: bool = False) -> None:
        super().__init__(reason)
        self.stale = stale


class Tally:
    """Counts of everything, and every failure in full up to a bound."""

    def __init__(self) -> None:
        self.sent = 0
        self.answered = 0
        self.failed = 0
        self.reconnects = 0
        self.overruns = 0
        self.by_status: Counter[str] = Counter()
        self.by_outcome: Counter[str] = Counter()
        self.by_version: dict[str, Counter[str]] = {}
        self.by_node: dict[str, Counter[str]] = {}
        self.by_server: dict[str, Counter[str]] = {}
        self.by_kind: dict[str, Counter[str]] = {}
        self.failures: list[Outcome] = []
        self.latencies_ms: list[float] = []
        self._last_success_s: dict[str, float] = {}
        self.gap_s_max: dict[str, float] = {}

    def add(self, outcome: Outcome, now_s: float) -> None:
        """Count one finished request."""
        self.answered += 1
        self.by_status[str(outcome.status)] += 1
        node = self.by_node.setdefault(outcome.node, Counter())
        self.by_kind.setdefault(outcome.kind, Counter())["failed" if outcome.failed else "ok"] += 1
        if outcome.failed:
            self.failed += 1
            node["failed"] += 1
            self.by_outcome[outcome.error or outcome.flag or f"status {outcome.status}"] += 1
            if len(self.failures) < FAILURES_KEPT_MAX:
                self.failures.append(outcome)
            return
        node["ok"] += 1
        self.by_outcome["ok"] += 1
        self.by_version.setdefault(outcome.authority, Counter())[outcome.version] += 1
        self.by_server.setdefault(outcome.authority, Counter())[outcome.served_by] += 1
        self.latencies_ms.append(outcome.latency_ms)
        before_s = self._last_success_s.get(outcome.node)
        if before_s is not None:
            self.gap_s_max[outcome.node] = max(self.gap_s_max.get(outcome.node, 0.0), now_s - before_s)
        self._last_success_s[outcome.node] = now_s

    def progress(self) -> dict[str, Any]:
        """Return the counters, cumulative since the start."""
        return {
            "type": "progress",
            "at_s": _now_s(),
            "sent": self.sent,
            "answered": self.answered,
            "failed": self.failed,
            "by_status": self.by_status,
            "by_version": self.by_version,
            "by_node": self.by_node,
            "by_server": self.by_server,
        }

    def summary(self) -> dict[str, Any]:
        """Return everything counted, the quantiles of latency, and the failures in full."""
        ordered = sorted(self.latencies_ms)
        return {
            "type": "summary",
            "sent": self.sent,
            "answered": self.answered,
            "failed": self.failed,
            "reconnects": self.reconnects,
            "overruns": self.overruns,
            "by_status": self.by_status,
            "by_outcome": self.by_outcome,
            "by_version": self.by_version,
            "by_node": self.by_node,
            "by_server": self.by_server,
            "by_kind": self.by_kind,
            "latency_ms": {
                name: _quantile(ordered, q) for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
            },
            "success_gap_s_max": {node: round(gap, 3) for node, gap in self.gap_s_max.items()},
            "failures": [msgspec.to_builtins(failure) for failure in self.failures],
        }


def _quantile(ordered: list[float], q: float) -> float:
    return round(ordered[min(len(ordered) - 1, math.floor(len(ordered) * q))], 2) if ordered else 0.0


def _now_s() -> float:
    return clock.monotonic() / SECOND_NS


class Client:
    """Keep-alive connections to one target; what may not be sent twice has a connection of its own."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._kind = KINDS[target.kind]
        self._idle: list[tuple[trio.SocketStream, h11.Connection]] = []

    async def get(self, outcome: Outcome, tally: Tally) -> None:
        """Send one request of the target's kind and write what came back into `outcome`."""
        if self._kind.method == "CONNECT":
            return await self._tunnel(outcome)
        while self._idle:
            try:
                return await self._attempt(*self._idle.pop(), outcome, reused=True)
            except NoAnswer as error:
                if not error.stale:
                    raise
                tally.reconnects += 1
                # One stale connection means the others of its age are stale too.
                await self.close_idle()
        stream = await trio.open_tcp_stream(self._target.host, self._target.port)
        return await self._attempt(stream, h11.Connection(h11.CLIENT), outcome, reused=False)

    async def _attempt(
        self, stream: trio.SocketStream, connection: h11.Connection, outcome: Outcome, *, reused: bool
    ) -> None:
        kept = False
        try:
            await self._exchange(stream, connection, outcome, reused=reused)
            connection.start_next_cycle()
            kept = len(self._idle) < IDLE_CONNECTIONS_MAX and self._kind.method == "GET"
            if kept:
                self._idle.append((stream, connection))
        except h11.LocalProtocolError:
            return  # the proxy asked to close after this answer, which was whole
        except h11.RemoteProtocolError as error:
            raise NoAnswer(f"not HTTP: {error}") from error
        finally:
            if not kept:
                await trio.aclose_forcefully(stream)

    async def _exchange(
        self, stream: trio.SocketStream, connection: h11.Connection, outcome: Outcome, *, reused: bool
    ) -> None:
        received, body = 0, bytearray()
        try:
            await self._send(stream, connection)
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    data = await stream.receive_some(CHUNK_BYTES)
                    if not data and not received:
                        raise NoAnswer("closed before an answer", stale=reused)
                    received += len(data)
                    connection.receive_data(data)
                elif isinstance(event, h11.Response):
                    outcome.status = event.status_code
                    outcome.flag = _header(event, FLAG_HEADER)
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    break
        except trio.BrokenResourceError as error:
            raise NoAnswer(
                f"connection broken: {error.__cause__ or error}", stale=reused and not received
            ) from error
        _read_identity(bytes(body), outcome)

    async def _send(self, stream: trio.SocketStream, connection: h11.Connection) -> None:
        kind, path = self._kind, self._kind.path or self._target.path
        headers = [("Host", self._target.authority), ("User-Agent", "gossipmesh-load")]
        if kind.pieces:
            headers.append(("Content-Length", str(len(kind.piece) * kind.pieces)))
        await stream.send_all(
            connection.send(h11.Request(method=kind.method, target=path, headers=headers)) or b""
        )
        for _ in range(kind.pieces):
            await trio.sleep(kind.pause_s)
            piece = connection.send(h11.Data(data=kind.piece)) or b""
            try:
                await stream.send_all(piece)
            except trio.BrokenResourceError:
                break  # it was answered before its body was whole: the answer says why
        connection.send(h11.EndOfMessage()) if connection.our_state is h11.SEND_BODY else None

    async def _tunnel(self, outcome: Outcome) -> None:
        """Open a tunnel to a TCP service, send a line, read the answer to it."""
        try:
            async with await trio.open_tcp_stream(self._target.host, self._target.port) as stream:
                lines = sessions.Lines(stream)
                outcome.status, outcome.flag = await lines.connect(self._target.authority)
                if outcome.failed:
                    outcome.error = f"status {outcome.status} {outcome.flag}".strip()
                    return
                await stream.send_all(b"hello\n")
                _read_identity(await lines.line(), outcome)
        except trio.BrokenResourceError as error:
            raise NoAnswer(f"connection broken: {error.__cause__ or error}") from error
        except sessions.Ended as error:
            raise NoAnswer(str(error)) from error

    async def close_idle(self) -> None:
        """Close the connections no request is using."""
        idle, self._idle = self._idle, []
        for stream, _ in idle:
            await trio.aclose_forcefully(stream)


async def ask_once(target: Target) -> Outcome:
    """Send one request over a connection of its own; return what became of it, `error` saying why not."""
    outcome = Outcome(_now_s(), target.node, target.authority, kind=target.kind)
    client = Client(target)
    try:
        await client.get(outcome, Tally())
    except (NoAnswer, OSError) as error:
        outcome.status, outcome.error = 0, str(error)
    finally:
        await client.close_idle()
    return outcome


def _header(response: h11.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in response.headers if key == name), "")


def _read_identity(body: bytes, outcome: Outcome) -> None:
    try:
        reply = json.loads(body)
        outcome.version = f"{reply['service']}:{reply['version']}"
        outcome.served_by = str(reply["node"])
    except (ValueError, KeyError, TypeError):
        outcome.error = "" if outcome.failed else "the body is not the workload's"
        outcome.status = outcome.status if outcome.failed else 0
    if outcome.failed and not outcome.error:
        outcome.error = f"status {outcome.status} {outcome.flag}".strip()


class Driver:
    """Sends at a constant rate until told to stop, then waits for what is in flight."""

    def __init__(
        self, targets: list[Target], rate_per_s: float, timeout_s: float, records: TextIO | None
    ) -> None:
        self._clients = [(target, Client(target)) for target in targets]
        self._interval_s = 1.0 / rate_per_s
        self._timeout_s = timeout_s
        self._records = records
        self._in_flight = 0
        self.tally = Tally()

    async def run(self, stop: trio.Event) -> None:
        """Send until `stop` is set; returns when the last answer or timeout is in."""
        with trio.move_on_after(math.inf) as finishing:
            async with trio.open_nursery() as requests:
                async with trio.open_nursery() as control:
                    control.start_soon(self._report)
                    control.start_soon(self._send, requests)
                    await stop.wait()
                    control.cancel_scope.cancel()
                finishing.deadline = trio.current_time() + FINISH_TIMEOUT_S
        for _, client in self._clients:
            await client.close_idle()

    async def _send(self, requests: trio.Nursery) -> None:
        next_s = trio.current_time()
        turn = 0
        while True:
            await trio.sleep_until(next_s)
            next_s += self._interval_s
            if self._in_flight >= IN_FLIGHT_MAX:
                self.tally.overruns += 1
                continue
            target, client = self._clients[turn % len(self._clients)]
            turn += 1
            self.tally.sent += 1
            self._in_flight += 1
            requests.start_soon(self._one, target, client)

    async def _one(self, target: Target, client: Client) -> None:
        outcome = Outcome(at_s=_now_s(), node=target.node, authority=target.authority, kind=target.kind)
        try:
            with trio.fail_after(self._timeout_s):
                await client.get(outcome, self.tally)
        except trio.TooSlowError:
            outcome.status, outcome.error = 0, f"no answer within {self._timeout_s:g} s"
        except NoAnswer as error:
            outcome.status, outcome.error = 0, str(error)
        except OSError as error:
            outcome.status, outcome.error = 0, f"connect: {error.strerror or error}"
        except trio.Cancelled:
            outcome.status, outcome.error = 0, "still unanswered at the end"
            raise
        finally:
            now_s = _now_s()
            outcome.latency_ms = round((now_s - outcome.at_s) * 1000, 2)
            self._in_flight -= 1
            self.tally.add(outcome, now_s)
            self._write(outcome)

    def _write(self, outcome: Outcome) -> None:
        line = msgspec.json.encode(outcome).decode()
        if self._records is not None:
            self._records.write(line + "\n")
        if outcome.failed:
            _print({"type": "failure", **msgspec.to_builtins(outcome)})

    async def _report(self) -> None:
        while True:
            await trio.sleep(PROGRESS_INTERVAL_S)
            _print(self.tally.progress())


def _print(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def _set_on_signal(stop: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            stop.set()


async def _set_on_end_of_stdin(stop: trio.Event) -> None:
    async with trio.lowlevel.FdStream(0) as stdin:
        while await stdin.receive_some(CHUNK_BYTES):
            continue
    stop.set()


async def drive(options: argparse.Namespace, records: TextIO | None) -> dict[str, Any]:
    """Run the load to its end and return the summary."""
    driver = Driver([Target.parse(text) for text in options.target], options.rate, options.timeout, records)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_set_on_signal, stop)
        if options.duration is None:
            nursery.start_soon(_set_on_end_of_stdin, stop)
        else:
            nursery.start_soon(_set_after, stop, options.duration)
        for text in options.session:
            target = sessions.SessionTarget.parse(text)
            nursery.start_soon(sessions.keep_open, target, options.session_life, _print)
        await driver.run(stop)
        nursery.cancel_scope.cancel()
    return driver.tally.summary()


async def _set_after(stop: trio.Event, duration_s: float) -> None:
    await trio.sleep(duration_s)
    stop.set()


def main() -> None:
    """Drive load as the arguments say; the exit code is 0 whatever the requests became."""
    parser = argparse.ArgumentParser(prog="gossipmesh.testing.load")
    parser.add_argument(
        "--target", action="append", required=True, metavar="[KIND:]NODE,ADDRESS:PORT,HOST[/PATH]"
    )
    parser.add_argument("--session", action="append", default=[], metavar="KIND:NODE,ADDRESS:PORT,HOST")
    parser.add_argument("--session-life", type=float, default=0.0, help="seconds; 0: as long as it lasts")
    parser.add_argument("--rate", type=float, default=50.0, help="requests per second, over all targets")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds a client waits for an answer")
    parser.add_argument(
        "--for", type=float, dest="duration", help="seconds; else until stdin ends or SIGTERM"
    )
    parser.add_argument("--records", help="write every request to this file, a JSON line each")
    options = parser.parse_args()
    if options.records is None:
        _print(trio.run(drive, options, None))
        return
    with open(options.records, "w", encoding="utf-8") as records:
        _print(trio.run(drive, options, records))


if __name__ == "__main__":
    main()
