"""What checks ask of the machine is read as the kernel says it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from gossipmesh.agent.admin.check_facts import disk_of, gather_facts, listening_addresses, why_unreachable
from gossipmesh.agent.admin.process_usage import usage_of
from gossipmesh.model.member import Address


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "::1", "::"])
def listener(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as server:
        yield request.param, server.getsockname()[1]


def test_listening_addresses_are_read_as_they_are(listener: tuple[str, int]) -> None:
    assert Address(*listener) in listening_addresses()


def test_a_process_that_is_not_there_uses_nothing() -> None:
    assert usage_of(None) == (0, 0.0)
    assert usage_of(2**22 + 1) == (0, 0.0)


def test_a_disk_is_told_by_what_is_free(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    assert disk is not None
    assert 0 <= disk.free_bytes <= disk.size_bytes
    assert disk_of(tmp_path / "none") is None


async def test_an_authority_is_reached_or_the_reason_is_told(
    listener: tuple[str, int], tmp_path: Path
) -> None:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener[0], listener[0])
    assert await why_unreachable(Address(host, listener[1])) is None
    assert (await gather_facts(tmp_path, [str(Address(host, listener[1]))])).authority_failure is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = Address(*server.getsockname())
    assert await why_unreachable(closed) == "Connection refused"
    assert (await gather_facts(tmp_path, [str(closed)])).authority_failure == f"{closed}: Connection refused"
    assert (await gather_facts(tmp_path, ())).authority_failure is None


class Dropping:
    """A socket whose packets nobody answers."""

    def __init__(self, *_: object) -> None:
        self.closed = False

    def __enter__(self) -> "Dropping":
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    async def connect(self, _: object) -> None:
        await trio.sleep_forever()


async def test_an_authority_that_drops_packets_is_waited_for_two_seconds(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trio.socket, "socket", Dropping)
    began = trio.current_time()
    assert await why_unreachable(Address("10.0.0.1", 1)) == "no answer within 2 s"
    assert trio.current_time() - began == pytest.approx(2)
