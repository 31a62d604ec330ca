"""A node cut off from all others, lacks of its own, and many requests at once: nobody else is blamed."""

import errno
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gossipmesh.dataplane.protocol import Ejection
from gossipmesh.dataplane.reference import contact, dialing
from gossipmesh.dataplane.reference.dial_queue import DialQueue, Learnt, LoopLag
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.net import tls
from gossipmesh.traffic.compiler import DEFAULT_LIMITS
from tests.unit.dataplane.engine_kit import (
    Handler,
    Node,
    Peer,
    answering,
    endpoint,
    get,
    local,
    nodes,
    until,
    waiting,
    workload,
)

GET = b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: cart.shop\r\nContent-Length: 2\r\n\r\nhi"
QUICK = msgspec.structs.replace(DEFAULT_LIMITS, connect_timeout_ns=700_000_000)


def ejections(node: Node) -> list[tuple[str, str, bool]]:
    return [(event.node, event.reason, event.ejected) for event in node.events if isinstance(event, Ejection)]


class Network:
    """Who can be connected to: a connection to an address in `cut` neither comes about nor is refused."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.cut: set[Address] = set()
        self.asked: list[Address] = []  # by tries, not by who looks for a sign of life
        real = tls.connect

        async def look(address: Address, *, mesh: bool) -> Any:
            if address in self.cut:
                await trio.sleep_forever()
            return await real(address, mesh=mesh)

        async def connect(address: Address, *, mesh: bool) -> Any:
            self.asked.append(address)
            return await look(address, mesh=mesh)

        patch.setattr(tls, "connect", connect)
        patch.setattr(contact, "connect", look)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


@asynccontextmanager
async def at_home_and_away(directory: Path, **handlers: Handler) -> AsyncIterator[tuple[Node, ...]]:
    """Run a node per handler, each serving shop/cart; the first one calls, itself among the others."""
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(nodes(directory, *handlers))
        catalog = tuple(endpoint(node) for node in made)
        for node, handler in zip(made, handlers.values(), strict=True):
            address = await stack.enter_async_context(workload(handler))
            await node.apply(local=(local(address),), catalog=catalog, limits=QUICK, wanted=("shop/cart",))
        yield made


def named(name: str) -> Handler:
    return answering(body=name.encode())


async def bodies(node: Node, request: bytes, count: int) -> list[bytes]:
    """Ask so often, one after another; every answer is good."""
    found = []
    peer = await Peer.connect(node.at("proxy"))
    async with peer.stream:
        for _ in range(count):
            status, _, body = await peer.ask(request)
            assert status == 200
            found.append(body)
    return found


@pytest.mark.parametrize("request_", [GET, POST])
async def test_a_node_that_is_cut_off_takes_what_it_has_at_home(
    tmp_path: Path, network: Network, request_: bytes
) -> None:
    async with at_home_and_away(tmp_path, home=named("home"), a=named("a"), b=named("b")) as (home, a, b):
        network.cut = {a.at("mesh"), b.at("mesh")}
        assert await bodies(home, request_, 20) == [b"home"] * 20
        asked = len([address for address in network.asked if address in network.cut])
        assert asked <= 3
        # Nobody is charged, not in the end: what went out at the cut is back with the first contact.
        network.cut = set()
        await until(lambda: home.engine._state.ground.states.isolation.isolated is False)
        assert set(await bodies(home, request_, 12)) == {b"home", b"a", b"b"}
        out = {}
        for name, _reason, ejected in ejections(home):
            out[name] = ejected
        assert not any(out.values())


async def test_the_retry_budget_does_not_pay_for_a_cut(tmp_path: Path, network: Network) -> None:
    """Ninety requests at once at the cut: the budget would pay for 48 retries."""
    async with at_home_and_away(tmp_path, home=named("home"), a=named("a"), b=named("b")) as (home, a, b):
        network.cut = {a.at("mesh"), b.at("mesh")}
        answers: list[int] = []

        async def ask() -> None:
            answers.append((await get(home.at("proxy")))[0])

        async with trio.open_nursery() as nursery:
            for _ in range(90):
                nursery.start_soon(ask)
        assert answers == [200] * 90


async def test_what_waits_for_a_lost_node_moves_home(
    tmp_path: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GETs on open connections to nodes that acknowledge nothing; a POST there is left alone."""
    started: list[str] = []
    release = trio.Event()
    away = {name: waiting(name, started, release, says=b"away") for name in "ab"}
    async with at_home_and_away(tmp_path, home=named("home"), **away) as (home, a, b):
        await home.apply(catalog=(endpoint(a), endpoint(b)))
        gets = [await Peer.connect(home.at("proxy")) for _ in range(4)]
        post = await Peer.connect(home.at("proxy"))
        for peer in gets:
            await peer.send(GET)
        await post.send(POST)
        await until(lambda: len(started) == 5 and set(started) == {"a", "b"})
        await home.apply(catalog=(endpoint(home), endpoint(a), endpoint(b)))
        network.cut = {a.at("mesh"), b.at("mesh")}
        monkeypatch.setattr(contact, "_is_silent", lambda attempt: attempt.node != "home")
        for peer in gets:
            async with peer.stream:
                assert await peer.body(await peer.head()) == b"home"
        monkeypatch.setattr(contact, "_is_silent", lambda _attempt: False)
        release.set()
        async with post.stream:
            assert await post.body(await post.head()) == b"away"
        assert ejections(home) == []


async def test_a_request_that_home_fails_does_not_go_in_circles(tmp_path: Path, network: Network) -> None:
    """Home answers 503: the lost nodes are tried in their turn, each once, and that is all."""
    away = {"a": named("a"), "b": named("b")}
    async with at_home_and_away(tmp_path, home=answering(503, b"busy"), **away) as (home, a, b):
        network.cut = {a.at("mesh"), b.at("mesh")}
        for _ in range(2):
            assert (await get(home.at("proxy")))[0] == 503
        network.asked.clear()
        assert (await get(home.at("proxy")))[0] == 503
        assert len([address for address in network.asked if address in network.cut]) <= 2


async def test_a_post_that_is_still_connecting_moves_home(tmp_path: Path, network: Network) -> None:
    async with at_home_and_away(tmp_path, home=named("home"), a=named("a"), b=named("b")) as (home, a, b):
        slow = msgspec.structs.replace(DEFAULT_LIMITS, connect_timeout_ns=3_600_000_000_000)
        await home.apply(catalog=(endpoint(a), endpoint(b)), limits=slow)
        network.cut = {a.at("mesh"), b.at("mesh")}
        peers = [await Peer.connect(home.at("proxy")) for _ in range(3)]
        for peer in peers:
            await peer.send(POST)
        await until(lambda: len(network.asked) == 3)
        await home.apply(catalog=(endpoint(home), endpoint(a), endpoint(b)))
        home.engine._state.unreached("a")
        home.engine._state.unreached("b")
        for peer in peers:
            async with peer.stream:
                assert await peer.body(await peer.head()) == b"home"


async def test_one_lost_node_is_that_nodes_fault(tmp_path: Path, network: Network) -> None:
    async with at_home_and_away(tmp_path, home=named("home"), a=named("a"), b=named("b")) as (home, a, _b):
        network.cut = {a.at("mesh")}
        found = await bodies(home, GET, 40)
        assert set(found) == {b"home", b"b"}
        assert not home.engine._state.ground.states.isolation.isolated


@pytest.mark.parametrize("home_status", [MemberStatus.ALIVE, MemberStatus.SUSPECT])
async def test_what_waits_at_a_last_resort_moves_to_who_is_none(
    tmp_path: Path, home_status: MemberStatus
) -> None:
    """Its node is not heard any more; where everybody is a last resort, nobody is better than another."""
    started: list[str] = []
    release = trio.Event()
    away = waiting("away", started, release, says=b"away")
    async with at_home_and_away(tmp_path, home=named("home"), away=away) as (home, away_):
        await home.apply(catalog=(endpoint(away_),))
        waits = {request: await Peer.connect(home.at("proxy")) for request in (GET, POST)}
        for request, peer in waits.items():
            await peer.send(request)
        await until(lambda: len(started) == 2)
        suspect = endpoint(away_, status=MemberStatus.SUSPECT)
        await home.apply(catalog=(endpoint(home, status=home_status), suspect))
        if home_status is MemberStatus.SUSPECT:
            release.set()
        async with waits[GET].stream:
            answer = await waits[GET].body(await waits[GET].head())
            assert answer == (b"home" if home_status is MemberStatus.ALIVE else b"away")
        release.set()
        async with waits[POST].stream:
            assert await waits[POST].body(await waits[POST].head()) == b"away"


async def test_without_anybody_at_home_a_cut_ends_in_503(tmp_path: Path, network: Network) -> None:
    async with at_home_and_away(tmp_path, home=named("home"), a=named("a"), b=named("b")) as (home, a, b):
        await home.apply(catalog=(endpoint(a), endpoint(b)))
        network.cut = {a.at("mesh"), b.at("mesh")}
        for _ in range(3):
            status, head, _ = await get(home.at("proxy"))
            assert (status, b"x-gossipmesh-flag: UF" in head) == (503, True)
        network.cut = set()
        await until(lambda: home.engine._state.ground.states.isolation.isolated is False)
        assert set(await bodies(home, GET, 8)) == {b"a", b"b"}


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL])
async def test_a_lack_of_our_own_is_uo_and_burns_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    async with at_home_and_away(tmp_path, home=named("home"), a=named("a"), b=named("b")) as (home, _a, _b):
        dials = 0
        real = dialing.open_tls

        async def open_tls(*_given: Any, **_more: Any) -> Any:
            nonlocal dials
            dials += 1
            raise OSError(code, "short")

        monkeypatch.setattr(dialing, "open_tls", open_tls)
        for request in (GET, POST) * 4:
            peer = await Peer.connect(home.at("proxy"))
            async with peer.stream:
                status, head, _ = await peer.ask(request)
            assert (status, b"x-gossipmesh-flag: UO" in head) == (503, True)
        assert dials == 8
        monkeypatch.setattr(dialing, "open_tls", real)
        assert set(await bodies(home, GET, 6)) == {b"home", b"a", b"b"}
        assert ejections(home) == []


async def test_a_burst_to_a_new_endpoint_is_served_and_ejects_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No clock runs for a handshake that waits its turn: a connect timeout is far shorter than the burst."""
    under_way = most = 0
    real = dialing.open_tls

    async def open_tls(*given: Any, **more: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            await trio.sleep(0.02)
            return await real(*given, **more)
        finally:
            under_way -= 1

    monkeypatch.setattr(dialing, "open_tls", open_tls)
    async with at_home_and_away(tmp_path, home=named("home"), a=named("a")) as (home, a):
        generous = msgspec.structs.replace(DEFAULT_LIMITS, connect_timeout_ns=1_000_000_000)
        await home.apply(catalog=(endpoint(a),), limits=generous)
        answers: list[int] = []

        async def ask() -> None:
            answers.append((await get(home.at("proxy")))[0])

        async with trio.open_nursery() as nursery:
            for _ in range(250):
                nursery.start_soon(ask)
        assert answers == [200] * 250
        assert 1 < most <= 16
        assert ejections(home) == []


async def test_what_the_first_learns_holds_for_those_behind_it(tmp_path: Path, network: Network) -> None:
    async with at_home_and_away(tmp_path, home=named("home"), a=named("a"), b=named("b")) as (home, a, b):
        # Long enough for all of them to be there before the first has learned anything.
        patient = msgspec.structs.replace(DEFAULT_LIMITS, connect_timeout_ns=4_000_000_000)
        await home.apply(catalog=(endpoint(a), endpoint(b)), limits=patient)
        network.cut = {a.at("mesh")}
        answers: list[int] = []

        async def ask() -> None:
            answers.append((await get(home.at("proxy")))[0])

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)
        assert answers.count(200) >= 45  # the budget allows 40 retries to the half that met the dead one
        assert network.asked.count(a.at("mesh")) <= 16


async def test_a_timeout_that_our_own_late_loop_explains_is_not_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = dialing.open_tls

    async def late(address: Address, *given: Any, **more: Any) -> Any:
        if address != away:
            return await real(address, *given, **more)
        await trio.sleep(0.06)
        threading.Event().wait(0.4)  # the loop is held up, as by a collection or a full core
        return await trio.sleep_forever()

    async with at_home_and_away(tmp_path, home=named("home"), a=named("a")) as (home, a):
        away = a.at("mesh")
        monkeypatch.setattr(dialing, "open_tls", late)
        for _ in range(12):
            assert (await get(home.at("proxy")))[::2] == (200, b"home")
        assert ejections(home) == []


async def test_a_place_in_the_queue_is_never_lost() -> None:
    queue = DialQueue(at_once_max=1)
    key = ("a", "cart", "10.0.0.1", 15008)
    order: list[str] = []

    async def dial(name: str, scope: trio.CancelScope, failure: Learnt | None = None) -> None:
        with scope:
            found = await queue.enter(key)
            order.append(name if found is None else f"{name}: {found.detail}")
            if found is None:
                try:
                    await trio.sleep(1)
                finally:
                    queue.leave(key, failure)

    scopes = {name: trio.CancelScope() for name in "abcdef"}
    async with trio.open_nursery() as nursery:
        for name, failure in zip(
            "abcdef", (None, None, None, Learnt("refused", False), None, None), strict=True
        ):
            nursery.start_soon(dial, name, scopes[name], failure)
            await wait_all_tasks_blocked()
        scopes["c"].cancel()  # waits
        scopes["a"].cancel()  # connects
        await wait_all_tasks_blocked()
        assert order == ["a", "b"]
        scopes["b"].cancel()
        await wait_all_tasks_blocked()
        assert order == ["a", "b", "d"]
        scopes["d"].cancel()
    assert order[:3] == ["a", "b", "d"]
    assert sorted(order[3:]) == ["e: refused", "f: refused"]
    assert await queue.enter(key) is None
    queue.leave(key, None)


async def test_lateness_is_added_up_while_somebody_connects(mock_clock: MockClock) -> None:
    lag = LoopLag()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.run)
        await wait_all_tasks_blocked()
        mock_clock.jump(5)
        await wait_all_tasks_blocked()
        assert lag.total_s == 0
        lag.begin()
        await wait_all_tasks_blocked()
        mock_clock.jump(0.06)
        await wait_all_tasks_blocked()
        mock_clock.jump(0.55)
        await wait_all_tasks_blocked()
        assert lag.total_s == pytest.approx(0.5)
        nursery.cancel_scope.cancel()
