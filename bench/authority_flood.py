"""Enrolments at an authority that others flood: 200 connections that say nothing, and as many requests as go.

    python -m bench.authority_flood [--seconds 8] [--rate 1000] [--addresses 1] [--runs 1] [--json]

The authority is `gossipmesh authority serve` in a process of its own; the flood comes from 127.0.0.2 (and the
addresses after it) in others; this process enrols from 127.0.0.1, one node after the other. All share this
machine's cores: the authority has the first and the flood the last, because it stands for machines elsewhere;
how many requests it began and got answered is told as well. The rate is of all addresses together; of each
flooding process 400 are under way at once, at most: with more a client in Python is busy with itself.
"""

import argparse
import json
import multiprocessing
import os
import random
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import trio

from bench.processes import pin, wait_listening
from gossipmesh.agent.identity.enrolment import enrol
from gossipmesh.control.issuing import Issuer
from gossipmesh.control.ledger import Ledger
from gossipmesh.control.roots import Authority, Plan, create_authority
from gossipmesh.control.tokens import TokenOrder
from gossipmesh.model.member import Address
from gossipmesh.net.clock import wall_seconds
from gossipmesh.net.entropy import random_bytes
from gossipmesh.net.secret_files import write_file

SILENT_COUNT: Final = 200
FLOODERS: Final = 2
CALM_S: Final = 3.0
WARMING_S: Final = 2.0
ENDING_S: Final = 10.0
_FIRST_HOST: Final = 2
_PATIENCE_S: Final = 5.0
_UNDER_WAY_MAX: Final = 400
_TICK_S: Final = 0.005
_REQUEST_BODY: Final = json.dumps(
    {"spiffe_id": "spiffe://mesh.test/node/n1", "requests": [], "issued": 0, "serial": 1}
).encode()
_REQUEST: Final = (
    b"POST /v1/renew HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(_REQUEST_BODY) + _REQUEST_BODY
)
Counts = tuple[int, int]
"""Requests begun, and answers got."""


def main() -> None:
    """Run the flood so many times, and print how long enrolments took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rate", type=float, default=1_000.0, help="Requests a second that are tried.")
    parser.add_argument("--addresses", type=int, default=1, help="How many the flood comes from.")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(Path(folder), options.seconds, options.rate, options.addresses))
        if not options.json:
            print(", ".join(f"{key} {value}" for key, value in runs[-1].items()), flush=True)
    worst_ms = max(run["flood_max_ms"] for run in runs)
    if options.json:
        print(json.dumps({"addresses": options.addresses, "worst_ms": worst_ms, "runs": runs}))
    else:
        print(f"the slowest of {options.runs} runs: {worst_ms} ms")


def measure(folder: Path, seconds: float, rate: float, addresses: int) -> dict[str, float]:
    """Return how long enrolments took with nobody else there, and during the flood; milliseconds."""
    authority = create_authority(
        Plan("mesh.test", folder / "authority", dev=True), wall_seconds(), random_bytes
    )
    address = Address("127.0.0.1", random.SystemRandom().randrange(20_000, 30_000))
    with serving(folder, address):
        calm_ms = trio.run(_enrolments, folder, "calm", authority, address, CALM_S)
        with multiprocessing.get_context("spawn").Pool(FLOODERS) as pool:
            hosts = [f"127.0.0.{_FIRST_HOST + number}" for number in range(addresses)]
            lasts_s = WARMING_S + seconds + 1
            work = [(address.port, hosts, rate / FLOODERS, lasts_s) for _ in range(FLOODERS)]
            flood = pool.starmap_async(flood_it, work)
            flood.wait(WARMING_S)
            flood_ms = trio.run(_enrolments, folder, "busy", authority, address, seconds)
            counts = flood.get()
    began, answered = (sum(column) / lasts_s for column in zip(*counts, strict=True))
    return {
        "calm_median_ms": round(statistics.median(calm_ms), 1),
        "enrolments_in_flood": len(flood_ms),
        "flood_median_ms": round(statistics.median(flood_ms), 1),
        "flood_max_ms": round(max(flood_ms), 1),
        "flood_requests_per_s": round(began, 1),
        "flood_answers_per_s": round(answered, 1),
    }


@contextmanager
def serving(folder: Path, address: Address) -> Iterator[None]:
    """Serve the authority in `folder` by the command, in a process of its own."""
    command = [sys.executable, "-m", "gossipmesh.cli.main", "authority", "serve"]
    words = [*command, "--dir", str(folder / "authority"), "--bind", str(address)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_listening(address, process)
            pin(process.pid, min(os.sched_getaffinity(0)))
            yield
        finally:
            process.terminate()
            try:
                process.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                process.kill()


async def _enrolments(
    folder: Path, name: str, authority: Authority, address: Address, seconds: float
) -> list[float]:
    """Enrol one node after the other for so long; return how long each took, in milliseconds."""
    issuer = Issuer(authority, Ledger(authority.directory), random_bytes)
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


def flood_it(port: int, hosts: list[str], rate: float, seconds: float) -> Counts:
    """Hold silent connections and ask without end, from each host in turn; runs in a process of its own."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return trio.run(_flood, port, hosts, rate, seconds)


async def _flood(port: int, hosts: list[str], rate: float, seconds: float) -> Counts:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    held: list[trio.SocketStream] = []
    began = answered = under_way = 0

    async def connect(number: int) -> trio.SocketStream:
        sock = trio.socket.socket()
        await sock.bind((hosts[number % len(hosts)], 0))
        await sock.connect(("127.0.0.1", port))
        return trio.SocketStream(sock)

    async def ask(number: int) -> None:
        nonlocal answered, under_way
        try:
            with trio.move_on_after(_PATIENCE_S):
                async with await connect(number) as stream:
                    tls = trio.SSLStream(stream, context, https_compatible=True)
                    await tls.send_all(_REQUEST)
                    answered += bool(await tls.receive_some(1_000))
        except (OSError, trio.BrokenResourceError):
            return
        finally:
            under_way -= 1

    with trio.move_on_after(seconds):
        for number in range(SILENT_COUNT // FLOODERS):
            held.append(await connect(number))
        async with trio.open_nursery() as nursery:
            due = 0.0
            while True:
                due = min(due + rate * _TICK_S, 2 * rate * _TICK_S)
                while due >= 1 and under_way < _UNDER_WAY_MAX:
                    under_way += 1
                    nursery.start_soon(ask, began)
                    began, due = began + 1, due - 1
                await trio.sleep(_TICK_S)
    return began, answered


if __name__ == "__main__":
    main()
