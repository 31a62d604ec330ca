"""A small server that runs out of descriptors lives, serves who asks, and says little about it."""

import errno
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio

from gossipmesh.model.member import Address
from gossipmesh.net.places import Party, Place
from gossipmesh.net.reception import Reception
from gossipmesh.net.streams import listen
from gossipmesh.testing.floods import client_hello

DESCRIPTORS = 40
CROWD = 120
PROGRAM = """
import logging, resource, sys, trio
from pathlib import Path
from gossipmesh.agent.admin.admin_api import listen_local
from gossipmesh.agent.admin.http_server import HttpServer, json_response
from gossipmesh.control.roots import Plan, create_authority
from gossipmesh.control.server import AuthorityServer
from gossipmesh.model.member import Address
from gossipmesh.net.clock import wall_seconds
from gossipmesh.net.entropy import random_bytes
from gossipmesh.net.streams import listen

kind, folder, few = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
logging.basicConfig(level=logging.INFO)
at = Address("127.0.0.1", 0)

async def answer(request):
    return json_response(request.path)

async def main():
    if kind == "authority":
        authority = create_authority(Plan("mesh.test", folder / "a", dev=True), wall_seconds(), random_bytes)
        server = AuthorityServer(authority, clock=wall_seconds, entropy=random_bytes,
                                 report=lambda line: print(line, file=sys.stderr, flush=True))
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))  # when its places are counted already
        async with trio.open_nursery() as nursery:
            print((await nursery.start(server.run, at)).port, flush=True)
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))
    if kind == "socket":
        server = listen_local(folder / "s", answer)
        print(0, flush=True)
        await server.run()
    else:
        listener = listen(at)
        print(listener.getsockname()[1], flush=True)
        await HttpServer(listener, answer).run()

trio.run(main)
"""


@contextmanager
def short_server(kind: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str | tuple[str, int]]]:
    """Run a server in a process with few descriptors; yield it and where it listens."""
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, kind, str(folder), str(DESCRIPTORS)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield process, str(folder / "s") if kind == "socket" else ("127.0.0.1", port)
    finally:
        process.kill()
        process.communicate()


def connected(where: str | tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
    sock.settimeout(20)
    sock.connect(where)
    return sock


@pytest.mark.parametrize("kind", ["http", "socket", "authority"])
def test_who_asks_is_served_though_a_crowd_took_every_descriptor(tmp_path: Path, kind: str) -> None:
    with short_server(kind, tmp_path) as (process, where), ExitStack() as stack:
        for _ in range(2):
            for _ in range(CROWD // 2):
                stack.enter_context(connected(where))
            if kind == "authority":
                assert answered_hello(where)
            else:
                assert b" 200 " in asked(where)
        assert process.poll() is None
    said = (tmp_path / "stderr").read_text()
    assert "descriptors short" in said
    assert "Traceback" not in said
    assert len(said.splitlines()) < 40, "told at 1, 2, 4, 8, ..."


def asked(where: str | tuple[str, int]) -> bytes:
    with connected(where) as sock:
        sock.sendall(b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return sock.recv(1_000)


def answered_hello(where: str | tuple[str, int]) -> bool:
    """Tell whether the other end answers a TLS client's first message with a handshake record."""
    with connected(where) as sock:
        sock.sendall(client_hello("authority"))
        return sock.recv(1) == b"\x16"


class Short(socket.socket):
    """A listening socket whose process has no descriptor left for a while."""

    lacking = 0

    def accept(self) -> tuple[socket.socket, object]:
        if self.lacking:
            self.lacking -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


async def serve_short(*, busy: bool) -> tuple[Counter[str], list[bytes]]:
    """Let three come, then one when there is no descriptor; return what was counted, and how it went on."""
    plain = listen(Address("127.0.0.1", 0))
    listener = Short(fileno=plain.detach())
    listener.setblocking(False)
    reception = Reception("small", lambda _: None, places_max=8)
    came = 0

    async def converse(stream: trio.SocketStream, place: Place) -> None:
        nonlocal came
        came += 1
        if busy:
            place.begin()
        await stream.receive_some()

    def party_of(_stream: trio.SocketStream) -> Party:
        return ("uid", "1")

    ends: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reception.run, listener, party_of, converse)
        where = listener.getsockname()
        streams = [await trio.open_tcp_stream(*where) for _ in range(3)]
        while came < 3:
            await trio.lowlevel.checkpoint()
        listener.lacking = 1
        last = await trio.open_tcp_stream(*where)
        for stream in [last] if busy else streams:
            try:
                ends.append(await stream.receive_some())
            except trio.BrokenResourceError:
                ends.append(b"reset")
        for stream in (*streams, last):
            await stream.aclose()
        nursery.cancel_scope.cancel()
    assert listener.fileno() < 0
    return reception.counts, ends


async def test_who_says_nothing_makes_way_for_a_descriptor(autojump_clock: object) -> None:
    counts, ends = await serve_short(busy=False)
    assert ends == [b""] * 3
    assert counts["small_descriptors_short"] == 1
    assert counts["small_evicted_unfinished"] == 3


async def test_when_all_are_busy_who_comes_is_let_go_of(autojump_clock: object) -> None:
    """By the descriptor that is kept for it."""
    counts, ends = await serve_short(busy=True)
    assert ends in ([b""], [b"reset"])
    assert counts["small_refused_descriptors"] == 1
