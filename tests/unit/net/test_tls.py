"""TLS between proxies: who is believed, who is not, and how a stream ends."""

import socket
import ssl

import pytest
import trio
import trio.testing

from gossipmesh.dataplane.protocol import Identity
from gossipmesh.model.member import Address
from gossipmesh.net.byte_stream import PlainStream, connect
from gossipmesh.net.tls import (
    ALPN_HTTP,
    ALPN_TCP,
    TlsError,
    TlsPeerRefused,
    TlsStream,
    server_context,
)
from gossipmesh.trust.peer_identity import Dialled, PeerFacts
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted
from tests.unit.dataplane.certificates import TRUST_DOMAIN, Authority, shared_authority
from tests.unit.net.tls_pair import CART, NAME, WEB, shaken

FACTS = PeerFacts(TRUST_DOMAIN, frozenset(certificates_in_pem_untrusted(shared_authority().bundle_pem)))


async def test_both_sides_learn_the_others_identity_version_and_name() -> None:
    async with shaken() as (server, client):
        assert server.identify(FACTS).spiffe_id == WEB
        assert client.identify(FACTS, Dialled(CART)).spiffe_id == CART
        assert [len(end.presented().issuers) for end in (server, client)] == [1, 1]
        assert server.requested_name == NAME
        assert server.protocol == client.protocol == ALPN_HTTP
        assert client._tls.version() == "TLSv1.3"


@pytest.mark.parametrize("name", [None, "web.web.shop.mesh.test"], ids=["no name", "unknown name"])
async def test_unknown_name_is_refused_with_an_alert(name: str | None) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with shaken(name=name):
            pass
    assert caught.group_contains(TlsError, match="UNRECOGNIZED_NAME")


async def test_server_of_another_authority_is_refused() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with shaken(server=Authority("other").identity(CART)):
            pass
    assert caught.group_contains(TlsError, match="CERTIFICATE_VERIFY_FAILED")


async def test_client_of_another_authority_is_refused() -> None:
    async with shaken(client=Authority("other").identity(WEB)) as (_server, client):
        with pytest.raises(OSError, match="UNKNOWN_CA"):
            await client.receive()


@pytest.mark.parametrize(
    "uris",
    [
        [],
        [WEB, CART],
        ["https://mesh.test/ns/shop/svc/web"],
        ["spiffe://other.test/ns/shop/svc/web"],
        ["spiffe://mesh.test/anything"],
    ],
    ids=["none", "two", "no SPIFFE ID", "another trust domain", "an identity of no kind"],
)
async def test_certificate_that_names_nobody_of_this_mesh(uris: list[str]) -> None:
    async with shaken(client=shared_authority().identity(WEB, uris)) as (server, _client):
        with pytest.raises(TlsPeerRefused):
            server.identify(FACTS)


async def test_protocol_nobody_offers_is_not_agreed_on() -> None:
    async with shaken(protocol="h2") as (server, client):
        assert server.protocol is client.protocol is None


async def test_no_session_ticket_is_ever_given() -> None:
    async with shaken() as (server, client):
        await server.send_all(b"x")
        await client.receive()
        assert not client._tls.session.has_ticket


async def test_large_messages_both_ways_at_once() -> None:
    async with shaken(protocol=ALPN_TCP) as (server, client):
        size = 3_000_000

        async def pour(stream: TlsStream, letter: bytes) -> None:
            await stream.send_all(letter * size)
            await stream.send_eof()

        async def drink(stream: TlsStream, letter: bytes) -> None:
            total = 0
            while data := await stream.receive():
                assert data == letter * len(data)
                total += len(data)
            assert total == size

        async with trio.open_nursery() as nursery:
            for source, sink, letter in ((server, client, b"s"), (client, server, b"c")):
                nursery.start_soon(pour, source, letter)
                nursery.start_soon(drink, sink, letter)


async def test_closing_one_direction_keeps_what_comes_the_other_way() -> None:
    """Bytes are on their way to us at the moment we end our direction."""
    async with shaken() as (server, client):
        await server.send_all(b"on its way")
        await client.send_eof()
        assert await server.receive() == b""
        await server.send_all(b", and later")
        await server.send_eof()
        received = b""
        while data := await client.receive():
            received += data
        assert received == b"on its way, and later"


async def test_stream_cut_short_is_an_error_and_not_an_end() -> None:
    async with shaken() as (server, client):
        server.socket.shutdown(socket.SHUT_RDWR)
        with pytest.raises(OSError, match="EOF"):
            await client.receive()


async def test_ended_connection_is_stale_and_an_idle_one_is_not() -> None:
    async with shaken() as (server, client):
        assert not client.is_stale()
        server.close()
        assert client.is_stale()


async def test_close_wakes_who_waits() -> None:
    async with shaken() as (_server, client), trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(OSError, match="closed"):
                await client.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        client.close()


def test_key_that_does_not_belong_to_the_chain_is_refused() -> None:
    authority = shared_authority()
    one, other = authority.identity(CART), authority.identity(CART)
    with pytest.raises(ssl.SSLError):
        server_context(Identity(CART, one.chain_pem, other.key_pem), authority.bundle_pem)


async def test_plain_stream_half_close() -> None:
    left, right = socket.socketpair()
    one, other = PlainStream(left), PlainStream(right)
    await one.send_all(b"x")
    one.socket.shutdown(socket.SHUT_WR)
    assert await other.receive() == b"x"
    assert await other.receive() == b""
    await other.send_all(b"y")
    assert await one.receive() == b"y"
    assert not one.is_stale()
    other.close()
    assert one.is_stale()
    one.close()


@pytest.mark.parametrize(
    "zone", ["a\0b", "é" * 100, "eth99", "a" * 3_000], ids=["nul", "letters", "name", "long"]
)
async def test_an_address_no_kernel_knows_is_an_os_error(zone: str) -> None:
    """A member names its own addresses, and `fe80::1%ANYTHING` is an IPv6 literal."""
    with pytest.raises(OSError):
        await connect(Address(f"fe80::1%{zone}", 15_008), mesh=True)
