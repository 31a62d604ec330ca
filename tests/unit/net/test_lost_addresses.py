"""Mesh connections that an address went from under are ended, and no others."""

import json
import socket
import subprocess
import sys

import pytest

from gossipmesh.net import lost_addresses
from gossipmesh.net.byte_stream import MESH_SOCKETS, StaleCheck, set_options
from gossipmesh.net.lost_addresses import LostAddresses

INSIDE = """
import json, socket, subprocess, trio
from gossipmesh.net.byte_stream import StaleCheck, set_options
from gossipmesh.net.lost_addresses import LostAddresses

def ip(*words):
    subprocess.run(["ip", *words], check=True)

def connection(host):
    listener = socket.create_server((host, 0))
    client = socket.create_connection(listener.getsockname(), source_address=(host, 0))
    set_options(client, mesh=True)
    return listener, client

async def main():
    ip("link", "set", "lo", "up")
    for host in ("10.99.0.7", "10.99.0.8"):
        ip("address", "add", host + "/32", "dev", "lo")
    held = [connection(host) for host in ("10.99.0.7", "10.99.0.8")]
    watch = LostAddresses()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.testing.wait_all_tasks_blocked()
        ip("address", "del", "10.99.0.7/32", "dev", "lo")
        with trio.fail_after(20):
            while not watch.ended_count:
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    print(json.dumps([StaleCheck(client).answer() for _, client in held]))

import trio.testing
trio.run(main)
"""


@pytest.mark.namespace
def test_connections_by_an_address_that_goes_end_as_the_kernel_tells_of_it() -> None:
    words = ["unshare", "--net", "--", sys.executable, "-c", INSIDE]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr[-2_000:]
    assert json.loads(result.stdout) == [True, False]


def pair(host: str) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection by `host`, both of the mesh."""
    with socket.create_server((host, 0)) as listener:
        one = socket.create_connection(listener.getsockname(), source_address=(host, 0))
        other, _ = listener.accept()
    for end in (one, other):
        set_options(end, mesh=True)
    return one, other


def test_only_mesh_connections_of_lost_addresses_end_and_each_is_ended_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def has_address(host: str) -> bool:
        asked.append(host)
        return host != "127.0.0.7"

    monkeypatch.setattr(lost_addresses, "has_address", has_address)
    gone, kept = pair("127.0.0.7"), pair("127.0.0.8")
    unconnected, closed = socket.socket(), socket.socket()
    MESH_SOCKETS.update({unconnected, closed})
    closed.close()
    watch = LostAddresses()
    watch.look()
    assert [StaleCheck(end).answer() for end in (*gone, *kept)] == [True, True, False, False]
    assert gone[0].recv(1) == b"", "whoever waits there is told at once"
    assert watch.ended_count == 2
    assert sorted(set(asked) & {"127.0.0.7", "127.0.0.8"}) == ["127.0.0.7", "127.0.0.8"]
    assert len(asked) == len(set(asked)), "an address is asked about once, however many connections it has"
    watch.look()
    assert watch.ended_count == 2
    for sock in (*gone, *kept, unconnected):
        sock.close()
