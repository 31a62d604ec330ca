"""Rows of simulated days."""

import statistics
from collections.abc import Callable
from typing import Any, Final

from bench.gossip.grid_rows import grid_rows
from bench.gossip.row import NOT_MEASURED, VIRTUAL, Raw, Row, pause_told, told
from bench.gossip.story_rows import story_rows

REAL: Final = "real cores and bytes"
HEALS: Final = (
    ("heal_60_s", "halves apart for 60 s, roots equal after the heal", "every event of it"),
    ("heal_600_s", "halves apart for 10 min, roots equal after the heal", "every event of it"),
    (
        "heal_day",
        "halves apart for 24 h asleep, roots equal after the heal",
        "all processes are stopped for the day but its first and last half minute, and every credential "
        "was renewed meanwhile: every timer fires once, late; not a day of running timers",
    ),
)


def days_of(results: Raw, detector: str | None = None) -> list[Raw]:
    """Return the simulated days of one detector."""
    return [day for day in results["virtual"].get("days", []) if day["detector"] == detector]


def virtual_rows(results: Raw) -> list[Row]:
    """Return the rows that simulated days and scenarios give."""
    return [
        virtual_quantiles(results, "G1", "killed", "kill -9 of a node", (100,), 1.5, 3.5),
        virtual_quantiles(results, "G2", "silent", "silent host", (100,), 3.8, 4.5),
        virtual_quantiles(
            results, "G3", "silent_measured", "silent host, larger meshes", (300, 1_000), 3.8, 4.5
        ),
        virtual_quantiles(
            results, "G3", "silent", "silent host, seconds after all began", (300, 1_000), 3.8, 4.5
        ),
        virtual_spread(results),
        virtual_pauses(results),
        *grid_rows(results),
        *story_rows(results),
        virtual_removal(results, "flipflop", "one node hears nothing every other 20 s for 3 min"),
        virtual_removal(results, "mute", "one node loses 80 % of what it sends for 2 min"),
        virtual_crashes(results),
        virtual_churn(results),
        virtual_reach(results, "record", "one record to 99.9 % of the nodes"),
        virtual_reach(results, "document", "a signed policy set in force on 99.9 % of the nodes"),
        modelled_reach(results),
        virtual_idle(results),
        virtual_joins(results),
        *(virtual_heal(results, *heal) for heal in HEALS),
        virtual_divergence(results),
        virtual_restart(results),
        virtual_volume(results),
    ]


def _day_name(day: Raw) -> str:
    return f"{day['nodes']:,} nodes, {day['loss']:.0%} loss"


def _by_name(days: list[Raw], key: str) -> dict[str, list[Any]]:
    """Return the figures of a key, in the order of the days, by the mesh they were seen in."""
    found: dict[str, list[Any]] = {}
    for day in sorted(days, key=lambda day: (day["nodes"], day["loss"])):
        if key in day["figures"]:
            found.setdefault(_day_name(day), []).append(day["figures"][key])
    return found


def _failed(results: Raw, chapter: str) -> list[str]:
    """Return what kept a chapter from showing its figure, on which day."""
    return [
        f"{_day_name(day)}, seed {day['seed']}: {failure}"
        for day in days_of(results)
        for failure in day["failures"]
        if failure.partition(":")[0] == chapter
    ]


def quantile(values: list[float], percent: int) -> float:
    """Return a quantile as the smallest value that so many per cent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def virtual_quantiles(
    results: Raw, figure: str, key: str, name: str, sizes: tuple[int, ...], p50_s: float, p99_s: float
) -> Row:
    """When each node knew; quantiles over all nodes of all days of a mesh, as kinship counts its grid."""
    days = [d for d in days_of(results) if key in d["figures"] and d["nodes"] in sizes]
    swim = [d for d in days_of(results, "swim") if key in d["figures"]]
    failed = [f for f in _failed(results, key) if any(f.startswith(f"{size:,} nodes") for size in sizes)]

    def tell(some: list[Raw]) -> str:
        parts = []
        for label, days in _by_name(some, key).items():
            times = [time for day in days for time in day]
            parts.append(
                f"{label}: p50 {quantile(times, 50):.2f}, p99 {quantile(times, 99):.2f}, "
                f"last {max(times):.2f} s ({len(days)} seeds; slowest p50 of one "
                f"{max(quantile(day, 50) for day in days):.2f})"
            )
        return "; ".join(parts) or NOT_MEASURED

    met = None
    if days or failed:
        pooled = [[t for day in these for t in day] for these in _by_name(days, key).values()]
        quick = all(quantile(times, 50) <= p50_s and quantile(times, 99) <= p99_s for times in pooled)
        met = quick and not failed
    return Row(
        figure=figure,
        name=name,
        clock=VIRTUAL,
        ours="; ".join([tell(days), *failed]),
        peer=f"SWIM + Lifeguard, same simulator: {tell(swim)}" if swim else NOT_MEASURED,
        gate=f"p50 <= {p50_s:g} s, p99 <= {p99_s:g} s",
        met=met,
        evidence=f"{REAL}; quantiles over all nodes of all seeds of a mesh",
    )


def virtual_spread(results: Raw) -> Row:
    """From the first node that knows of a death to the last, in simulated days."""
    days = days_of(results)
    spreads: dict[str, list[float]] = {}
    for key in ("killed", "silent", "silent_measured"):
        for label, figures in _by_name(days, key).items():
            spreads.setdefault(label, []).extend(times[-1] - times[0] for times in figures)
    large = [values for label, values in spreads.items() if label.startswith("1,000")]
    judged = large or list(spreads.values())
    return Row(
        figure="G4",
        name="first to last member to know",
        clock=VIRTUAL,
        ours="; ".join(f"{label}: {told(values)}" for label, values in spreads.items()) or NOT_MEASURED,
        peer=NOT_MEASURED,
        gate="median <= 0.2 s, max <= 0.5 s at 1,000 nodes",
        met=all(statistics.median(values) <= 0.2 and max(values) <= 0.5 for values in judged)
        if judged
        else None,
        evidence="kills and silences of all simulated days",
    )


def virtual_pauses(results: Raw) -> Row:
    """Pauses in simulated days."""
    days = [day for day in days_of(results) if "paused_10" in day["figures"]]
    parts, met = [], bool(days)
    for day in days:
        for seconds in (2, 10):
            row = day["figures"][f"paused_{seconds}"]
            parts.append(pause_told({"paused_s": seconds, **row}))
            met = met and row["back_s"] <= 1.0 and (seconds > 2 or not row["held_dead_by"])
        met = met and not day["others_dead"]
    return Row(
        figure="G7",
        name="one node paused 2 s and 10 s",
        clock=VIRTUAL,
        ours="; ".join(parts) or NOT_MEASURED,
        peer=NOT_MEASURED,
        gate="2 s: never dead; longer: alive everywhere <= 1 s after it resumes; no other dead",
        met=met if days else None,
        evidence="; ".join(_day_name(day) for day in days) or NOT_MEASURED,
    )


def virtual_reach(results: Raw, key: str, name: str) -> Row:
    """How long changes take to reach most nodes; a quantile over changes and seeds."""

    def tell(days: list[Raw]) -> tuple[list[str], bool]:
        parts, quick = [], True
        for label, figures in _by_name(days, key).items():
            times = [value for figure in figures for value in figure["most_s"]]
            quick = quick and quantile(times, 99) <= 0.5
            parts.append(
                f"{label}: p50 {quantile(times, 50):.2f}, p99 {quantile(times, 99):.2f} s, "
                f"all nodes {max(f['last_s'] for f in figures):.2f} s at most "
                f"({len(times)} changes, {len(figures)} seeds)"
            )
        return parts, quick

    parts, quick = tell(days_of(results))
    swim, _ = tell(days_of(results, "swim"))
    failed = _failed(results, key)
    return Row(
        figure="G9",
        name=name,
        clock=VIRTUAL,
        ours="; ".join([*parts, *failed]) or NOT_MEASURED,
        peer=f"SWIM + Lifeguard, same simulator: {'; '.join(swim)}" if swim else NOT_MEASURED,
        gate="p99 <= 0.5 s, all <= 5 s",
        met=quick and not failed if parts or failed else None,
        evidence=f"{REAL}; a quantile over the changes of all seeds; all = 99.9 % below 1,000 nodes",
    )


def virtual_removal(results: Raw, key: str, name: str) -> Row:
    """Nodes that are neither well nor gone."""
    days = [day for day in days_of(results) if key in day["figures"]]
    parts, met = [], bool(days)
    for day in days:
        row = day["figures"][key]
        out = (
            f"out on {row['out_on']}"
            if row["out_s"] is None
            else f"out everywhere after {row['out_s']:.1f} s"
        )
        parts.append(
            f"{_day_name(day)}: {out}, {row['healthy_removed']} healthy removed, "
            f"{row['changes_per_minute']:g} changes a minute"
        )
        quick = row["out_s"] is not None and row["out_s"] <= 30
        met = met and quick and not row["healthy_removed"] and row["changes_per_minute"] <= 1
    return Row(
        figure="G8",
        name=name,
        clock=VIRTUAL,
        ours="; ".join(parts) or NOT_MEASURED,
        peer=NOT_MEASURED,
        gate="out <= 30 s, 0 healthy removed, <= 1 change a minute",
        met=met if days else None,
        evidence="changes: into or out of dead and unattended, at the observer that saw most",
    )


def modelled_reach(results: Raw) -> Row:
    """The same where no cores can be run; a model is shown with what the cores did in a smaller mesh."""
    models = results["virtual"].get("models", [])
    parts, quick = [], True
    for model in models:
        times = model["most_s"]
        quick = quick and quantile(times, 99) <= 0.5
        parts.append(
            f"{model['nodes']:,} nodes, {model['loss']:.0%} loss: p50 {quantile(times, 50):.2f}, "
            f"p99 {quantile(times, 99):.2f} s ({len(times)} changes)"
        )
    real = [
        value
        for day in days_of(results)
        if "record" in day["figures"] and (day["nodes"], day["loss"]) == (1_000, 0.05)
        for value in day["figures"]["record"]["most_s"]
    ]
    beside = f"p50 {quantile(real, 50):.2f}, p99 {quantile(real, 99):.2f} s" if real else NOT_MEASURED
    return Row(
        figure="G9",
        name="one record to 99.9 % of 10,000 nodes, a model",
        clock=VIRTUAL,
        ours="; ".join(parts) or NOT_MEASURED,
        peer=NOT_MEASURED,
        gate="p99 <= 0.5 s",
        met=quick if models else None,
        evidence="a model of forwarding alone (`bench/gossip/model.py`), by the core's own settings; the "
        f"real cores, 1,000 nodes, 5% loss: {beside}",
    )


def virtual_crashes(results: Raw) -> Row:
    """The busiest second of the survivors of many crashes; judged where the gate was set, if that was run."""
    found = _by_name(days_of(results), "crashes")
    parts = [
        f"{label}, {rows[0]['count']} crashes: p50 {max(r['p50_bytes'] for r in rows) / 1_000:.1f}, "
        f"p99 {max(r['p99_bytes'] for r in rows) / 1_000:.1f} KB/s, "
        f"max {max(r['max_bytes'] for r in rows) / 1_000:.1f}; dead everywhere after "
        f"{max(r['every_s'] for r in rows):.2f} s ({len(rows)} seeds)"
        for label, rows in found.items()
    ]
    failed = _failed(results, "crashes")
    judged = [rows for label, rows in found.items() if label.startswith("1,000")] or list(found.values())
    quick = all(row["p99_bytes"] <= 16_000 for rows in judged for row in rows)
    return Row(
        figure="G14",
        name="worst second after 10 crashes",
        clock=VIRTUAL,
        ours="; ".join([*parts, *failed]) or NOT_MEASURED,
        peer=NOT_MEASURED,
        gate="p99 <= 16 KB/s at 1,000 nodes",
        met=quick and not failed if found or failed else None,
        evidence="each survivor's busiest second, datagrams and streams; the worst seed",
    )


def virtual_churn(results: Raw) -> Row:
    """What replacing a tenth of the nodes in each minute does to queues and updates."""
    found = _by_name(days_of(results), "churn")
    rows = [row for rows in found.values() for row in rows]
    parts = [
        f"{label}, {these[0]['minutes']} min: queue <= {max(r['queue_max'] for r in these)} of "
        f"{these[0]['members']:,} members, update p99 {max(r['update_p99_s'] for r in these):.2f} s "
        f"({len(these)} seeds)"
        for label, these in found.items()
    ]
    failed = _failed(results, "churn")
    fits = all(r["queue_max"] <= r["members"] + 2 and r["update_p99_s"] <= 2 for r in rows)
    return Row(
        figure="G16",
        name="a tenth of the nodes replaced in each minute",
        clock=VIRTUAL,
        ours="; ".join([*parts, *failed]) or NOT_MEASURED,
        peer=NOT_MEASURED,
        gate="queue <= members + documents, update p99 <= 2 s (set for 1,000 nodes, 1 h)",
        met=fits and not failed if rows or failed else None,
        evidence="queues looked at every second, an update every six",
    )


def virtual_idle(results: Raw) -> Row:
    """Bytes of datagrams at rest."""
    days = [day for day in days_of(results) if "idle_bytes_per_s" in day["figures"]]

    def tell(some: list[Raw]) -> str:
        parts = [
            f"{label}: {max(values):.0f} B/s ({len(values)} seeds)"
            for label, values in _by_name(some, "idle_bytes_per_s").items()
        ]
        return "; ".join(parts) or NOT_MEASURED

    met = None
    if days:
        met = all(d["figures"]["idle_bytes_per_s"] <= (500 if d["loss"] > 0.01 else 400) for d in days)
    return Row(
        figure="G12",
        name="bytes a node sends at rest",
        clock=VIRTUAL,
        ours=tell(days),
        peer=f"SWIM + Lifeguard, same simulator: {tell(days_of(results, 'swim'))}",
        gate="<= 400 B/s at 1 % loss, <= 500 at 5 %, flat in N",
        met=met,
        evidence="datagrams over 20 virtual seconds; the worst seed",
    )


def _row_of_times(
    results: Raw,
    *,
    figure: str,
    key: str,
    chapter: str,
    name: str,
    gates: dict[int, float],
    evidence: str,
    of: Callable[[Any], list[float]] = lambda seconds: [seconds],
) -> Row:
    """A figure of one or more times a day, under the gate of the next size that has one."""
    found = _by_name(days_of(results), key)
    failed = _failed(results, chapter)
    parts, quick = [], not failed
    for label, figures in found.items():
        times = [value for figure in figures for value in of(figure)]
        nodes = int(label.partition(" ")[0].replace(",", ""))
        gate = min((g for size, g in gates.items() if nodes <= size), default=max(gates.values()))
        quick = quick and quantile(times, 99) <= gate
        if len(times) == len(figures):
            parts.append(f"{label}: {told(times)}")
        else:
            parts.append(
                f"{label}: p50 {quantile(times, 50):.2f}, p99 {quantile(times, 99):.2f}, max "
                f"{max(times):.2f} s ({len(times)} times, {len(figures)} seeds)"
            )
    return Row(
        figure=figure,
        name=name,
        clock=VIRTUAL,
        ours="; ".join([*parts, *failed]) or NOT_MEASURED,
        peer=NOT_MEASURED,
        gate=", ".join(f"{size:,} nodes: <= {gate:g} s" for size, gate in gates.items()),
        met=quick if found or failed else None,
        evidence=evidence,
    )


def virtual_joins(results: Raw) -> Row:
    """Everybody starts at once and knows one seed."""
    return _row_of_times(
        results,
        figure="G15",
        key="join_s",
        chapter="join",
        name="join storm to one seed",
        gates={100: 1.5, 1_000: 5.0},
        evidence=REAL,
    )


def virtual_heal(results: Raw, key: str, name: str, how: str) -> Row:
    """Two halves find together again."""
    rows = [row for rows in _by_name(days_of(results), key).values() for row in rows]
    kept = all(row["endpoints"][0] <= row["endpoints"][1] for row in rows)
    declared = sum(row["declared"] for row in rows)
    alive_s = max((row["alive_s"] for row in rows), default=0.0)
    shown = (
        f"; everybody alive after {alive_s:.1f} s at most; endpoints {'kept' if kept else 'LOST'}; "
        f"{declared} views declared somebody dead while parted"
    )
    chapters = {"heal_60_s": "partition", "heal_600_s": "apart", "heal_day": "slept"}
    return _row_of_times(
        results,
        figure="G17",
        key=key,
        chapter=chapters[key],
        name=name,
        gates={100: 5.0, 1_000: 15.0},
        evidence=f"{REAL}; {how}{shown if rows else ''}",
        of=lambda row: [row["equal_s"]],
    )


def virtual_divergence(results: Raw) -> Row:
    """A difference nobody was told of, until roots are equal again."""
    return _row_of_times(
        results,
        figure="G18",
        key="divergence_s",
        chapter="divergence",
        name="an update missed, or a member lost, by one node: found and repaired",
        gates={100: 3.0, 1_000: 3.0},
        evidence=f"{REAL}; half of each, looked at every 0.1 s",
        of=list,
    )


def virtual_restart(results: Raw) -> Row:
    """Power is cut everywhere at once."""
    return _row_of_times(
        results,
        figure="G28",
        key="restart_s",
        chapter="restart",
        name="power cut of all nodes, all agree from their disks",
        gates={100: 10.0},
        evidence=REAL,
    )


def virtual_volume(results: Raw) -> Row:
    """How fast the simulator is, on the day the gate was set for."""
    days = days_of(results)
    calm = [float(day["events_per_s"]) for day in days if day["chapters"] == ["calm"]]
    return Row(
        figure="G29",
        name="events of the simulator in a second of CPU, 50 nodes for 120 s, one crash",
        clock=VIRTUAL,
        ours=f"median {statistics.median(calm):,.0f}, min {min(calm):,.0f} ({len(calm)} seeds)"
        if calm
        else NOT_MEASURED,
        peer=NOT_MEASURED,
        gate=">= 20,000",
        met=statistics.median(calm) >= 20_000 if calm else None,
        evidence=f"of {sum(day['events'] for day in days):,} events of all days" if days else NOT_MEASURED,
    )
