"""Rows of simulated time, and of what other commands show."""

import statistics
from collections.abc import Callable
from typing import Final

from bench.gossip.row import NOT_MEASURED, PUBLISHED, VIRTUAL, Raw, Row, pause_told, told


def days_of(results: Raw, detector: str | None = None) -> list[Raw]:
    """Return the simulated days of one detector."""
    return [day for day in results["virtual"].get("days", []) if day["detector"] == detector]


def virtual_rows(results: Raw) -> list[Row]:
    """Return the rows that simulated days give."""
    return [
        virtual_quantiles(results, "G1", "killed", "kill -9 of a node", (100,), 1.5, 3.5),
        virtual_quantiles(results, "G2", "silent", "silent host", (100,), 3.8, 4.5),
        virtual_quantiles(results, "G3", "silent", "silent host, larger meshes", (300, 1_000), 3.8, 4.5),
        virtual_spread(results),
        virtual_pauses(results),
        *grid_rows(results),
        *story_rows(results),
        virtual_removal(results, "flipflop", "one node hears nothing every other 20 s for 3 min"),
        virtual_removal(results, "mute", "one node loses 80 % of what it sends for 2 min"),
        virtual_crashes(results),
        virtual_churn(results),
        virtual_quantiles(results, "G9", "record", "one record to every node", (100, 300, 1_000), None, 0.5),
        virtual_quantiles(
            results, "G9", "document", "a signed policy set in force", (100, 300, 1_000), None, 0.5
        ),
        virtual_idle(results),
        virtual_scalar(results, "G15", "join_s", "join storm to one seed", 1.5),
        virtual_scalar(results, "G17", "heal_s", "halves apart for 60 s, roots equal after the heal", 5.0),
        virtual_scalar(
            results, "G18", "divergence_s", "an update missed by one node, found and repaired", 3.0
        ),
        virtual_scalar(
            results, "G28", "restart_s", "power cut of all nodes, all agree from their disks", 10.0
        ),
        virtual_volume(results),
    ]


def _day_name(day: Raw) -> str:
    return f"{day['nodes']} nodes, {day['loss']:.0%} loss"


def virtual_quantiles(
    results: Raw, figure: str, key: str, name: str, sizes: tuple[int, ...], p50_s: float | None, p99_s: float
) -> Row:
    """A figure with quantiles over the nodes of each day: the worst day of each kind counts."""
    days = [d for d in days_of(results) if key in d["figures"] and d["nodes"] in sizes]
    swim = [d for d in days_of(results, "swim") if key in d["figures"]]

    def tell(some: list[Raw]) -> str:
        parts = []
        for label in dict.fromkeys(_day_name(day) for day in some):
            these = [day["figures"][key] for day in some if _day_name(day) == label]
            p50, p99 = max(f["p50"] for f in these), max(f["p99"] for f in these)
            parts.append(f"{label}: p50 {p50:.2f}, p99 {p99:.2f} s ({len(these)} seeds)")
        return "; ".join(parts) or NOT_MEASURED

    met = None
    if days:
        quick = all(d["figures"][key]["p99"] <= p99_s for d in days)
        met = quick and all(p50_s is None or d["figures"][key]["p50"] <= p50_s for d in days)
    middle = "" if p50_s is None else f"p50 <= {p50_s:g} s, "
    return Row(
        figure=figure,
        name=name,
        clock=VIRTUAL,
        ours=tell(days),
        peer=f"SWIM + Lifeguard, same simulator: {tell(swim)}" if swim else NOT_MEASURED,
        gate=f"{middle}p99 <= {p99_s:g} s",
        met=met,
        evidence="real cores and bytes; quantiles over nodes, the worst seed of each kind",
    )


def virtual_spread(results: Raw) -> Row:
    """From the first node that knows of a death to the last, in simulated days."""
    figures = [
        d["figures"][key] for d in days_of(results) for key in ("killed", "silent") if key in d["figures"]
    ]
    found = [figure["last"] - figure["first"] for figure in figures]
    return Row(
        figure="G4",
        name="first to last member to know",
        clock=VIRTUAL,
        ours=told(found),
        peer=NOT_MEASURED,
        gate="median <= 0.2 s, max <= 0.5 s",
        met=statistics.median(found) <= 0.2 and max(found) <= 0.5 if found else None,
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


GRID_CELLS: Final = 12
GRID_SEEDS: Final = 20
STORY_ROWS: Final = (
    ("G17", ("partition-10-min",), "halves apart for 10 min, roots equal after the heal", "<= 5 s"),
    (
        "G17",
        ("heal-no-eviction", "minority"),
        "a heal removes no endpoint; two of five certify nobody",
        "none",
    ),
    (
        "G28",
        ("upgrade-all", "crash-all-agents"),
        "all agents restarted in turn, and killed at once",
        "no death",
    ),
)


def story_rows(results: Raw) -> list[Row]:
    """Scenarios that hold or do not: their own invariants judge, at every event."""
    found = {story["scenario"]: story for story in results.get("stories", [])}
    rows = []
    for figure, names, name, gate in STORY_ROWS:
        stories = [found[story] for story in names if story in found]
        parts, met = [], len(stories) == len(names)
        for story in stories:
            roots_s = story["measured"].get("equal_roots_s")
            said = "holds" if story["ok"] else "; ".join(story["failures"])
            parts.append(
                f"{story['scenario']}: {said}" + (f", {roots_s:.2f} s" if roots_s is not None else "")
            )
            met = met and story["ok"] and (roots_s is None or roots_s <= 5)
        rows.append(
            Row(
                figure=figure,
                name=name,
                clock=VIRTUAL,
                ours="; ".join(parts) or NOT_MEASURED,
                peer=NOT_MEASURED,
                gate=gate,
                met=met if len(stories) == len(names) else None,
                evidence="; ".join(f"`simulator {story}`, 12 nodes, 1 % loss, one seed" for story in names),
            )
        )
    return rows


def grid_rows(results: Raw) -> list[Row]:
    """Kinship's grid: false deaths, false votes, and bytes, with some readers starved."""
    found: list[Raw] = results.get("grid", [])
    ours = [row for row in found if row["detector"] == "monitors"]
    swim = [row for row in found if row["detector"] == "swim"]
    slow = [row for row in ours if row["starved"] == 10]
    runs = "; ".join(
        f"{size} nodes: {sum(row['runs'] for row in ours if row['nodes'] == size)} runs"
        for size in sorted({row["nodes"] for row in ours})
    )
    evidence = f"`simulator grid`, this core's runs only ({runs or 'none'}); 120 s, a crash at 60 s"
    return [
        Row(
            figure="G5",
            name="runs with a false death in kinship's grid",
            clock=VIRTUAL,
            ours=_deaths(ours),
            peer=f"SWIM + Lifeguard, same simulator: {_deaths(swim)}",
            gate="0 (20 seeds in each of 12 cells)",
            met=_grid_met(ours),
            evidence=f"{evidence}; fewest runs in a cell: {min((row['runs'] for row in ours), default=0)}",
        ),
        Row(
            figure="G6",
            name="false votes (SWIM: suspicions) a run, 10 % starved",
            clock=VIRTUAL,
            ours=_each(slow, lambda row: f"{row['false_doubts']:g}"),
            peer="SWIM + Lifeguard, same simulator: "
            + _each([row for row in swim if row["starved"] == 10], lambda row: f"{row['false_doubts']:g}"),
            gate="<= 5 with 50 nodes",
            met=all(row["false_doubts"] <= 5 for row in slow if row["nodes"] == 50) if slow else None,
            evidence=evidence,
        ),
        Row(
            figure="G13",
            name="bytes a node sends, 10 % starved",
            clock=VIRTUAL,
            ours=_each(slow, lambda row: f"{row['bytes_per_s']} B/s"),
            peer="SWIM + Lifeguard, same simulator: "
            + _each([row for row in swim if row["starved"] == 10], lambda row: f"{row['bytes_per_s']} B/s"),
            gate="<= 1,500 B/s with kernel stamps, <= 2,100 without",
            met=all(row["bytes_per_s"] <= (1_500 if row["stamped"] else 2_100) for row in slow)
            if slow
            else None,
            evidence=evidence,
        ),
        Row(
            figure="G2",
            name="silent host in kinship's grid, every node's knowing",
            clock=VIRTUAL,
            ours=_each(ours, _seen),
            peer=f"SWIM + Lifeguard, same simulator: {_each(swim, _seen)}",
            gate=PUBLISHED,
            met=None,
            evidence=f"{evidence}; with starved readers the slow ones know last",
        ),
    ]


def _grid_met(found: list[Raw]) -> bool | None:
    """One bad run is a miss; only the whole grid, twenty runs a cell, is a pass."""
    if any(row["bad_runs"] for row in found):
        return False
    full = sum(row["runs"] >= GRID_SEEDS for row in found if row["nodes"] == 50 and row["stamped"])
    return True if full >= GRID_CELLS else None


def _deaths(found: list[Raw]) -> str:
    if not found:
        return NOT_MEASURED
    return f"{sum(row['bad_runs'] for row in found)} of {sum(row['runs'] for row in found)} runs"


def _seen(row: Raw) -> str:
    return f"p50 {row['every_s'][0]:.2f}, p99 {row['every_s'][1]:.2f} s" if row["every_s"] else "nobody knew"


def _each(found: list[Raw], tell: Callable[[Raw], str]) -> str:
    parts = []
    for row in found:
        stamps = "" if row["stamped"] else ", no stamps"
        place = f"{row['nodes']}, {row['loss']:g} % loss, {row['starved']:g} % starved{stamps}"
        parts.append(f"{place}: {tell(row)} ({row['runs']} runs)")
    return "; ".join(parts) or NOT_MEASURED


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


def virtual_crashes(results: Raw) -> Row:
    """The busiest second of the survivors of many crashes."""
    days = [day for day in days_of(results) if "crashes" in day["figures"]]
    parts = []
    for day in days:
        row = day["figures"]["crashes"]
        parts.append(
            f"{_day_name(day)}, {row['count']} crashes: p99 {row['p99_bytes'] / 1_000:.1f} KB/s, "
            f"max {row['max_bytes'] / 1_000:.1f}; dead everywhere after {row['every_s']:.2f} s"
        )
    return Row(
        figure="G14",
        name="worst second after 10 crashes",
        clock=VIRTUAL,
        ours="; ".join(parts) or NOT_MEASURED,
        peer=NOT_MEASURED,
        gate="p99 <= 16 KB/s (set for 1,000 nodes)",
        met=all(day["figures"]["crashes"]["p99_bytes"] <= 16_000 for day in days) if days else None,
        evidence="each survivor's busiest second, datagrams and streams",
    )


def virtual_churn(results: Raw) -> Row:
    """What replacing a tenth of the nodes in a minute does to queues and updates."""
    days = [day for day in days_of(results) if "churn" in day["figures"]]
    rows = [day["figures"]["churn"] for day in days]
    parts = [
        f"{_day_name(day)}: queue <= {row['queue_max']} of {row['members']} members, "
        f"update p99 {row['update_p99_s']:.2f} s"
        for day, row in zip(days, rows, strict=True)
    ]
    return Row(
        figure="G16",
        name="a tenth of the nodes replaced in a minute",
        clock=VIRTUAL,
        ours="; ".join(parts) or NOT_MEASURED,
        peer=NOT_MEASURED,
        gate="queue <= members + documents, update p99 <= 2 s (set for 1,000 nodes, 1 h)",
        met=all(r["queue_max"] <= r["members"] + 2 and r["update_p99_s"] <= 2 for r in rows)
        if rows
        else None,
        evidence="one minute, looked at every second",
    )


def virtual_idle(results: Raw) -> Row:
    """Bytes of datagrams at rest."""
    days = [day for day in days_of(results) if "idle_bytes_per_s" in day["figures"]]
    swim = [day for day in days_of(results, "swim") if "idle_bytes_per_s" in day["figures"]]

    def tell(some: list[Raw]) -> str:
        parts = {_day_name(day): day["figures"]["idle_bytes_per_s"] for day in some}
        return "; ".join(f"{name}: {value:.0f} B/s" for name, value in parts.items()) or NOT_MEASURED

    met = None
    if days:
        met = all(d["figures"]["idle_bytes_per_s"] <= (500 if d["loss"] > 0.01 else 400) for d in days)
    return Row(
        figure="G12",
        name="bytes a node sends at rest",
        clock=VIRTUAL,
        ours=tell(days),
        peer=f"SWIM + Lifeguard, same simulator: {tell(swim)}" if swim else NOT_MEASURED,
        gate="<= 400 B/s at 1 % loss, <= 500 at 5 %, flat in N",
        met=met,
        evidence="datagrams over 20 virtual seconds",
    )


def virtual_scalar(results: Raw, figure: str, key: str, name: str, gate_s: float) -> Row:
    """A figure with one value a day; larger meshes have gates of their own where the design gives them."""
    days = [day for day in days_of(results) if key in day["figures"]]
    failed = [day for day in days_of(results) if any(_chapter(f) == key for f in day["failures"])]
    parts = [f"{_day_name(day)}: {day['figures'][key]:.2f} s" for day in days]
    parts += [f"{_day_name(day)}: {day['failures'][0]}" for day in failed]
    gates = {("join_s", 1_000): 5.0, ("join_s", 300): 2.5, ("heal_s", 1_000): 15.0}
    met = None
    if parts:
        met = not failed and all(d["figures"][key] <= gates.get((key, d["nodes"]), gate_s) for d in days)
    more = ", 1,000: <= 5 s" if key == "join_s" else ", 1,000: <= 15 s" if key == "heal_s" else ""
    return Row(
        figure=figure,
        name=name,
        clock=VIRTUAL,
        ours="; ".join(parts) or NOT_MEASURED,
        peer=NOT_MEASURED,
        gate=f"100 nodes: <= {gate_s:g} s{more}",
        met=met,
        evidence=_scalar_evidence(key, days),
    )


def _chapter(failure: str) -> str:
    names = {"join": "join_s", "partition": "heal_s", "divergence": "divergence_s", "restart": "restart_s"}
    return names.get(failure.partition(":")[0], "")


def _scalar_evidence(key: str, days: list[Raw]) -> str:
    if key != "heal_s" or not days:
        return "real cores and bytes"
    kept = all(
        day["figures"]["endpoints_before_after"][0] <= day["figures"]["endpoints_before_after"][1]
        for day in days
    )
    declared = sum(day["figures"]["declared_while_parted"] for day in days)
    return (
        f"endpoints {'kept' if kept else 'LOST'}; {declared} views declared somebody dead while parted; "
        "the design asks for 10 min and 24 h, these were 60 s"
    )


def virtual_volume(results: Raw) -> Row:
    """How fast the simulator is."""
    days = days_of(results)
    speeds = [float(day["events_per_s"]) for day in days]
    return Row(
        figure="G29",
        name="events of the simulator in a second of CPU",
        clock=VIRTUAL,
        ours=f"median {statistics.median(speeds):,.0f}" if speeds else NOT_MEASURED,
        peer=NOT_MEASURED,
        gate=">= 20,000",
        met=statistics.median(speeds) >= 20_000 if speeds else None,
        evidence=f"{len(days)} days, {sum(day['events'] for day in days):,} events",
    )


# -- shown elsewhere --------------------------------------------------------------------------

ELSEWHERE: Final = (
    ("G19", "memory", "memory of one core with 10,000 members", "<= 75 MB, <= 3 KB a member"),
    ("G20", "joining", "joining 10,000 members", "no step over 20 ms, <= 3 s CPU"),
    ("G21", "strangers", "hostile frames of strangers and members", "each named test holds"),
    ("G22", "attacks", "what one compromised member can do", "each named test holds"),
)


def elsewhere(results: Raw) -> list[Row]:
    """Return a row for each figure that another command shows; filled where it was run."""
    given = results.get("elsewhere", {})
    rows = []
    for figure, key, name, gate in ELSEWHERE:
        told_of = given.get(key, {})
        rows.append(
            Row(
                figure=figure,
                name=name,
                clock=VIRTUAL,
                ours=told_of.get("ours", NOT_MEASURED),
                peer=told_of.get("peer", NOT_MEASURED),
                gate=gate,
                met=told_of.get("met"),
                evidence=told_of.get("evidence", "no command of this run shows it"),
            )
        )
    return rows
