"""Health of this node's workloads, by its own checks.

Rules:
1. One task per check; a verdict counts after `RISE` good or `FALL` bad results in a row.
2. A service passes when all its checks do; without checks it passes. Until each check has a verdict: unknown.
3. HTTP: any status 200..399 within the timeout is good; the body is not read.
"""

import socket
from collections.abc import Callable
from typing import Final

import h11
import trio

from gossipmesh.agent.service_files import HealthCheck, LocalRegistration
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import Address
from gossipmesh.model.service import EndpointHealth

RISE: Final = 1
FALL: Final = 2
_RECEIVE_BYTES: Final = 4_096
_HEAD_BYTES_MAX: Final = 16_384


class CheckVerdict:
    """Turns single results into a verdict that does not flap."""

    def __init__(self, rise: int = RISE, fall: int = FALL) -> None:
        self.health = EndpointHealth.UNKNOWN
        self._rise = rise
        self._fall = fall
        self._in_a_row = 0
        self._last: bool | None = None

    def add(self, good: bool) -> bool:
        """Count one result; tell whether the verdict changed."""
        self._in_a_row = self._in_a_row + 1 if good is self._last else 1
        self._last = good
        if self._in_a_row < (self._rise if good else self._fall):
            return False
        verdict = EndpointHealth.PASSING if good else EndpointHealth.FAILING
        changed = verdict is not self.health
        self.health = verdict
        return changed


class HealthMonitor:
    """Runs the checks of the registrations it is given and remembers their verdicts."""

    def __init__(self, nursery: trio.Nursery, on_change: Callable[[], None]) -> None:
        """Checks run in `nursery`; `on_change` is called when any service's health may have changed."""
        self._nursery = nursery
        self._on_change = on_change
        self._running: dict[str, tuple[LocalRegistration, trio.CancelScope]] = {}
        self._verdicts: dict[str, tuple[CheckVerdict, ...]] = {}

    def watch(self, registrations: list[LocalRegistration]) -> None:
        """Check exactly these from now on; what did not change keeps its verdicts."""
        wanted = {entry.registration: entry for entry in registrations}
        for name, (entry, scope) in list(self._running.items()):
            if name not in wanted or wanted[name].checks != entry.checks:
                scope.cancel()
                del self._running[name], self._verdicts[name]
        for name, entry in wanted.items():
            if name not in self._running:
                scope = trio.CancelScope()
                self._running[name] = (entry, scope)
                self._verdicts[name] = tuple(CheckVerdict() for _ in entry.checks)
                self._nursery.start_soon(self._run, entry, self._verdicts[name], scope)

    def health(self, registration: str) -> EndpointHealth:
        """Return a registration's health by all its checks."""
        verdicts = [verdict.health for verdict in self._verdicts.get(registration, ())]
        if EndpointHealth.FAILING in verdicts:
            return EndpointHealth.FAILING
        return EndpointHealth.UNKNOWN if EndpointHealth.UNKNOWN in verdicts else EndpointHealth.PASSING

    async def _run(
        self, entry: LocalRegistration, verdicts: tuple[CheckVerdict, ...], scope: trio.CancelScope
    ) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                for check, verdict in zip(entry.checks, verdicts, strict=True):
                    nursery.start_soon(self._repeat, check, verdict)

    async def _repeat(self, check: HealthCheck, verdict: CheckVerdict) -> None:
        while True:
            started = trio.current_time()
            if verdict.add(await run_check(check)):
                self._on_change()
            await trio.sleep_until(started + check.interval_ns / SECOND_NS)


async def run_check(check: HealthCheck) -> bool:
    """Run one check once; True is good."""
    try:
        with trio.fail_after(check.timeout_ns / SECOND_NS):
            if check.path is None:
                return await _connects(check.address)
            return 200 <= await _status_of(check.address, check.path) < 400
    except (OSError, trio.TooSlowError, h11.RemoteProtocolError):
        return False


async def _connects(address: Address) -> bool:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_STREAM) as connection:
        await connection.connect(address.socket_address())
    return True


async def answers_http(address: Address, timeout_s: float) -> bool:
    """Tell whether anything at `address` answers a request, whatever it says."""
    try:
        with trio.fail_after(timeout_s):
            return await _status_of(address, "/") > 0
    except (OSError, trio.TooSlowError, h11.RemoteProtocolError):
        return False


async def _status_of(address: Address, path: str) -> int:
    """Return the status of the answer, 0 when the connection ended before one."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES_MAX)
    headers = [("Host", str(address)), ("User-Agent", "gossipmesh-check"), ("Connection", "close")]
    request = connection.send(h11.Request(method="GET", target=path, headers=headers))
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_STREAM) as peer:
        await peer.connect(address.socket_address())
        remaining = memoryview((request or b"") + (connection.send(h11.EndOfMessage()) or b""))
        while remaining:
            remaining = remaining[await peer.send(remaining) :]
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                return event.status_code
            if event is not h11.NEED_DATA and not isinstance(event, h11.InformationalResponse):
                return 0
            if event is h11.NEED_DATA:
                connection.receive_data(await peer.recv(_RECEIVE_BYTES))
