"""Enrolments at an authority that others flood: 200 connections that say nothing, and as many requests as go.

    python -m bench.authority_flood [--seconds 8] [--rate 1000] [--json]

The flood comes from 127.0.0.2, in processes of its own; who enrols comes from 127.0.0.1 and waits for each
answer. Loopback and one machine: client and server share its cores, so the rate reached is told as well.
"""

import argparse
import json
import multiprocessing
import ssl
import statistics
import tempfile
from pathlib import Path
from typing import Final

import msgspec
import trio

from gossipmesh.agent.identity.enrolment import enrol
from gossipmesh.control.issuing import Issuer
from gossipmesh.control.ledger import Ledger
from gossipmesh.control.roots import Plan, create_authority
from gossipmesh.control.server import AuthorityServer
from gossipmesh.control.tokens import TokenOrder
from gossipmesh.model.member import Address
from gossipmesh.net.clock import wall_seconds
from gossipmesh.net.entropy import random_bytes
from gossipmesh.net.secret_files import write_file

FLOOD_HOST: Final = "127.0.0.2"
SILENT_COUNT: Final = 200
_REQUEST_BODY: Final = json.dumps(
    {"spiffe_id": "spiffe://mesh.test/node/n1", "requests": [], "issued": 0, "serial": 1}
).encode()
_REQUEST: Final = (
    b"POST /v1/renew HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(_REQUEST_BODY) + _REQUEST_BODY
)


def main() -> None:
    """Run the flood and print how long enrolments took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rate", type=float, default=1_000.0, help="Requests a second that are tried.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = trio.run(measure, Path(folder), options.seconds, options.rate)
    print(json.dumps(told) if options.json else "\n".join(f"{key}: {value}" for key, value in told.items()))


async def measure(folder: Path, seconds: float, rate: float) -> dict[str, float]:
    """Return how long enrolments took with nobody else there, and during the flood; milliseconds."""
    authority = create_authority(
        Plan("mesh.test", folder / "authority", dev=True), wall_seconds(), random_bytes
    )
    server = AuthorityServer(authority, clock=wall_seconds, entropy=random_bytes, report=lambda _: None)
    issuer = Issuer(authority, Ledger(authority.directory), random_bytes)
    async with trio.open_nursery() as nursery:
        address: Address = await nursery.start(server.run, Address("127.0.0.1", 0))
        calm_ms = await _enrolments(folder, "calm", issuer, address, 3.0)
        before = server.statistics.refused + server.statistics.busy
        flood = multiprocessing.get_context("spawn").Process(
            target=flood_it, args=(address.port, rate, seconds + 3)
        )
        flood.start()
        await trio.sleep(2)
        started_s = trio.current_time()
        busy_ms = await _enrolments(folder, "busy", issuer, address, seconds)
        took_s = trio.current_time() - started_s
        answered = server.statistics.refused + server.statistics.busy - before
        await trio.to_thread.run_sync(flood.join)
        nursery.cancel_scope.cancel()
    return {
        "calm_median_ms": round(statistics.median(calm_ms), 1),
        "enrolments_in_flood": len(busy_ms),
        "flood_median_ms": round(statistics.median(busy_ms), 1),
        "flood_max_ms": round(max(busy_ms), 1),
        "flood_answers_per_s": round(answered / took_s, 1),
    }


async def _enrolments(
    folder: Path, name: str, issuer: Issuer, address: Address, seconds: float
) -> list[float]:
    """Enrol one node after the other for so long; return how long each took, in milliseconds."""
    took_ms: list[float] = []
    ends_s = trio.current_time() + seconds
    while trio.current_time() < ends_s:
        node = f"{name}{len(took_ms)}"
        order = TokenOrder(address, node, (), 600)
        token = folder / f"{node}.token"
        made = await trio.to_thread.run_sync(issuer.create_token, order, wall_seconds())
        write_file(token, msgspec.json.encode(made), mode=0o600)
        started_s = trio.current_time()
        await enrol(folder / node, token)
        took_ms.append(1_000 * (trio.current_time() - started_s))
    return took_ms


def flood_it(port: int, rate: float, seconds: float) -> None:
    """Hold silent connections and ask without end; runs in a process of its own."""
    trio.run(_flood, port, rate, seconds)


async def _flood(port: int, rate: float, seconds: float) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    held: list[trio.SocketStream] = []

    async def connect() -> trio.SocketStream:
        sock = trio.socket.socket()
        await sock.bind((FLOOD_HOST, 0))
        await sock.connect(("127.0.0.1", port))
        return trio.SocketStream(sock)

    async def ask() -> None:
        try:
            with trio.move_on_after(5):
                async with await connect() as stream:
                    tls = trio.SSLStream(stream, context, https_compatible=True)
                    await tls.send_all(_REQUEST)
                    await tls.receive_some(1_000)
        except (OSError, trio.BrokenResourceError):
            return

    with trio.move_on_after(seconds):
        for _ in range(SILENT_COUNT):
            held.append(await connect())
        async with trio.open_nursery() as nursery:
            started_s, asked_count = trio.current_time(), 0
            while True:
                while asked_count < (trio.current_time() - started_s) * rate:
                    nursery.start_soon(ask)
                    asked_count += 1
                await trio.sleep(0.005)


if __name__ == "__main__":
    main()
