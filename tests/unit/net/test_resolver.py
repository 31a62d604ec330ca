"""The system's resolver behind bounds: reasons in words, nothing useless, nothing that holds the loop."""

import socket
import threading
from typing import Any

import pytest
import trio

from gossipmesh.model.member import Address
from gossipmesh.net.resolver import ANY_FAMILY, IPV4, IPV6, resolve


async def ask(host: str, family: int = ANY_FAMILY, timeout_s: float = 5.0) -> list[Address]:
    return await resolve(host, 7948, family, trio.CapacityLimiter(1), timeout_s)


async def test_a_name_of_this_machine_resolves_in_the_family_asked_for() -> None:
    assert await ask("localhost", IPV4) == [Address("127.0.0.1", 7948)]


async def test_a_name_nobody_has_is_an_error_with_a_reason() -> None:
    with pytest.raises(OSError) as caught:
        await ask("nobody.invalid")
    assert caught.value.strerror


def told(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    entries = [(None, None, 0, "", (host, 7948, 0, 0)) for host in hosts]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: entries)


async def test_several_addresses_stay_in_their_order_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, "10.0.0.2", "fd00:0::1", "10.0.0.1", "fd00::1")
    assert [str(address) for address in await ask("seed.test", IPV6)] == [
        "10.0.0.2:7948",
        "[fd00::1]:7948",
        "10.0.0.1:7948",
    ]


async def test_what_a_filtering_resolver_says_of_a_blocked_name_is_no_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told(monkeypatch, "0.0.0.0", "::")
    with pytest.raises(OSError, match=r"only addresses nobody can be reached at: 0\.0\.0\.0, ::"):
        await ask("seed.test")
    told(monkeypatch, "0.0.0.0", "224.0.0.1", "10.0.0.1")
    assert await ask("seed.test") == [Address("10.0.0.1", 7948)]


async def test_a_resolver_that_hangs_is_given_up_and_keeps_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often a name is looked up, no more threads hang than the limiter has places."""
    goes_on, hanging = threading.Event(), []

    def hang(*_: Any) -> list[Any]:
        hanging.append(threading.current_thread())
        goes_on.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    limiter = trio.CapacityLimiter(2)
    try:
        for _ in range(5):
            with pytest.raises(OSError, match=r"no answer within 0\.01 s"):
                await resolve("seed.test", 7948, IPV4, limiter, 0.01)
        assert len(hanging) <= 2
    finally:
        goes_on.set()


async def test_no_thread_to_be_had_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_thread(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", no_thread)
    with pytest.raises(OSError, match="can't start new thread"):
        await ask("seed.test")
