"""Kinship's grid on the page: rows that sum its cells up, and the table of every cell beside SWIM's."""

from collections.abc import Callable, Iterable
from typing import Final

from bench.gossip.row import NOT_MEASURED, PUBLISHED, VIRTUAL, Raw, Row

GRID_CELLS: Final = 24
GRID_SEEDS: Final = 20
OTHER: Final = "SWIM + Lifeguard, same simulator"


def grid_rows(results: Raw) -> list[Row]:
    """Kinship's grid: false deaths, false votes, bytes and detection, with some readers starved."""
    ours, swim = _cells(results, "monitors"), _cells(results, "swim")
    slow = [cell for cell in ours if cell["starved"] == 10]
    slow_swim = [cell for cell in swim if cell["starved"] == 10]
    runs = "; ".join(
        f"{size} nodes: {_runs(cell for cell in ours if cell['nodes'] == size)}" for size in _sizes(ours)
    )
    evidence = f"`simulator grid`, this core's runs only ({runs or 'none'}); 120 s, a crash at 60 s"
    each = f"{evidence}; cell by cell below"
    return [
        Row(
            figure="G5",
            name="runs with a false death in kinship's grid",
            clock=VIRTUAL,
            ours=_deaths(ours),
            peer=f"{OTHER}: {_deaths(swim)}",
            gate=f"0 ({GRID_SEEDS} seeds in each of {GRID_CELLS} cells)",
            met=_grid_met(ours),
            evidence=f"{evidence}; fewest runs in a cell: {min((cell['runs'] for cell in ours), default=0)}",
        ),
        Row(
            figure="G6",
            name="false votes (SWIM: suspicions) a run, 10 % starved",
            clock=VIRTUAL,
            ours=_spread(slow, _doubts, "g", "a run"),
            peer=f"{OTHER}: {_spread(slow_swim, _doubts, 'g', 'a run')}",
            gate="<= 5 with 50 nodes",
            met=all(_doubts(cell) <= 5 for cell in slow if cell["nodes"] == 50) if slow else None,
            evidence=each,
        ),
        Row(
            figure="G13",
            name="bytes a node sends, 10 % starved",
            clock=VIRTUAL,
            ours=_spread(slow, _bytes, ",", "B/s"),
            peer=f"{OTHER}: {_spread(slow_swim, _bytes, ',', 'B/s')}",
            gate="<= 1,500 B/s with kernel stamps, <= 2,100 without",
            met=all(_bytes(cell) <= (1_500 if cell["stamped"] else 2_100) for cell in slow) if slow else None,
            evidence=each,
        ),
        Row(
            figure="G2",
            name="silent host in kinship's grid, every node's knowing",
            clock=VIRTUAL,
            ours=_known(ours),
            peer=f"{OTHER}: {_known(swim)}",
            gate=PUBLISHED,
            met=None,
            evidence=f"{each}; with starved readers the slow ones know last",
        ),
    ]


def grid_table(results: Raw) -> str:
    """Return a section of the page: each cell beside SWIM + Lifeguard's; empty where nothing was run."""
    ours, swim = _cells(results, "monitors"), _cells(results, "swim")
    if not ours:
        return ""
    beside = {_place(cell): cell for cell in swim}
    lines = [
        "## Kinship's grid",
        "",
        "One machine loses power; a share of the others reads everything 0.5 to 2.5 s late. First: when the",
        "first node knew; every: when each did, p50 / p99 / last of all nodes of all runs, in seconds. False",
        "deaths are runs that had one; false votes (SWIM: suspicions) are a run's. Ours / SWIM + Lifeguard.",
        "",
        "| nodes | starved | loss | runs | first | every | SWIM: every | false deaths | false votes | B/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in sorted(ours, key=_place):
        other = beside.get(_place(cell))
        stamps = "" if cell["stamped"] else " (no stamps)"
        cells = (
            f"{cell['nodes']}{stamps}",
            f"{cell['starved']:g} %",
            f"{cell['loss']:g} %",
            f"{cell['runs']} / {other['runs'] if other else 0}",
            _quantiles(cell["first_s"]),
            _quantiles(cell["every_s"]),
            _quantiles(other["every_s"]) if other else "-",
            f"{cell['bad_runs']} / {other['bad_runs'] if other else '-'}",
            f"{_doubts(cell):g} / {format(_doubts(other), 'g') if other else '-'}",
            f"{_bytes(cell):,} / {format(_bytes(other), ',') if other else '-'}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _cells(results: Raw, detector: str) -> list[Raw]:
    return [cell for cell in results.get("grid", []) if cell["detector"] == detector]


def _place(cell: Raw) -> tuple[int, float, float, bool]:
    return cell["nodes"], cell["starved"], cell["loss"], not cell["stamped"]


def _sizes(cells: Iterable[Raw]) -> list[int]:
    return sorted({cell["nodes"] for cell in cells})


def _runs(cells: Iterable[Raw]) -> str:
    return f"{sum(cell['runs'] for cell in cells)} runs"


def _doubts(cell: Raw) -> float:
    return float(cell["false_doubts"])


def _bytes(cell: Raw) -> int:
    return int(cell["bytes_per_s"])


def _grid_met(found: list[Raw]) -> bool | None:
    """One bad run is a miss; only the whole grid, twenty runs a cell, is a pass."""
    if any(cell["bad_runs"] for cell in found):
        return False
    full = sum(cell["runs"] >= GRID_SEEDS for cell in found if cell["stamped"])
    return True if full >= GRID_CELLS else None


def _deaths(found: list[Raw]) -> str:
    return f"{sum(cell['bad_runs'] for cell in found)} of {_runs(found)}" if found else NOT_MEASURED


def _spread(found: list[Raw], value: Callable[[Raw], float], form: str, unit: str) -> str:
    """Say the least and the most of the cells of each size."""
    parts = []
    for size in _sizes(found):
        cells = [cell for cell in found if cell["nodes"] == size]
        least, most = (format(pick(map(value, cells)), form) for pick in (min, max))
        parts.append(f"{size} nodes: {least} to {most} {unit} ({_runs(cells)})")
    return "; ".join(parts) or NOT_MEASURED


def _known(found: list[Raw]) -> str:
    """Say between what the quantiles of the cells of each size lie."""
    parts = []
    for size in _sizes(found):
        cells = [cell for cell in found if cell["nodes"] == size]
        known = [cell["every_s"] for cell in cells if cell["every_s"]]
        if not known:
            parts.append(f"{size} nodes: nobody knew")
            continue
        told = ", ".join(
            f"{word} {min(s[at] for s in known):.2f} to {max(s[at] for s in known):.2f}"
            for at, word in enumerate(("p50", "p99", "last"))
        )
        parts.append(f"{size} nodes: {told} s ({_runs(cells)})")
    return "; ".join(parts) or NOT_MEASURED


def _quantiles(seconds: list[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in seconds) or "nobody knew"
