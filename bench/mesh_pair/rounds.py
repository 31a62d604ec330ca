"""Interleaved rounds: every load on every pair in turn, each round beginning with another pair."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.mesh_pair.load import FixedRate, Load, new_connections, throughput, wrk
from bench.mesh_pair.places import Target
from bench.processes import cpu_s, pss_mb, rss_mb

WARM_UP_S: Final = 1
WARM_UP_CONNECTIONS: Final = 50


@dataclass(frozen=True)
class Kind:
    """One load. `connections` is None where it opens as many as it needs; `per_s` is a fixed rate."""

    key: str
    protocol: str
    connections: int | None
    unit: str
    per_s: int | None = None


CLOSED_50: Final = Kind("http1-c50", "http1", 50, "request")
CLOSED_8: Final = Kind("http1-c8", "http1", 8, "request")
RATE_200: Final = Kind("http1-200", "http1", None, "request", 200)
RATE_500: Final = Kind("http1-500", "http1", None, "request", 500)
CONNECTS: Final = Kind("tcp-new", "tcp-new", 1, "connection")
STREAM: Final = Kind("tcp", "tcp", 1, "MB")
KINDS: Final = (CLOSED_50, CLOSED_8, RATE_200, RATE_500, CONNECTS, STREAM)


@dataclass(frozen=True)
class Measured:
    """One load on one pair in one round: `cpu_us` of both proxies a unit, user and system."""

    cpu_us: float
    rate_per_s: float
    failed: int
    p50_ms: float | None
    p99_ms: float | None
    rss_mb: float
    notes: dict[str, float]


@dataclass(frozen=True)
class Memory:
    """A pair's memory in MB: shared pages counted once for both, and the larger process alone."""

    pss_mb: float
    rss_mb: float


@dataclass
class Results:
    """Everything measured: by load and pair, one figure a round in order."""

    rounds: dict[str, dict[str, list[Measured]]]
    idle: dict[str, Memory]
    loaded: dict[str, Memory]


Say = Callable[[str], None]


def run_rounds(
    targets: Sequence[Target], kinds: Sequence[Kind], count: int, seconds: float, say: Say
) -> Results:
    """Return `count` rounds of `kinds`, each load lasting about `seconds`; memory before and after."""
    results = Results(
        {kind.key: {target.name: [] for target in targets} for kind in kinds},
        {target.name: memory(target) for target in targets},
        {},
    )
    for target in targets:
        wrk(target.http, WARM_UP_CONNECTIONS, WARM_UP_S)
    for number in range(count):
        turn = number % len(targets)
        for kind in kinds:
            for target in (*targets[turn:], *targets[:turn]):
                measured = measure(kind, target, seconds)
                results.rounds[kind.key][target.name].append(measured)
                say(f"round {number + 1}, {kind.key}, {target.name}: {told(kind, measured)}")
                if kind is CLOSED_50:
                    results.loaded[target.name] = memory(target)
    return results


def measure(kind: Kind, target: Target, seconds: float) -> Measured:
    """Put one load on one pair.

    Raises:
        RuntimeError: the pair did none of it, or the stream broke.
    """
    before = cpu_s(target.pids)
    load = put(kind, target, seconds)
    used_us = (cpu_s(target.pids) - before) * 1e6
    if not load.units:
        raise RuntimeError(f"{target.name} answered nothing of {kind.key}; {load.failed} failed")
    return Measured(
        cpu_us=used_us / load.units,
        rate_per_s=load.units / load.elapsed_s,
        failed=load.failed,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        rss_mb=max(rss_mb(pid) for pid in target.pids),
        notes=load.notes,
    )


def put(kind: Kind, target: Target, seconds: float) -> Load:
    """Run the load that `kind` names."""
    if kind.per_s is not None:
        return FixedRate(target.http, kind.per_s, max(1, round(kind.per_s * seconds))).run()
    if kind is CONNECTS:
        return new_connections(target.tcp, seconds)
    if kind is STREAM:
        return throughput(target.tcp, seconds)
    return wrk(target.http, kind.connections or 1, seconds)


def memory(target: Target) -> Memory:
    """Return what a pair holds now."""
    return Memory(sum(pss_mb(pid) for pid in target.pids), max(rss_mb(pid) for pid in target.pids))


def told(kind: Kind, measured: Measured) -> str:
    """Return one figure in words."""
    text = f"{measured.cpu_us:.0f} us CPU a {kind.unit}, {measured.rate_per_s:.0f}/s"
    if measured.p99_ms is not None:
        text += f", p50 {measured.p50_ms:.2f}, p99 {measured.p99_ms:.2f} ms"
    for name, value in measured.notes.items():
        text += f", {name} {value:.2f}"
    return text + (f", {measured.failed} FAILED" if measured.failed else "")
