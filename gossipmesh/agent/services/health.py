"""Health of this node's workloads, by its own checks.

Rules:
1. One task per check; a verdict counts after `RISE` good or `FALL` bad results in a row.
2. A service passes when all its checks do; without checks it passes. Until each check has a verdict: unknown.
3. HTTP: any status 200..399 within the timeout is good; nothing behind the status line is read.
"""

import re
import socket
from collections.abc import Callable
from typing import Final

import trio

from gossipmesh.agent.services.service_files import HealthCheck, LocalRegistration
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import Address
from gossipmesh.model.service import EndpointHealth

RISE: Final = 1
FALL: Final = 2
_RECEIVE_BYTES: Final = 4_096
_HEAD_BYTES_MAX: Final = 16_384
_FINAL_MIN: Final = 200  # below it an answer only announces another one
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?")


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
    except (OSError, trio.TooSlowError):
        return False


async def _connects(address: Address) -> bool:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_STREAM) as connection:
        await connection.connect(address.socket_address())
    return True


async def _status_of(address: Address, path: str) -> int:
    """Return the status of the answer, 0 when the connection ended before one or it is no HTTP."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    lines = (f"GET {path} HTTP/1.1", f"Host: {address}", "User-Agent: gossipmesh-check", "Connection: close")
    with trio.socket.socket(family, socket.SOCK_STREAM) as peer:
        await peer.connect(address.socket_address())
        remaining = memoryview("\r\n".join((*lines, "", "")).encode())
        while remaining:
            remaining = remaining[await peer.send(remaining) :]
        received = b""
        while (status := status_untrusted(received)) is None:
            chunk = await peer.recv(_RECEIVE_BYTES)
            received += chunk
            if not chunk or len(received) > _HEAD_BYTES_MAX:
                return 0
        return status


def status_untrusted(received: bytes) -> int | None:
    """Return the status of the first answer that is not informational; 0: no HTTP, None: more is needed.

    A whole parser would be a tenth of an idle agent's work, for three digits.
    """
    while True:
        line, end, _ = received.partition(b"\n")
        if not end:
            return None
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            return 0
        status = int(match[1])
        if status >= _FINAL_MIN:
            return status
        _, end, received = received.partition(b"\r\n\r\n")
        if not end:
            return None
