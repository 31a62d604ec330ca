"""How tries go through real engines: their clocks, where they are made, and what ends or moves one."""

import errno
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from gossipmesh.dataplane.protocol import Ejection
from gossipmesh.dataplane.reference import dialing
from gossipmesh.dataplane.reference.forward import engine_flag
from gossipmesh.dataplane.reference.http1 import parse_response_untrusted
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.policy import BackendRef, HTTPRoute, HTTPRouteRule, HTTPRouteTimeouts
from gossipmesh.model.service import EndpointHealth
from gossipmesh.model.snapshot import RoutesSection
from gossipmesh.traffic.compiler import DEFAULT_LIMITS
from gossipmesh.traffic.exchange import FAR_WORDS
from gossipmesh.traffic.sections import encode_section, make_snapshot
from tests.unit.dataplane.engine_kit import (
    Handler,
    Node,
    Peer,
    address_of,
    answering,
    bound,
    cart_pair,
    endpoint,
    get,
    local,
    logged,
    nodes,
    policies,
    until,
    waiting,
    workload,
)
from tests.unit.traffic.builders import http_route, subset

GET = b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: cart.shop\r\nContent-Length: 2\r\n\r\nhi"


def timed_route(*, request: str | None = None, backend_request: str | None = None) -> HTTPRoute:
    route = http_route("timed", HTTPRouteRule(backendRefs=(BackendRef("cart"),)))
    timeouts = HTTPRouteTimeouts(request=request, backendRequest=backend_request)
    rule = msgspec.structs.replace(route.spec.rules[0], timeouts=timeouts)
    return msgspec.structs.replace(route, spec=msgspec.structs.replace(route.spec, rules=(rule,)))


def nowhere() -> Address:
    """Return an address that refuses connections."""
    port = bound()
    address = address_of(port)
    port.close()
    return address


@asynccontextmanager
async def caller_of(directory: Path, **handlers: Handler) -> AsyncIterator[tuple[Node, ...]]:
    """Run a caller's node and one node serving shop/cart per handler, named by it."""
    async with AsyncExitStack() as stack:
        near, *far = await stack.enter_async_context(nodes(directory, "near", *handlers))
        for node, handler in zip(far, handlers.values(), strict=True):
            address = await stack.enter_async_context(workload(handler))
            await node.apply(local=(local(address),), catalog=(endpoint(node),))
        await near.apply(catalog=tuple(endpoint(node) for node in far), wanted=("shop/cart",))
        yield near, *far


def ejections(node: Node) -> list[tuple[str, str, bool]]:
    """Return (node, reason, whether it went out) of each change told, in order."""
    return [(event.node, event.reason, event.ejected) for event in node.events if isinstance(event, Ejection)]


async def test_the_default_try_timeout_of_an_agent_of_0_1_ends_no_get(tmp_path: Path) -> None:
    tries = 0

    async def slow(stream: trio.SocketStream) -> None:
        nonlocal tries
        peer = Peer(stream)
        while await peer.head():
            tries += 1
            await trio.sleep(0.2)  # ten of the timeouts
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow")

    async with workload(slow) as address, cart_pair(tmp_path, address) as (near, _far):
        snapshot = near.compile()
        encoded = {name: snapshot.sections[digest] for name, digest in snapshot.root.items()}
        section = snapshot.section("routes/shop/cart")
        assert isinstance(section, RoutesSection)
        (route,) = section.routes
        route = msgspec.structs.replace(route, try_timeout_ns=20_000_000, try_timeout_idempotent_only=True)
        section = msgspec.structs.replace(section, routes=(route,))
        encoded["routes/shop/cart"] = encode_section(section)
        await near.client.apply_snapshot(make_snapshot(encoded))
        assert (await get(near.at("proxy")))[::2] == (200, b"slow")
    assert tries == 1


@pytest.mark.parametrize("method", [b"PUT", b"POST"])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_tries_clock_starts_when_the_request_is_out_whole(
    tmp_path: Path, method: bytes, chunked: bool
) -> None:
    """A client that takes longer than the try's timeout to send is not timed out."""
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        await near.apply(policies=policies(timed_route(backend_request="500ms")))
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 80000"
            await peer.send(method + b" / HTTP/1.1\r\nHost: cart.shop\r\n" + framing + b"\r\n\r\n")
            for _ in range(4):
                piece = b"x" * 20_000
                await peer.send(b"4e20\r\n" + piece + b"\r\n" if chunked else piece)
                await trio.sleep(0.15)
            if chunked:
                await peer.send(b"0\r\n\r\n")
            assert (await peer.head()).startswith(b"HTTP/1.1 200 ")


async def test_a_client_that_is_slow_to_send_is_not_its_endpoints_fault(tmp_path: Path) -> None:
    """The request's own time is over while its body is still the client's to send."""
    eager = msgspec.structs.replace(DEFAULT_LIMITS, ejection_consecutive=1)
    begun = b"PUT / HTTP/1.1\r\nHost: cart.shop\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
    async with workload(answering()) as address, cart_pair(tmp_path, address) as (near, _far):
        await near.apply(policies=policies(timed_route(request="100ms")), limits=eager)
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(begun)
            assert b" 504 " in await peer.head()
        line = await logged(near, "downstream_timeout")
        assert (line["response_flags"], ejections(near)) == ("UT", [])
        assert (await get(near.at("proxy")))[0] == 200


async def test_what_upstream_cut_is_not_written_down_as_a_client_that_left(tmp_path: Path) -> None:
    async def breaking(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal")

    async with workload(breaking) as address, cart_pair(tmp_path, address) as (near, _far):
        with pytest.raises((EOFError, trio.BrokenResourceError)):
            await get(near.at("proxy"))
        line = await logged(near, "upstream_reset_after_response")
        assert line["response_flags"] == "UC"


@pytest.mark.parametrize("request_", [GET, POST, POST.replace(b"POST", b"PATCH")])
async def test_a_try_timeout_holds_for_every_method(tmp_path: Path, request_: bytes) -> None:
    started: list[str] = []
    async with caller_of(tmp_path, a=waiting("a", started, trio.Event())) as (near, _far):
        await near.apply(policies=policies(timed_route(backend_request="50ms")))
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            status, head, _ = await peer.ask(request_)
        assert (status, b"UT" in head) == (504, True)
        assert len(started) == (3 if request_ is GET else 1)


async def test_a_trial_ends_when_a_long_answer_begins(tmp_path: Path) -> None:
    """An endpoint that comes back with an event stream is in use while the stream is open."""

    async def events(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
        await trio.sleep_forever()

    limits = msgspec.structs.replace(DEFAULT_LIMITS, ejection_base_ns=50_000_000)
    async with caller_of(tmp_path, a=events, b=events) as (near, a, _b), AsyncExitStack() as open_:
        serving = a.inputs.local
        await near.apply(limits=limits)
        await a.apply(local=(local(nowhere()),))

        async def stream_until(seen: list[tuple[str, str, bool]]) -> None:
            with trio.fail_after(5):
                while ejections(near)[-1:] != seen:
                    peer = await Peer.connect(near.at("proxy"))
                    await open_.enter_async_context(peer.stream)
                    await peer.send(GET)
                    assert (await peer.head()).startswith(b"HTTP/1.1 200 ")
                    await trio.sleep(0.01)

        await stream_until([("a", "refused", True)])
        await a.apply(local=serving)
        await stream_until([("a", "returned", False)])


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_shares_follow_weights_through_the_engine(tmp_path: Path, concurrency: int) -> None:
    """One endpoint weighs 100, one is unattended: two thirds and one third."""
    counts: Counter[str] = Counter()

    def counting(name: str) -> Handler:
        async def handle(stream: trio.SocketStream) -> None:
            peer = Peer(stream)
            while await peer.head():
                counts[name] += 1
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

        return handle

    async with caller_of(tmp_path, a=counting("a"), b=counting("b")) as (near, a, b):
        halved = msgspec.structs.replace(endpoint(b), status=MemberStatus.UNATTENDED)
        await near.apply(catalog=(endpoint(a), halved))

        async def ask() -> None:
            peer = await Peer.connect(near.at("proxy"))
            async with peer.stream:
                for _ in range(240 // concurrency):
                    assert (await peer.ask(GET))[0] == 200

        async with trio.open_nursery() as nursery:
            for _ in range(concurrency):
                nursery.start_soon(ask)
    assert counts.total() == 240
    assert abs(counts["a"] - 160) <= 16


async def test_a_label_change_in_a_subset_does_not_bring_an_ejected_endpoint_back(tmp_path: Path) -> None:
    async with caller_of(tmp_path, a=answering()) as (near, a):
        labelled = msgspec.structs.replace(endpoint(a), labels={"version": "v2"})
        dead = msgspec.structs.replace(labelled, node="dead", address=nowhere())
        refs = (BackendRef("cart"), BackendRef("v2", kind="Subset"))
        route = http_route("split", HTTPRouteRule(backendRefs=refs))
        documents = policies(route, subset("v2", version="v2"))
        await near.apply(catalog=(labelled, dead), policies=documents)
        for _ in range(12):
            assert (await get(near.at("proxy")))[0] == 200
        await until(lambda: ejections(near) == [("dead", "refused", True)])
        await near.apply(catalog=(labelled, msgspec.structs.replace(dead, labels={"version": "v3"})))
        for _ in range(12):
            assert (await get(near.at("proxy")))[0] == 200
        assert ejections(near) == [("dead", "refused", True)]
        await near.apply(catalog=(labelled,))
        await until(lambda: ejections(near)[1:] == [("dead", "removed", False)])


@pytest.mark.parametrize("others", [0, 1])
async def test_a_draining_endpoint_finishes_what_it_has(tmp_path: Path, others: int) -> None:
    """A GET waits at an endpoint that drains: it is not moved, whether or not there is another."""
    started: list[str] = []
    release = trio.Event()
    async with caller_of(tmp_path, a=waiting("a", started, release), b=answering()) as (near, a, b):
        await near.apply(catalog=(endpoint(a),))
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(GET)
            await until(lambda: started == ["a"])
            drained = msgspec.structs.replace(endpoint(a), draining=True)
            await near.apply(catalog=(drained, endpoint(b)) if others else (drained,))
            assert (await get(near.at("proxy")))[0] == (200 if others else 503)
            release.set()
            assert await peer.body(await peer.head()) == b"done"
    assert started == ["a"]


@pytest.mark.parametrize(
    "change",
    [
        {"health": EndpointHealth.FAILING},
        {"health": EndpointHealth.FAILING, "draining": True},
        {"status": MemberStatus.DEAD},
        None,
    ],
    ids=["failing", "failing while it drains", "dead", "gone"],
)
async def test_what_waits_at_an_endpoint_that_fails_is_made_elsewhere(
    tmp_path: Path, change: dict[str, object] | None
) -> None:
    started: list[str] = []
    async with caller_of(tmp_path, a=waiting("a", started, trio.Event()), b=answering()) as (near, a, b):
        await near.apply(catalog=(endpoint(a),))
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(GET)
            await until(lambda: started == ["a"])
            changed = () if change is None else (msgspec.structs.replace(endpoint(a), **change),)
            await near.apply(catalog=(*changed, endpoint(b)))
            assert await peer.body(await peer.head()) == b"hello"
        assert ejections(near) == []


async def test_with_nowhere_to_go_a_try_waits_until_there_is(tmp_path: Path) -> None:
    started: list[str] = []
    async with caller_of(tmp_path, a=waiting("a", started, trio.Event()), b=answering()) as (near, a, b):
        await near.apply(catalog=(endpoint(a),))
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(GET)
            await until(lambda: started == ["a"])
            failing = msgspec.structs.replace(endpoint(a), health=EndpointHealth.FAILING)
            await near.apply(catalog=(failing,))
            assert (await get(near.at("proxy")))[0] == 503
            await near.apply(catalog=(failing, endpoint(b)))
            assert await peer.body(await peer.head()) == b"hello"


async def test_a_post_is_not_moved(tmp_path: Path) -> None:
    started: list[str] = []
    release = trio.Event()
    async with caller_of(tmp_path, a=waiting("a", started, release), b=answering()) as (near, a, b):
        await near.apply(catalog=(endpoint(a),))
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(POST)
            await until(lambda: started == ["a"])
            await near.apply(catalog=(endpoint(b),))
            release.set()
            assert await peer.body(await peer.head()) == b"done"


@pytest.mark.parametrize("request_", [GET, POST, POST.replace(b"POST", b"PATCH")])
async def test_a_workload_that_refuses_is_told_as_such_and_another_asked(
    tmp_path: Path, request_: bytes
) -> None:
    """The far engine could not connect: whatever the method, the request never reached the workload."""
    async with caller_of(tmp_path, a=answering(), b=answering()) as (near, _a, b):
        await b.apply(local=(local(nowhere()),))
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            for _ in range(8):
                assert (await peer.ask(request_))[0] == 200
        await until(lambda: ejections(near) == [("b", "refused", True)])


async def test_a_registration_that_is_gone_is_told_as_such_and_another_asked(tmp_path: Path) -> None:
    async with caller_of(tmp_path, a=answering(), b=answering()) as (near, _a, b):
        peers = [await Peer.connect(near.at("proxy")) for _ in range(4)]
        for peer in peers:
            assert (await peer.ask(POST))[0] == 200  # connections to both are open
        await b.apply(local=())
        for peer in peers:
            async with peer.stream:
                for _ in range(4):
                    assert (await peer.ask(POST))[0] == 200


async def test_a_refused_workload_without_another_is_503_uf(tmp_path: Path) -> None:
    async with cart_pair(tmp_path, nowhere()) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            status, head, _ = await peer.ask(POST)
        assert (status, b"x-gossipmesh-flag: UF" in head) == (503, True)


@pytest.mark.parametrize("request_", [GET, POST])
async def test_a_lack_at_the_far_node_is_tried_elsewhere_and_never_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: bytes
) -> None:
    """The far engine has no descriptor for a connection to its workload; it says so, and is left alone."""
    async with caller_of(tmp_path, a=answering(), b=answering()) as (near, a, _b):
        short, real = a.inputs.local[0].workload, dialing.connect

        async def connect(address: Address, *, mesh: bool) -> object:
            if address == short:
                raise OSError(errno.EMFILE, "too many open files")
            return await real(address, mesh=mesh)

        monkeypatch.setattr(dialing, "connect", connect)
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            for _ in range(12):
                assert (await peer.ask(request_))[0] == 200
        assert ejections(near) == []


@pytest.mark.parametrize("word", [b"UF", b"UH", b"UO", b"UF,URX"])
@pytest.mark.parametrize("name", [b"x-gossipmesh-flag", b"X-Gossipmesh-Flag", b"x_gossipmesh_flag"])
async def test_a_workload_does_not_speak_as_its_engine(tmp_path: Path, name: bytes, word: bytes) -> None:
    """It says that it was never reached, having done what the POST asked: it is done once."""
    seen: list[bytes] = []

    async def lying(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        while head := await peer.head():
            seen.append(head + await peer.body(head))
            words = name + b": " + word
            await peer.send(b"HTTP/1.1 503 Busy\r\n" + words + b"\r\ncontent-length: 0\r\n\r\n")

    async with caller_of(tmp_path, a=lying, b=lying) as (near, _a, _b):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            for count in range(1, 5):
                status, head, _ = await peer.ask(POST)
                assert (status, b"gossipmesh" in head.lower()) == (503, False)
                assert len(seen) == count
        assert ejections(near) == []


@pytest.mark.parametrize(
    ("answer", "unreached"),
    [
        (b"503 X\r\nx-gossipmesh-flag: UF", True),
        (b"503 X\r\nx-gossipmesh-flag: UO", True),
        (b"503 X\r\nx-gossipmesh-flag: UC", False),
        (b"503 X\r\nx-gossipmesh-flag: URX", False),
        (b"502 X\r\nx-gossipmesh-flag: UF", False),
        (b"200 X\r\nx-gossipmesh-flag: UF", False),
    ],
)
def test_only_what_was_never_reached_is_told_apart(answer: bytes, unreached: bool) -> None:
    response = parse_response_untrusted(b"HTTP/1.1 " + answer + b"\r\ncontent-length: 0\r\n\r\n")
    assert (response.status == 503 and engine_flag(response) in FAR_WORDS) == unreached
