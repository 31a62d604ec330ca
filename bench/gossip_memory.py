"""What one gossip core costs in memory, and its longest step, while it joins a mesh that exists on paper.

`python -m bench.gossip_memory [MEMBERS] [--keys] [--trace]`: this process is the peer that knows every
member; a child process is the newcomer, so that its memory is its own. With `--keys` each member signs which
TLS keys it uses, two for each of four identities. They exchange real bytes in virtual time.
Bytes a member are of memory that is no file's page. Ends with one object of JSON. `--trace` says what the
objects are (tracemalloc, slow).
"""

import argparse
import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import IO, Any

from bench.gossip_swarm import paper_swarm
from bench.processes import anonymous_mb, peak_mb, rss_mb
from gossipmesh.gossip import rehearsal
from gossipmesh.gossip.base.effects import (
    CloseStream,
    OpenStream,
    Persist,
    SendDatagram,
    SendStream,
    StreamId,
)
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model import limits
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.net.collector import calm_collector
from gossipmesh.wire.codec import encode, unpack_untrusted

_TICK_NS = MILLISECOND_NS
_SECONDS_MAX = 60
_PEER = 1_000_000
_NEWCOMER = 1_000_001
_PINS_EACH = 2  # the key in use, and the next


class Host:
    """One core whose steps are timed, and the translation of its effects for the other side."""

    def __init__(self, node: GossipNode, other: str) -> None:
        self.node = node
        self.other = other
        self.steps: list[float] = []
        self.longest: tuple[float, str, int] = (0.0, "", 0)
        self.out: list[Any] = []
        self._streams: dict[int, int] = {}
        self._next = 1

    def run(self, call: Any, *arguments: Any) -> None:
        """Step the core and keep what is for the other side; what it writes is on disk at once."""
        begin = time.thread_time()
        effects = call(*arguments)
        spent = time.thread_time() - begin  # a busy machine is not our stall
        self.longest = max(self.longest, (spent, call.__name__, len(self.steps)))
        self.steps.append(spent)
        ticket = 0
        for effect in effects:
            match effect:
                case Persist():
                    ticket = effect.ticket or ticket
                case SendDatagram() if str(effect.destination) == self.other:
                    self.out.append(("datagram", effect.payload))
                case OpenStream():
                    kind = "accepted" if str(effect.destination) == self.other else "refused"
                    self.out.append((kind, effect.stream))
                case SendStream():
                    self.out.append(("bytes", effect.stream, effect.payload))
                case CloseStream():
                    self.out.append(("closed", effect.stream))
                case _:
                    pass
        if ticket:
            self.run(self.node.persisted, ticket, arguments[-1])

    def take(self, item: Any, now: Instant, sender: Any) -> None:
        """Feed what the other side sent; its stream numbers become ours."""
        match item:
            case ["datagram", payload]:
                self.run(self.node.receive_datagram, payload, sender, now)
            case ["accepted", theirs]:
                number, self._next = self._next, self._next + 2
                self._streams[number], self._streams[-theirs] = theirs, number
                self.run(self.node.stream_accepted, StreamId(number), sender, now)
                self.out.append(("opened", theirs))
            case ["opened", stream]:
                self.run(self.node.stream_opened, StreamId(stream), now)
            case ["bytes", stream, payload]:
                self.run(self.node.receive_stream, StreamId(stream), payload, now)
            case ["closed", stream]:
                self.run(self.node.stream_closed, StreamId(stream), now)

    def deadlines(self, now: Instant) -> None:
        """Do what is due, one deadline at a time as a shell would."""
        while (due := self.node.next_deadline()) <= now:
            self.run(self.node.handle_deadline, due)

    def drain(self, now: Instant) -> list[Any]:
        """Return what is for the other side, stream numbers as it knows them."""
        out, self.out = self.out, []
        translated = []
        for kind, *rest in out:
            if kind in ("bytes", "closed") and rest[0] in self._streams:
                rest[0] = self._streams[rest[0]]
            elif kind in ("bytes", "closed"):
                rest[0] = -rest[0]
            if kind == "refused":
                self.run(self.node.stream_closed, StreamId(rest[0]), now)
                continue
            translated.append((kind, *rest))
        return translated

    def ours(self, item: Any) -> Any:
        """Return an item with our number for a stream the other side opened."""
        if item[0] in ("bytes", "closed") and item[1] < 0:
            return (item[0], self._streams.get(item[1], 0), *item[2:])
        return item


def _tell(pipe: IO[bytes], value: Any) -> None:
    data = encode(value)
    pipe.write(len(data).to_bytes(4, "big") + data)
    pipe.flush()


def _hear(pipe: IO[bytes]) -> Any:
    size = int.from_bytes(pipe.read(4), "big")
    return unpack_untrusted(pipe.read(size), bytes_max=limits.ENGINE_FRAME_BYTES_MAX)


def _advance(host: Host, inbound: list[Any], now: Instant, sender: Any) -> list[Any]:
    host.deadlines(now)
    for item in inbound:
        host.take(host.ours(item), now, sender)
    return host.drain(now)


def newcomer(members: int, *, pins_each: int, trace: bool) -> None:
    """Join by the peer at the other end of stdin and stdout, then report."""
    swarm = paper_swarm(pins_each)
    us, peer = swarm.identity(_NEWCOMER), swarm.identity(_PEER)
    host = Host(swarm.node(_NEWCOMER), str(peer.address))
    calm_collector()
    before_mb = anonymous_mb(os.getpid())
    if trace:
        tracemalloc.start()
    now = Instant(SECOND_NS)
    host.run(host.node.start, [peer.address], now)
    outbound = host.drain(now)
    cpu = time.process_time()
    while host.node.statistics().members < members + 2 or host.node.statistics().repairs_completed == 0:
        now = Instant(now + _TICK_NS)
        _tell(sys.stdout.buffer, [now, outbound])
        outbound = _advance(host, _hear(sys.stdin.buffer), now, peer.address)
        if now > _SECONDS_MAX * SECOND_NS:
            break
    steps = sorted(host.steps)
    report = {
        "members": host.node.statistics().members,
        "virtual_s": round((now - SECOND_NS) / SECOND_NS, 3),
        "cpu_s": round(time.process_time() - cpu, 2),
        "anonymous_before_mb": round(before_mb, 1),
        "anonymous_mb": round(anonymous_mb(os.getpid()), 1),
        "rss_mb": round(rss_mb(os.getpid()), 1),
        "rss_peak_mb": round(peak_mb(os.getpid()), 1),
        "bytes_per_member": round((anonymous_mb(os.getpid()) - before_mb) * 1e6 / members),
        "step_ms_p99": round(steps[int(len(steps) * 0.99)] * 1e3, 2),
        "step_ms_max": round(steps[-1] * 1e3, 2),
        "longest": f"{host.longest[1]}, step {host.longest[2]}",
        "steps_over_5_ms": sum(step > 0.005 for step in steps),
        "steps": len(steps),
        "signature_checks": host.node.statistics().signature_checks,
        "queue": host.node.statistics().queue_length,
        "repairs_started": host.node.statistics().repairs_started,
        "bytes_received": host.node.statistics().stream_bytes_received,
        "us": us.name,
    }
    if trace:
        report["traced_bytes_per_member"] = round(tracemalloc.get_traced_memory()[0] / members)
        report["by_line"] = _by_line(members)
    _tell(sys.stdout.buffer, report)


def _by_line(members: int) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for entry in tracemalloc.take_snapshot().statistics("lineno"):
        frame = entry.traceback[0]
        sizes[f"{Path(frame.filename).name}:{frame.lineno}"] += entry.size
    return {name: round(size / members) for name, size in sizes.most_common(24)}


def main() -> None:
    """Serve a newcomer in a child process and print what it reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("members", type=int, nargs="?", default=9_998)
    parser.add_argument("--keys", action="store_true", help="each member has a key set")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--newcomer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    pins_each = _PINS_EACH if options.keys else 0
    if options.newcomer:
        newcomer(options.members, pins_each=pins_each, trace=options.trace)
        return
    swarm = paper_swarm(pins_each)
    kept = tuple(swarm.records_of(number) for number in range(options.members))
    us = swarm.identity(_NEWCOMER)
    begin = time.perf_counter()
    host = Host(swarm.node(_PEER, kept), str(us.address))
    restored_s = time.perf_counter() - begin
    host.run(host.node.start, [], Instant(SECOND_NS))
    # As after its own join: the peer has somebody to compare with and does not begin with the newcomer.
    rehearsal.end_joining(host.node)
    host.steps.clear()
    host.out.clear()
    arguments = [sys.executable, "-m", "bench.gossip_memory", str(options.members), "--newcomer"]
    child = subprocess.Popen(
        arguments + ["--trace"] * options.trace + ["--keys"] * options.keys,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    while not isinstance(item := _hear(child.stdout), dict):
        now, inbound = item
        _tell(child.stdin, _advance(host, inbound, now, us.address))
    child.wait()
    item["server_step_ms_max"] = round(max(host.steps) * 1e3, 2)
    item["restore_s"] = round(restored_s, 2)
    item["records_bytes"] = round(sum(len(value) for _, value in kept) / len(kept))
    print(json.dumps(item, indent=1))


if __name__ == "__main__":
    main()
