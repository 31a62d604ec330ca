"""Tunnels through real engines: what the callee says first, CONNECT to HTTP, services nobody serves."""

import errno
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from gossipmesh.dataplane.protocol import Ejection
from gossipmesh.dataplane.reference import dialing
from gossipmesh.dataplane.reference.tunnel_status import (
    TunnelStatus,
    ending_of,
    read_status_untrusted,
    status_of,
)
from gossipmesh.model.identity import service_spiffe_id
from gossipmesh.model.member import Address
from gossipmesh.net.tls import ALPN_TCP, TlsStream, client_context, server_context
from gossipmesh.testing.builders import access_policy
from gossipmesh.traffic import endings
from gossipmesh.traffic.endings import Ending
from tests.unit.dataplane.certificates import TRUST_DOMAIN
from tests.unit.dataplane.engine_kit import (
    Handler,
    Node,
    Peer,
    address_of,
    answering,
    bound,
    endpoint,
    local,
    nodes,
    policies,
    until,
    workload,
)

DB = service_spiffe_id(TRUST_DOMAIN, "shop/db")
CONNECT = b"CONNECT db.shop:5432 HTTP/1.1\r\nHost: db.shop:5432\r\n\r\n"
CONNECT_CART = b"CONNECT cart.shop:80 HTTP/1.1\r\nHost: cart.shop:80\r\n\r\n"
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"  # what psql sends first


def nowhere() -> Address:
    port = bound()
    address = address_of(port)
    port.close()
    return address


async def greeting_echo(stream: trio.SocketStream) -> None:
    """Speak first, as MySQL and SMTP do, then echo."""
    await stream.send_all(b"220 hello\r\n")
    while data := await stream.receive_some():
        await stream.send_all(data)


@asynccontextmanager
async def databases(directory: Path, **handlers: Handler | Address) -> AsyncIterator[tuple[Node, ...]]:
    """Run a caller's node and one node per workload of shop/db; `near.sockets["db"]` is the explicit port."""
    async with AsyncExitStack() as stack:
        near, *far = await stack.enter_async_context(nodes(directory, "near", *handlers))
        for node, handler in zip(far, handlers.values(), strict=True):
            address = handler
            if not isinstance(address, Address):
                address = await stack.enter_async_context(workload(address))
            served = local(address, registration="db", service="shop/db", protocol="tcp")
            await node.apply(local=(served,), catalog=(there(node),))
        near.port("db", bound())
        await give_port(near, near.at("db"))
        await near.apply(catalog=tuple(there(node) for node in far), wanted=("shop/cart",))
        yield near, *far


def there(node: Node) -> object:
    return endpoint(node, registration="db", service="shop/db", protocol="tcp")


async def give_port(near: Node, address: Address) -> None:
    web = local(Address("127.0.0.1", 9), registration="web", service="shop/web")
    near.compile(local=(msgspec.structs.replace(web, upstreams=(("shop/db", address),)),))
    await near.client.give_listeners({f"upstream/shop/db/{address}": near.sockets["db"]})


def ejections(node: Node) -> list[tuple[str, str, bool]]:
    return [(event.node, event.reason, event.ejected) for event in node.events if isinstance(event, Ejection)]


async def test_a_workload_that_refuses_is_told_before_the_first_byte(tmp_path: Path) -> None:
    """Every connection reaches the other one, whoever speaks first, with nothing lost."""
    async with databases(tmp_path, a=greeting_echo, b=nowhere()) as (near, _a, _b):
        for number in range(6):
            peer = await Peer.connect(near.at("db"))
            async with peer.stream:
                await peer.send(b"first%d" % number)
                assert await peer.exactly(11 + 6) == b"220 hello\r\nfirst%d" % number
        await until(lambda: ejections(near) == [("b", "refused", True)])
        for connect in (
            CONNECT,
            b"CONNECT db.shop:5432 HTTP/1.0\r\n\r\n",
            b"CONNECT db.shop:5432 HTTP/1.1\r\nHost: db.shop\r\n\r\n",
            b"CONNECT db.shop:5432 HTTP/1.0\r\nProxy-Connection: keep-alive\r\n\r\n",
        ):
            peer = await Peer.connect(near.at("proxy"))
            async with peer.stream:
                await peer.send(connect + b"early")
                assert (await peer.head()).startswith(b"HTTP/1.1 200 ")
                assert await peer.exactly(16) == b"220 hello\r\nearly"


async def test_no_tunnel_is_said_to_be_open_before_it_is(tmp_path: Path) -> None:
    async with databases(tmp_path, a=nowhere()) as (near, _a):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            status, head, _ = await peer.ask(CONNECT)
            assert (status, b"x-gossipmesh-flag: UF" in head) == (503, True)
            assert await peer.rest() == b""
        peer = await Peer.connect(near.at("db"))
        async with peer.stream:
            assert await peer.rest() == b""


async def test_who_may_not_is_told_at_once_and_nobody_else_is_asked(tmp_path: Path) -> None:
    async with databases(tmp_path, a=greeting_echo, b=greeting_echo) as (near, a, b):
        for node in (a, b):
            await node.apply(policies=policies(access_policy("bank", service="db", namespaces=("bank",))))
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            status, head, _ = await peer.ask(CONNECT)
        assert (status, b"UAEX" in head) == (403, True)
        await until(lambda: sum(1 for n in (a, b) for one in n.events if getattr(one, "caller", "")) == 1)
        assert ejections(near) == []


async def test_a_lack_at_the_far_node_is_tried_elsewhere_and_never_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with databases(tmp_path, a=greeting_echo, b=greeting_echo) as (near, a, _b):
        short = a.inputs.local[0].workload
        real = dialing.connect

        async def connect(address: Address, *, mesh: bool) -> object:
            if address == short:
                raise OSError(errno.EMFILE, "too many open files")
            return await real(address, mesh=mesh)

        monkeypatch.setattr(dialing, "connect", connect)
        for _ in range(8):
            peer = await Peer.connect(near.at("db"))
            async with peer.stream:
                assert await peer.exactly(11) == b"220 hello\r\n"
        assert ejections(near) == []


async def test_a_caller_of_0_1_is_served_without_a_status(tmp_path: Path) -> None:
    async with databases(tmp_path, a=greeting_echo) as (near, a):
        context = client_context(near.authority.identity(near.spiffe_id), near.authority.bundle_pem, ALPN_TCP)
        context.set_alpn_protocols([ALPN_TCP])
        plain = await trio.open_tcp_stream(a.at("mesh").host, a.at("mesh").port)
        stream = TlsStream(
            plain.socket._sock, context, server_name="db.db.shop." + TRUST_DOMAIN, server_side=False
        )
        await stream.handshake()
        assert stream.protocol == ALPN_TCP
        assert await stream.receive() == b"220 hello\r\n"
        stream.close()


@pytest.mark.parametrize(
    ("protocols", "first", "opened"),
    [
        ([ALPN_TCP], b"", True),
        (["gm-tcp/2", ALPN_TCP], b"\0", True),
        (["gm-tcp/2"], b"\0early", True),
        (["gm-tcp/2"], b"\x01", False),
        (["gm-tcp/2"], b"\x02", False),
        (["gm-tcp/2"], b"\x04", False),
        (["gm-tcp/2"], b"\xff", False),
        (["gm-tcp/2"], None, False),
    ],
    ids=["0.1", "connected", "with bytes behind", "refused", "gone", "overloaded", "unknown", "closed"],
)
async def test_what_a_callee_says(
    tmp_path: Path, protocols: list[str], first: bytes | None, opened: bool
) -> None:
    async with databases(tmp_path, a=greeting_echo) as (near, a):
        context = server_context(near.authority.identity(DB), near.authority.bundle_pem)
        context.set_alpn_protocols(protocols)

        async def callee(raw: trio.SocketStream) -> None:
            stream = TlsStream(raw.socket._sock, context, server_name=None, server_side=True)
            try:
                await stream.handshake()
                if first is not None:
                    await stream.send_all(first)
                    while data := await stream.receive():
                        await stream.send_all(data)
            except (OSError, ssl.SSLError):
                pass
            finally:
                stream.close()

        async with workload(callee) as address:
            await near.apply(catalog=(msgspec.structs.replace(there(a), address=address),))
            peer = await Peer.connect(near.at("proxy"))
            async with peer.stream:
                await peer.send(CONNECT + b"ping")
                head = await peer.head()
                assert head.startswith(b"HTTP/1.1 200 " if opened else b"HTTP/1.1 503 ")
                if opened:
                    wanted = (first or b"")[1:] + b"ping"
                    assert await peer.exactly(len(wanted)) == wanted


def test_every_status_means_something() -> None:
    assert [read_status_untrusted(byte) for byte in range(5)] == list(TunnelStatus)
    assert {read_status_untrusted(byte) for byte in range(5, 256)} == {TunnelStatus.REFUSED}
    assert ending_of(TunnelStatus.CONNECTED) is None
    ends = {status: ending_of(status) for status in TunnelStatus if status is not TunnelStatus.CONNECTED}
    assert ends == {
        TunnelStatus.REFUSED: endings.WORKLOAD_REFUSED,
        TunnelStatus.GONE: endings.WORKLOAD_GONE,
        TunnelStatus.DENIED: endings.DENIED,
        TunnelStatus.OVERLOADED: endings.WORKLOAD_OVERLOADED,
    }


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (endings.DENIED, TunnelStatus.DENIED),
        (endings.REGISTRATION_GONE, TunnelStatus.GONE),
        (endings.OWN_SHORTAGE, TunnelStatus.OVERLOADED),
        (endings.CONNECT_REFUSED, TunnelStatus.REFUSED),
        (endings.CONNECT_TIMEOUT, TunnelStatus.REFUSED),
    ],
)
def test_a_callee_says_why_it_did_not_reach_its_workload(ending: Ending, status: TunnelStatus) -> None:
    assert status_of(ending) is status


@asynccontextmanager
async def carts(directory: Path, handler: Handler) -> AsyncIterator[tuple[Node, Node]]:
    async with workload(handler) as address, nodes(directory, "near", "far") as (near, far):
        await far.apply(local=(local(address),), catalog=(endpoint(far),))
        await near.apply(catalog=(endpoint(far),), wanted=("shop/cart",))
        yield near, far


async def test_connect_to_an_http_service_serves_requests_inside(tmp_path: Path) -> None:
    seen: list[bytes] = []
    async with carts(tmp_path, answering(seen=seen)) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(CONNECT_CART + b"GET /early HTTP/1.1\r\nHost: cart.shop\r\n\r\n")
            assert (await peer.head()).startswith(b"HTTP/1.1 200 Connection established")
            assert await peer.body(await peer.head()) == b"hello"
            for path in (b"/a", b"/b"):
                assert (await peer.ask(b"GET " + path + b" HTTP/1.1\r\nHost: cart.shop:80\r\n\r\n"))[0] == 200
            # All rules hold inside: paths that can be read in two ways, and no tunnel in a tunnel.
            assert (await peer.ask(b"GET /a/../b HTTP/1.1\r\nHost: cart.shop\r\n\r\n"))[0] == 400
        for path, head in zip((b"/early", b"/a", b"/b"), seen, strict=True):
            assert head.startswith(b"GET " + path + b" ")
            assert b"x-forwarded-client-cert: By=spiffe://" in head


@pytest.mark.parametrize(
    ("inside", "status"),
    [
        (CONNECT_CART, 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\x16", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
    ],
    ids=["a tunnel in a tunnel", "TLS", "one byte of TLS", "nonsense", "no Host"],
)
async def test_what_is_no_request_inside_a_tunnel(tmp_path: Path, inside: bytes, status: int) -> None:
    async with carts(tmp_path, answering()) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(CONNECT_CART)
            assert (await peer.head()).startswith(b"HTTP/1.1 200 ")
            await peer.send(inside)
            answer = await peer.rest()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert (b"TLS" in answer) == inside.startswith(b"\x16")


async def test_a_websocket_goes_through_connect(tmp_path: Path) -> None:
    async def upgrading(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        await peer.head()
        await peer.send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while data := await stream.receive_some():
            await peer.send(data.upper())

    async with carts(tmp_path, upgrading) as (near, _far):
        peer = await Peer.connect(near.at("proxy"))
        async with peer.stream:
            await peer.send(CONNECT_CART)
            await peer.head()
            await peer.send(
                b"GET /ws HTTP/1.1\r\nHost: cart.shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            )
            assert (await peer.head()).startswith(b"HTTP/1.1 101 ")
            await peer.send(b"frame")
            assert await peer.exactly(5) == b"FRAME"


async def test_a_service_that_nobody_serves_is_uh_for_connect_whatever_it_speaks(tmp_path: Path) -> None:
    async with databases(tmp_path, a=greeting_echo) as (near, a):
        for catalog in ((), (msgspec.structs.replace(there(a), draining=True),)):
            await near.apply(catalog=catalog)
            peer = await Peer.connect(near.at("proxy"))
            async with peer.stream:
                status, head, _ = await peer.ask(CONNECT)
                assert (status, b"x-gossipmesh-flag: UH" in head) == (503, True)
                assert await peer.rest() == b""


@pytest.mark.parametrize("spoken", [SSL_REQUEST, b"", b"\x16\x03\x01", b"*1\r\n$4\r\nPING\r\n"])
@pytest.mark.parametrize("known", [True, False], ids=["known to be tcp", "nothing known"])
async def test_an_explicit_port_that_nobody_serves_is_closed_and_says_no_http(
    tmp_path: Path, spoken: bytes, known: bool
) -> None:
    """Also for who waits for a greeting; what the service speaks may not be known."""
    async with databases(tmp_path, a=greeting_echo) as (near, a):
        left = msgspec.structs.replace(there(a), draining=True)
        await near.apply(catalog=(left,) if known else ())
        peer = await Peer.connect(near.at("db"))
        async with peer.stream:
            if spoken:
                await peer.send(spoken)
            assert await peer.rest() == b""


async def test_an_explicit_port_that_nobody_serves_answers_http_in_http(tmp_path: Path) -> None:
    async with databases(tmp_path, a=greeting_echo) as (near, _a):
        await near.apply(catalog=())
        peer = await Peer.connect(near.at("db"))
        async with peer.stream:
            status, head, _ = await peer.ask(b"GET / HTTP/1.1\r\nHost: db.shop\r\n\r\n")
        assert (status, b"x-gossipmesh-flag: UH" in head) == (503, True)
