"""Checks against real workloads on loopback, and verdicts that do not flap."""

import msgspec
import pytest
import trio

from gossipmesh.agent.services.health import CheckVerdict, HealthMonitor, run_check, status_untrusted
from gossipmesh.agent.services.service_files import HealthCheck, LocalRegistration
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import Address
from gossipmesh.model.service import EndpointHealth, Protocol


class Workload:
    """A TCP listener that gives every connection `answer`."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        self.address = Address("127.0.0.1", 0)

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = Address("127.0.0.1", listener.socket.getsockname()[1])
        await trio.serve_listeners(self._handle, [listener], task_status=task_status)

    async def _handle(self, stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            if self.answer:
                await stream.send_all(self.answer)
            else:
                await trio.sleep_forever()


def _check(address: Address, path: str | None) -> HealthCheck:
    return HealthCheck(address, path, 100 * MILLISECOND_NS, SECOND_NS)


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nbody", True),
        (b"HTTP/1.1 302 Found\r\n\r\n", True),
        (b"HTTP/1.1 500 No\r\n\r\n", False),
        (b"SSH-2.0-x\r\n", False),
        (b"H" * 20_000, False),
        (b"HTTP/1.1 200", False),
    ],
)
async def test_http_checks_judge_by_status(answer: bytes, good: bool) -> None:
    workload = Workload()
    workload.answer = answer
    async with trio.open_nursery() as nursery:
        await nursery.start(workload.serve)
        assert await run_check(_check(workload.address, "/healthz")) is good
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("received", "status"),
    [
        (b"", None),
        (b"HTTP/1.1 20", None),
        (b"HTTP/1.1 200", None),
        (b"HTTP/1.1 200\r\n", 200),
        (b"HTTP/1.0 404 Not Found\n", 404),
        (b"HTTP/1.1 503 \xff\xfe\r\nX: ", 503),
        (b"HTTP/1.1 100 Continue\r\n", None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2", None),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n", 204),
        (b"HTTP/2 200\r\n", 0),
        (b"HTTP/1.1 20 OK\r\n", 0),
        (b"HTTP/1.1 2000 OK\r\n", 0),
        (b"HTTP/1.1  200 OK\r\n", 0),
        (b"HTTP/1.1 \xb2\xb0\xb0 OK\r\n", 0),
        (b"\r\nHTTP/1.1 200 OK\r\n", 0),
        (b"SSH-2.0-x\r\n", 0),
    ],
)
def test_of_an_answer_the_status_is_read_and_nothing_else(received: bytes, status: int | None) -> None:
    assert status_untrusted(received) == status


async def test_silence_and_a_closed_port_are_bad(autojump_clock: object) -> None:
    workload = Workload()
    workload.answer = b""
    async with trio.open_nursery() as nursery:
        await nursery.start(workload.serve)
        assert not await run_check(_check(workload.address, "/healthz"))
        assert await run_check(_check(workload.address, None))
        nursery.cancel_scope.cancel()
    assert not await run_check(_check(workload.address, None))


def test_one_good_result_passes_and_two_bad_ones_fail() -> None:
    verdict = CheckVerdict()
    seen = []
    for good in (True, False, True, False, False, False, True):
        verdict.add(good)
        seen.append(verdict.health.label)
    assert seen == ["passing", "passing", "passing", "passing", "failing", "failing", "passing"]


async def test_a_service_is_unknown_then_follows_its_checks_and_without_any_it_passes() -> None:
    workload = Workload()
    changed = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(workload.serve)
        monitor = HealthMonitor(nursery, lambda: changed.set())
        checks = (_check(workload.address, "/"),)
        checked = LocalRegistration(
            "cart",
            "shop/cart",
            Protocol.HTTP,
            workload.address,
            0,
            100,
            (),
            checks,
            (),
        )
        unchecked = msgspec.structs.replace(checked, registration="db", checks=())
        monitor.watch([checked, unchecked])
        assert monitor.health("cart") is EndpointHealth.UNKNOWN
        assert monitor.health("db") is EndpointHealth.PASSING
        with trio.fail_after(5):
            await changed.wait()
            assert monitor.health("cart") is EndpointHealth.PASSING
            workload.answer = b"HTTP/1.1 503 No\r\n\r\n"
            changed = trio.Event()
            await changed.wait()
        assert monitor.health("cart") is EndpointHealth.FAILING
        nursery.cancel_scope.cancel()
