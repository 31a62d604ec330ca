"""Whose socket is at the other end, over IPv4, IPv6 and mapped addresses."""

import os
import socket

import pytest

from gossipmesh.model.member import Address
from gossipmesh.net.socket_owner import SocketOwners

OTHER_UID = 54_321


def connected(client: socket.socket, host: str, port: int) -> tuple[Address, Address]:
    """Connect and return (client's address, server's address) as the kernel files them."""
    client.connect((host, port))
    own, peer = client.getsockname(), client.getpeername()
    return Address(own[0], own[1]), Address(peer[0], peer[1])


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["ipv4", "ipv6"]
)
def test_owner_is_found_until_its_process_lets_go(family: socket.AddressFamily, host: str) -> None:
    owners = SocketOwners()
    with socket.create_server((host, 0), family=family) as server, socket.socket(family) as client:
        own, peer = connected(client, host, server.getsockname()[1])
        accepted, _ = server.accept()
        with accepted:
            assert owners.uid_of(own, peer) == os.geteuid()
            client.close()
            # The kernel still knows the connection and would name uid 0 for it.
            assert owners.uid_of(own, peer) is None
    owners.close()


def test_unknown_connection_has_no_owner() -> None:
    owners = SocketOwners()
    assert owners.uid_of(Address("127.0.0.1", 1), Address("127.0.0.1", 2)) is None
    owners.close()


def test_listener_is_not_taken_for_a_connection() -> None:
    owners = SocketOwners()
    with socket.create_server(("127.0.0.1", 0)) as server:
        own = Address("127.0.0.1", server.getsockname()[1])
        assert owners.uid_of(own, Address("127.0.0.1", 9)) is None
    owners.close()


@pytest.mark.namespace
def test_another_users_socket_is_theirs() -> None:
    owners = SocketOwners()
    with socket.create_server(("127.0.0.1", 0)) as server:
        os.seteuid(OTHER_UID)  # the kernel files a socket under the uid at its making
        try:
            client = socket.socket()
        finally:
            os.seteuid(0)
        with client:
            own, peer = connected(client, "127.0.0.1", server.getsockname()[1])
            assert owners.uid_of(own, peer) == OTHER_UID
    owners.close()


def test_ipv6_socket_speaking_ipv4_is_found() -> None:
    owners = SocketOwners()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET6) as client:
        client.connect(("::ffff:127.0.0.1", server.getsockname()[1]))
        accepted, (host, port) = server.accept()
        with accepted:
            assert owners.uid_of(Address(host, port), Address(*server.getsockname())) == os.geteuid()
    owners.close()
