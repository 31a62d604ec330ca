"""HTTP/1.1 through two engines: framing, streaming, retries, refusals."""

from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import trio

from gossipmesh.model.policy import HTTPRoute, HTTPRouteTimeouts
from gossipmesh.model.service import EndpointHealth
from gossipmesh.testing.builders import access_policy, http_route
from tests.unit.dataplane.engine_kit import (
    Peer,
    answering,
    cart_pair,
    endpoint,
    get,
    local,
    nobody_listening,
    nodes,
    policies,
    until,
    workload,
)

POST = b"POST / HTTP/1.1\r\nHost: cart.shop\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
ABC = b"3\r\nabc\r\n0\r\n\r\n"


async def test_keep_alive_serves_one_request_after_another_on_both_hops(tmp_path: Path) -> None:
    accepted = 0

    async def counting(stream: trio.SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        await answering()(stream)

    async with workload(counting) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            for _ in range(5):
                assert (await peer.ask(b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"))[0] == 200
    assert accepted == 1


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async def echo_path(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        while head := await peer.head():
            path = head.split(b" ")[1]
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(path) + path)

    async with workload(echo_path) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: cart.shop\r\n\r\n" % n for n in range(8)))
            for number in range(8):
                assert await peer.body(await peer.head()) == b"/%d" % number


async def test_chunked_bodies_pass_both_ways(tmp_path: Path) -> None:
    async def chunked_echo(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        while head := await peer.head():
            content = await peer.body(head)
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for start in range(0, len(content), 3):
                piece = content[start : start + 3]
                await peer.send(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
            await peer.send(b"0\r\nTrailer: x\r\n\r\n")

    async with workload(chunked_echo) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            for _ in range(2):
                status, head, body = await peer.ask(
                    b"POST / HTTP/1.1\r\nHost: cart.shop\r\nTransfer-Encoding: chunked\r\n\r\n"
                    b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
                )
                assert (status, body) == (200, b"hello world")
                assert b"trailer" not in head.lower()


async def test_head_204_and_304_have_no_body_and_keep_the_connection(tmp_path: Path) -> None:
    async def bodiless(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        while head := await peer.head():
            status = {b"/204": 204, b"/304": 304}.get(head.split(b" ")[1], 200)
            length = b"" if status == 204 else b"content-length: 5\r\n"
            await peer.send(b"HTTP/1.1 %d X\r\n" % status + length + b"\r\n")

    async with workload(bodiless) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            for line in (b"HEAD /", b"HEAD /", b"GET /204", b"GET /304", b"HEAD /"):
                await peer.send(line + b" HTTP/1.1\r\nHost: cart.shop\r\n\r\n")
                head = await peer.head()
                assert head.startswith(b"HTTP/1.1 ")
                assert (b"content-length: 5" in head) == (b"204" not in line)


async def test_answer_ended_by_close_arrives_whole(tmp_path: Path) -> None:
    async def until_close(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000)
        await stream.aclose()

    async with workload(until_close) as address, cart_pair(tmp_path, address) as (near, _far):
        assert (await get(near.at("proxy")))[2] == b"x" * 100_000
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(b"GET / HTTP/1.0\r\nHost: cart.shop\r\n\r\n")
            assert (await peer.rest()).partition(b"\r\n\r\n")[2] == b"x" * 100_000


async def test_cut_answer_does_not_look_whole(tmp_path: Path) -> None:
    async def cutting(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await stream.aclose()

    async with workload(cutting) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n")
            whole = await peer.rest()
        assert b"hello" in whole
        assert not whole.endswith(b"0\r\n\r\n")


async def test_bodies_stream_without_waiting_for_their_end(tmp_path: Path) -> None:
    """An answer begins while the request's body is still on its way, piece by piece."""

    async def stream_echo(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n")
        for _ in range(3):
            await peer.send(await peer.exactly(100_000))
        await peer.rest()

    async with workload(stream_echo) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(b"POST / HTTP/1.1\r\nHost: cart.shop\r\nContent-Length: 300000\r\n\r\n")
            for piece in (b"a", b"b", b"c"):
                await peer.send(piece * 100_000)
                if piece == b"a":
                    await peer.head()
                assert await peer.exactly(100_000) == piece * 100_000


async def test_expect_continue_reaches_the_workload_and_its_consent_the_client(tmp_path: Path) -> None:
    async def consenting(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        head = await peer.head()
        assert b"expect: 100-continue" in head
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        content = await peer.body(head)
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content) + content)
        await peer.rest()

    async with workload(consenting) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(POST + b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\n")
            assert (await peer.head()).startswith(b"HTTP/1.1 100 ")
            await peer.send(b"body")
            assert await peer.body(await peer.head()) == b"body"


async def test_refusal_before_the_body_is_sent_ends_the_connection(tmp_path: Path) -> None:
    async def refusing(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        await peer.head()
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await peer.rest()

    async with workload(refusing) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(POST + b"Content-Length: 900000\r\nExpect: 100-continue\r\n\r\n")
            head = await peer.rest()
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in head


async def test_websocket_upgrade_is_spliced(tmp_path: Path) -> None:
    async def upgrading(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        head = await peer.head()
        assert b"upgrade: websocket" in head
        await peer.send(b"HTTP/1.1 101 Switching\r\n" + UPGRADE + b"\r\nfirst")
        while data := await stream.receive_some():
            await peer.send(data.upper())

    async with workload(upgrading) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(b"GET / HTTP/1.1\r\nHost: cart.shop\r\n" + UPGRADE + b"\r\n")
            head = await peer.head()
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"upgrade: websocket" in head
            assert await peer.exactly(5) == b"first"
            await peer.send(b"frame")
            assert await peer.exactly(5) == b"FRAME"


async def test_narrowed_rule_closes_an_upgraded_connection(tmp_path: Path) -> None:
    async def upgrading(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        await peer.head()
        await peer.send(b"HTTP/1.1 101 Switching\r\n" + UPGRADE + b"\r\n")
        await peer.rest()

    async with workload(upgrading) as address, cart_pair(tmp_path, address) as (near, far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(b"GET / HTTP/1.1\r\nHost: cart.shop\r\n" + UPGRADE + b"\r\n")
            await peer.head()
            await far.apply(policies=policies(access_policy("only-bank", namespaces=("bank",))))
            assert await peer.rest() == b""


async def test_try_timeout_is_504_ut_when_no_endpoint_answers_in_time(tmp_path: Path) -> None:
    tries = 0

    async def silent(stream: trio.SocketStream) -> None:
        nonlocal tries
        peer = Peer(stream)
        while await peer.head():
            tries += 1

    async with workload(silent) as address, cart_pair(tmp_path, address) as (near, _far):
        await near.apply(policies=policies(timed_route(backend_request="50ms")))
        status, head, _ = await get(near.at("proxy"))
        assert (status, b"x-gossipmesh-flag: UT,URX" in head) == (504, True)
        assert tries == 3
        await near.apply(policies=policies(timed_route(request="400ms", backend_request="250ms")))
        status, _, _ = await get(near.at("proxy"))
        assert status == 504
        assert tries in (4, 5)


async def test_try_timeout_ends_with_the_head_and_not_with_the_body(tmp_path: Path) -> None:
    async def slow_body(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
        await trio.sleep(0.25)  # five times the try's timeout
        await peer.send(b"late")

    async with workload(slow_body) as address, cart_pair(tmp_path, address) as (near, _far):
        await near.apply(policies=policies(timed_route(backend_request="50ms")))
        assert (await get(near.at("proxy")))[2] == b"late"


async def test_listed_status_is_tried_again_and_the_last_one_relayed(tmp_path: Path) -> None:
    seen: list[bytes] = []
    async with (
        workload(answering(503, b"busy", seen)) as address,
        cart_pair(tmp_path, address) as (near, _far),
    ):
        status, _, body = await get(near.at("proxy"))
        assert (status, body, len(seen)) == (503, b"busy", 3)
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            assert (await peer.ask(POST + b"Content-Length: 1\r\n\r\nx"))[0] == 503
        assert len(seen) == 4


async def test_half_closed_client_still_gets_its_answer(tmp_path: Path) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n")
            await peer.stream.send_eof()
            assert (await peer.rest()).endswith(b"hello")


async def test_refused_endpoints_are_retried_and_taken_out_at_once(tmp_path: Path) -> None:
    """Nothing listens at one of two endpoints: no client notices, and one refusal is enough."""
    async with AsyncExitStack() as stack:
        gone = stack.enter_context(nobody_listening())
        address = await stack.enter_async_context(workload(answering()))
        near, far = await stack.enter_async_context(cart_pair(tmp_path, address))
        dead = msgspec.structs.replace(endpoint(far), node="dead", address=gone)
        await near.apply(catalog=(endpoint(far), dead), wanted=("shop/cart",))
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            for _ in range(30):
                assert (await peer.ask(POST + b"Content-Length: 2\r\n\r\nhi"))[0] == 200
        await until(lambda: any(getattr(event, "reason", "") == "refused" for event in near.events))
        assert sum(1 for event in near.events if getattr(event, "reason", "") == "refused") == 1


async def test_body_is_replayed_to_another_endpoint(tmp_path: Path) -> None:
    """A chunked PUT whose first endpoint dies after reading it is sent again, whole."""
    seen: list[bytes] = []

    async def dying(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        seen.append(await peer.body(await peer.head()))
        if len(seen) > 1:
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with workload(dying) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            status, _, _ = await peer.ask(
                b"PUT / HTTP/1.1\r\nHost: cart.shop\r\nTransfer-Encoding: chunked\r\n\r\n" + ABC
            )
    assert status == 200
    assert seen == [b"abc", b"abc"]


async def test_routes_split_by_weight(tmp_path: Path) -> None:
    async with (
        workload(answering(body=b"one")) as first,
        workload(answering(body=b"two")) as second,
        nodes(tmp_path, "near", "far") as (near, far),
    ):
        services = (local(first), local(second, registration="cart2", service="shop/cart2"))
        await far.apply(local=services, catalog=(endpoint(far),))
        route = http_route("split", backends={"cart": 1, "cart2": 1})
        both = (endpoint(far), endpoint(far, registration="cart2", service="shop/cart2"))
        await far.identify("spiffe://mesh.test/ns/shop/svc/cart2")
        await near.apply(catalog=both, wanted=("shop/cart",), policies=policies(route))
        bodies = {(await get(near.at("proxy")))[2] for _ in range(40)}
    assert bodies == {b"one", b"two"}


async def test_denied_caller_gets_403_and_the_event_names_the_rule(tmp_path: Path) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, far):
        await far.apply(policies=policies(access_policy("only-bank", namespaces=("bank",))))
        status, head, body = await get(near.at("proxy"))
        assert status == 403
        assert b"x-gossipmesh-flag: UAEX" in head
        assert b"only-bank" not in head + body
        await until(lambda: any(getattr(event, "caller", "") == near.spiffe_id for event in far.events))


async def test_own_answers_carry_flags(tmp_path: Path) -> None:
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        proxy = near.at("proxy")
        assert b"x-gossipmesh-flag: NR" in (await get(proxy, host="localhost"))[1]
        failing = endpoint(near, registration="none", service="shop/none", health=EndpointHealth.FAILING)
        await near.apply(catalog=(*near.catalog, failing), wanted=("shop/cart", "shop/none"))
        status, head, _ = await get(proxy, host="none.shop.mesh:80")
        assert (status, b"x-gossipmesh-flag: UH" in head) == (503, True)
        status, head, _ = await get(proxy, extra="x-gossipmesh-hops: 16\r\n")
        assert status == 508
        assert (await get(proxy, path="/a/../b"))[0] == 400


async def test_workload_that_refuses_is_503_uf_and_its_http_garbage_502(tmp_path: Path) -> None:
    async def garbage(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        await stream.send_all(b"SSH-2.0-OpenSSH\r\n\r\n")

    async with workload(garbage) as address, cart_pair(tmp_path, address) as (near, far):
        status, head, _ = await get(near.at("proxy"))
        assert (status, b"x-gossipmesh-flag: UPE" in head) == (502, True)
        with nobody_listening() as nobody:
            await far.apply(local=(local(nobody),))
            status, head, _ = await get(near.at("proxy"))
        assert (status, b"UF" in head) == (503, True)


async def test_demand_is_sent_and_the_snapshot_that_answers_it_awaited(tmp_path: Path) -> None:
    async with workload(answering()) as address, nodes(tmp_path, "near", "far") as (near, far):
        await far.apply(local=(local(address),), catalog=(endpoint(far),))
        await near.apply(catalog=(endpoint(far),))
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await get(near.at("proxy")))[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: any(getattr(event, "service", "") == "shop/cart" for event in near.events))
            await near.apply(wanted=("shop/cart",))
        assert statuses == [200]
        assert (await get(near.at("proxy"), host="ghost.shop"))[0] == 503


async def test_a_service_the_agent_does_not_know_is_refused_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gossipmesh.dataplane.reference.demands.WAIT_S", 3_600)
    async with nodes(tmp_path, "near") as (near,):
        await near.apply()
        answers: list[tuple[int, bytes, bytes]] = []

        async def ask(host: str) -> None:
            answers.append(await get(near.at("proxy"), host=host))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "ghost.shop")
            await until(lambda: any(getattr(event, "service", "") == "shop/ghost" for event in near.events))
            await near.client.unknown_service("shop/ghost")
        await ask("ghost.shop")
    assert [status for status, *_ in answers] == [503, 503]
    assert all(b"x-gossipmesh-flag: NC" in head for _, head, _ in answers)


async def test_request_in_flight_to_a_removed_endpoint_moves_on(tmp_path: Path) -> None:
    """The endpoint never answers; the moment the snapshot drops it, the request goes to another."""
    stuck = trio.Event()

    async def never(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        stuck.set()
        await trio.sleep_forever()

    async with (
        workload(never) as silent,
        workload(answering()) as address,
        nodes(tmp_path, "near", "far", "third") as (near, far, third),
    ):
        await far.apply(local=(local(silent),))
        await third.apply(local=(local(address),))
        await near.apply(catalog=(endpoint(far),), wanted=("shop/cart",))
        answers: list[int] = []

        async def ask() -> None:
            answers.append((await get(near.at("proxy")))[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await stuck.wait()
            await near.apply(catalog=(endpoint(third),))
        assert answers == [200]


async def test_client_that_resets_ends_the_request_at_the_workload(tmp_path: Path) -> None:
    arrived, left = trio.Event(), trio.Event()

    async def waiting(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        arrived.set()
        try:
            await stream.receive_some()
        finally:
            left.set()

    async with workload(waiting) as address, cart_pair(tmp_path, address) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        await peer.send(b"POST / HTTP/1.1\r\nHost: cart.shop\r\nContent-Length: 0\r\n\r\n")
        await arrived.wait()
        peer.stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await peer.stream.aclose()
        with trio.fail_after(5):
            await left.wait()


def timed_route(*, request: str | None = None, backend_request: str | None = None) -> HTTPRoute:
    """Return a route of shop/cart to itself with timeouts."""
    timeouts = HTTPRouteTimeouts(request=request, backendRequest=backend_request)
    route = http_route("timed")
    rule = msgspec.structs.replace(route.spec.rules[0], timeouts=timeouts)
    return msgspec.structs.replace(route, spec=msgspec.structs.replace(route.spec, rules=(rule,)))
