"""From rounds to rows and gates.

A ratio is the median of the rounds' ratios, ours over theirs: the machine's mood is the same within a round
and not from one to the next.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.mesh_pair.rounds import CLOSED_50, KINDS, RATE_500, STREAM, Kind, Measured, Results

OURS: Final = "ours"
PEERS: Final = ("envoy", "envoy_plain", "haproxy")
CPU_RATIO_MAX: Final = 2.8
P99_RATIO_MAX: Final = 1.2
THROUGHPUT_RATIO_MIN: Final = 0.5
IDLE_MB_MAX: Final = 32.0

Row = dict[str, Any]
Series = Sequence[float | None]


@dataclass(frozen=True)
class Gate:
    """One bound; `figure` None: not measured."""

    name: str
    figure: float | None
    bound: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Tell whether it was measured and holds."""
        if self.figure is None:
            return False
        return self.figure >= self.bound if self.least else self.figure <= self.bound

    def told(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        sign = ">=" if self.least else "<="
        return {"name": self.name, "figure": self.figure, "bound": f"{sign} {self.bound:g}", "met": self.met}


def verdict(results: Results) -> Row:
    """Return the whole JSON object; `ok` when every gate was measured and is met."""
    rows = [build_row(kind, results) for kind in KINDS if kind.key in results.rounds]
    held = gates(results)
    return {
        "ok": all(gate.met for gate in held),
        "rows": [*rows, *memory_rows(results)],
        "gates": [gate.told() for gate in held],
    }


def gates(results: Results) -> list[Gate]:
    """Return the bounds and what was measured of them."""
    idle = results.idle.get(OURS)
    failed = sum(one.failed for pairs in results.rounds.values() for one in pairs[OURS])
    return [
        Gate("http1, 50 connections: CPU a request, of Envoy's", _cpu(results, CLOSED_50), CPU_RATIO_MAX),
        Gate("http1, 500 a second: p99, of Envoy's", _p99(results, RATE_500), P99_RATIO_MAX),
        Gate("tcp: MB/s, of Envoy's", _rate(results, STREAM), THROUGHPUT_RATIO_MIN, least=True),
        Gate("engine at rest, RSS MB", None if idle is None else idle.rss_mb, IDLE_MB_MAX),
        Gate("our failed requests", failed if results.rounds else None, 0),
    ]


def _cpu(results: Results, kind: Kind, peer: str = "envoy") -> float | None:
    return _ratio(results, kind, peer, lambda one: one.cpu_us)


def _p99(results: Results, kind: Kind, peer: str = "envoy") -> float | None:
    return _ratio(results, kind, peer, lambda one: one.p99_ms)


def _rate(results: Results, kind: Kind, peer: str = "envoy") -> float | None:
    return _ratio(results, kind, peer, lambda one: one.rate_per_s)


def _ratio(
    results: Results, kind: Kind, peer: str, figure: Callable[[Measured], float | None]
) -> float | None:
    pairs = results.rounds.get(kind.key, {})
    if OURS not in pairs or peer not in pairs:
        return None
    return ratio_median([figure(one) for one in pairs[OURS]], [figure(one) for one in pairs[peer]])


def ratio_median(ours: Series, theirs: Series) -> float | None:
    """Return the median of the rounds' ratios; None when a round lacks a figure or divides by zero."""
    if not ours or len(ours) != len(theirs) or None in ours or not all(theirs):
        return None
    return statistics.median(
        mine / other
        for mine, other in zip(ours, theirs, strict=True)
        if mine is not None and other is not None
    )


def build_row(kind: Kind, results: Results) -> Row:
    """Return one load's row: medians of each pair, ratios, and the range in words."""
    pairs = results.rounds[kind.key]
    opened = [one.notes.get("connections", 0) for one in pairs[OURS]]
    connections = kind.connections or round(max(opened, default=0))  # of a fixed rate: as many as it took
    row: Row = {"protocol": kind.protocol, "connections": connections, "unit": kind.unit}
    for name, measured in pairs.items():
        row[f"{name}_cpu_us"] = _rounded(statistics.median(one.cpu_us for one in measured))
    for peer in PEERS:
        row[f"ratio_{peer}"] = _rounded(_cpu(results, kind, peer))
    row["rate_per_s"] = kind.per_s or _rounded(statistics.median(one.rate_per_s for one in pairs[OURS]))
    row["rate_ratio_envoy"] = _rounded(_rate(results, kind))
    row["p99_ratio_envoy"] = _rounded(_p99(results, kind))
    for name, measured in pairs.items():
        for percent in ("p50_ms", "p99_ms"):
            row[f"{name}_{percent}"] = _median_or_none([getattr(one, percent) for one in measured])
    row["rss_mb"] = _rounded(max(one.rss_mb for one in pairs[OURS]))
    row["evidence"] = evidence(kind, pairs)
    return row


def memory_rows(results: Results) -> list[Row]:
    """Return a row for memory at rest and one for memory after fifty busy connections."""
    rows = []
    for name, held in (("memory at rest", results.idle), (f"memory after {CLOSED_50.key}", results.loaded)):
        if OURS not in held:
            continue
        row: Row = {"protocol": name, "connections": None, "rss_mb": _rounded(held[OURS].rss_mb)}
        row |= {f"{pair}_pss_mb": _rounded(memory.pss_mb) for pair, memory in held.items()}
        told = ", ".join(f"{pair} {memory.rss_mb:.1f} MB" for pair, memory in held.items())
        rows.append(row | {"evidence": f"Pss of both processes; the larger's RSS: {told}"})
    return rows


def evidence(kind: Kind, pairs: dict[str, list[Measured]]) -> str:
    """Return the rounds' smallest and largest figures of each pair."""
    words = [f"{len(pairs[OURS])} rounds, us CPU a {kind.unit}"]
    for name, measured in pairs.items():
        figures = [one.cpu_us for one in measured]
        words.append(f"{name} {min(figures):.0f} to {max(figures):.0f}")
    words.append(f"failed: {sum(one.failed for measured in pairs.values() for one in measured)}")
    return "; ".join(words)


def _median_or_none(figures: Series) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return _rounded(statistics.median(known)) if known and len(known) == len(figures) else None


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 3 if abs(figure) < 10 else 1)
