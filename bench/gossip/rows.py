"""From raw figures to rows: ours, the peers' in the same run, the gate, whether it was met, and why.

A row is made for every figure of the design's table that this benchmark is about, measured or not: what
was not measured has no `met` and says so. Nothing here measures, and nothing is carried over between runs.
"""

import statistics
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from bench.gossip.field import HEADER_BYTES

WALL: Final = "wall"
VIRTUAL: Final = "virtual"
PEERS: Final = ("serf", "kinship")
OURS: Final = "gossipmesh"

Raw = dict[str, Any]


class Row(msgspec.Struct, frozen=True):
    """One line of the report. `met` None: not measured, or nothing to meet (then `gate` is `published`)."""

    figure: str
    name: str
    clock: str
    ours: str
    peer: str
    gate: str
    met: bool | None
    evidence: str

    def line(self) -> str:
        """Return the row as one line of text."""
        return f"{self.figure} {self.name} ({self.clock}): {self.ours}; peers: {self.peer}; {self.word()}"

    def word(self) -> str:
        """Say whether the gate was met."""
        if self.gate == PUBLISHED:
            return "published"
        return {None: "not measured", True: "met", False: "MISSED"}[self.met]


PUBLISHED: Final = "published"
NOT_MEASURED: Final = "not measured"


def build_rows(results: Raw) -> list[Row]:
    """Return all rows, in the order of the design's table, wall-clock before virtual."""
    rows = [
        detection(results, "kill", "G1", "kill -9 of a whole node to every member knowing", 1.5),
        detection(results, "silent", "G2", "silent host (packets dropped) to every member knowing", 4.2),
        spread(results),
        others_dead(results),
        pauses(results),
        idle_bytes(results),
        join_storm(results),
        memory(results),
        idle_cpu(results),
        *virtual_rows(results),
        *elsewhere(results),
    ]
    return sorted(rows, key=lambda row: (int(row.figure[1:]), row.clock == VIRTUAL))


# -- wall clock -------------------------------------------------------------------------------


def times(group: Raw, part: str, key: str = "every_s") -> list[float]:
    """Return one figure of every round of a part that was not missed."""
    return [row[key] for row in group.get(part, []) if key in row and "missed" not in row]


def told(values: Iterable[float], unit: str = "s") -> str:
    """Say median, range and number of some rounds."""
    ordered = sorted(values)
    if not ordered:
        return NOT_MEASURED
    median = statistics.median(ordered)
    return f"median {median:.2f}, min {ordered[0]:.2f}, max {ordered[-1]:.2f} {unit} ({len(ordered)} runs)"


def peers_told(results: Raw, tell: Callable[[Raw], str]) -> str:
    """Say what each peer did in this run, or why it did not take part."""
    parts = []
    for name in PEERS:
        if name in results["groups"]:
            parts.append(f"{name}: {tell(results['groups'][name])}")
        elif name in results["problems"]:
            parts.append(f"{name}: {results['problems'][name]}")
    return "; ".join(parts) or NOT_MEASURED


def ours_of(results: Raw) -> Raw:
    """Return our group's raw figures; empty when it was not measured."""
    group = results["groups"].get(OURS, {})
    return group if isinstance(group, dict) else {}


def detection(results: Raw, part: str, figure: str, name: str, gate_s: float) -> Row:
    """How long a failure took to be known everywhere; per round, the last member counts."""
    group = ours_of(results)
    found = times(group, part)
    missed = [row["missed"] for row in group.get(part, []) if "missed" in row]
    met = None if not found and not missed else not missed and statistics.median(found) <= gate_s
    evidence = f"each run: the last of {results['nodes'] - 1} other members, by the stamps of their logs"
    if found:
        evidence += f"; the median member: {told(times(group, part, 'median_s'))}"
    if missed:
        evidence += f"; {len(missed)} runs not known everywhere: {missed[0]}"
    back = times(group, part, "back_s")
    if back:
        evidence += f"; alive everywhere after the packets pass again: {told(back)}"
    return Row(
        figure=figure,
        name=f"{name}, {results['nodes']} nodes",
        clock=WALL,
        ours=told(found),
        peer=peers_told(results, lambda peer: told(times(peer, part))),
        gate=f"median <= {gate_s:g} s",
        met=met,
        evidence=evidence,
    )


def spread(results: Raw) -> Row:
    """From the first member that knows to the last."""

    def spreads(group: Raw) -> list[float]:
        rows = [row for part in ("kill", "silent") for row in group.get(part, [])]
        return [row["every_s"] - row["first_s"] for row in rows if "first_s" in row and "missed" not in row]

    group = ours_of(results)
    found = spreads(group)
    return Row(
        figure="G4",
        name=f"first to last member to know, {results['nodes']} nodes",
        clock=WALL,
        ours=told(found),
        peer=peers_told(results, lambda peer: told(spreads(peer))),
        gate="median <= 0.2 s, max <= 0.5 s (set for 1,000 nodes)",
        met=statistics.median(found) <= 0.2 and max(found) <= 0.5 if found else None,
        evidence="kills and silences together",
    )


def others_dead(results: Raw) -> Row:
    """Whether anybody but the victim was ever declared dead or unattended."""

    def tell(group: Raw) -> str:
        runs = [row for part in ("kill", "silent", "pause") for row in group.get(part, [])]
        wrong = [sentence for row in runs for sentence in row.get("others_dead", [])]
        return f"{len(wrong)} in {len(runs)} runs" + (f" ({wrong[0]})" if wrong else "")

    group = ours_of(results)
    measured = any(part in group for part in ("kill", "silent", "pause"))
    ours = tell(group) if measured else NOT_MEASURED
    return Row(
        figure="G5",
        name=f"others declared dead in those runs, {results['nodes']} nodes",
        clock=WALL,
        ours=ours,
        peer=peers_told(results, tell),
        gate="0",
        met=ours.startswith("0 in") if measured else None,
        evidence="every member's log but the victim's, from the strike until the next",
    )


def pauses(results: Raw) -> Row:
    """SIGSTOP of a whole node for 2 s and 10 s."""

    def tell(group: Raw) -> str:
        return "; ".join(pause_told(row) for row in group.get("pause", [])) or NOT_MEASURED

    group = ours_of(results)
    rows = group.get("pause", [])
    met = None
    if rows:
        kept = all(row["held_dead_by"] == 0 for row in rows if row["paused_s"] <= 2.5)
        back = all((row["back_s"] or 0.0) <= 1.0 and "missed" not in row for row in rows)
        met = kept and back and not any(row["others_dead"] for row in rows)
    return Row(
        figure="G7",
        name=f"one node paused (SIGSTOP) 2 s and 10 s, {results['nodes']} nodes",
        clock=WALL,
        ours=tell(group),
        peer=peers_told(results, tell),
        gate="2 s: never dead; longer: alive everywhere <= 1 s after it resumes; no other dead",
        met=met,
        evidence="one run each",
    )


def pause_told(row: Raw) -> str:
    """Say what became of one pause."""
    if not row["held_dead_by"]:
        return f"{row['paused_s']:g} s: held dead by nobody"
    back = (
        "not seen alive again" if row["back_s"] is None else f"alive everywhere {row['back_s']:.2f} s after"
    )
    return f"{row['paused_s']:g} s: held dead by {row['held_dead_by']}, {back}"


def payload_bytes_per_s(idle: Raw) -> float:
    """Return what is left of a link's bytes without Ethernet, IP and UDP headers."""
    return float(idle["wire_bytes_per_s"]) - HEADER_BYTES * float(idle["packets_per_s"])


def idle_bytes(results: Raw) -> Row:
    """What a node sends at rest."""

    def tell(group: Raw) -> str:
        idle = group.get("idle")
        if idle is None:
            return NOT_MEASURED
        return f"{payload_bytes_per_s(idle):.0f} B/s ({idle['wire_bytes_per_s']:.0f} with headers)"

    group = ours_of(results)
    idle = group.get("idle")
    return Row(
        figure="G12",
        name=f"bytes a node sends at rest, {results['nodes']} nodes, no loss",
        clock=WALL,
        ours=tell(group),
        peer=peers_told(results, tell),
        gate="<= 400 B/s",
        met=None if idle is None else payload_bytes_per_s(idle) <= 400,
        evidence="the router's counters of each node's link over 20 s; payload is 42 bytes a packet less",
    )


def join_storm(results: Raw) -> Row:
    """From the moment packets pass to all members seeing all."""

    def tell(group: Raw) -> str:
        return f"{group['join_s']:.2f} s (1 run)" if "join_s" in group else NOT_MEASURED

    group = ours_of(results)
    return Row(
        figure="G15",
        name=f"join storm to one seed, {results['nodes']} nodes",
        clock=WALL,
        ours=tell(group),
        peer=peers_told(results, tell),
        gate="<= 1.5 s (set for 100 nodes)",
        met=group["join_s"] <= 1.5 if "join_s" in group else None,
        evidence="all run, none reaches any; then packets pass, and each tries its seed about every second",
    )


def memory(results: Raw) -> Row:
    """Memory of the process that gossips."""

    def tell(group: Raw) -> str:
        idle = group.get("idle")
        if idle is None:
            return NOT_MEASURED
        engine = f", engine {idle['pss_mb_engine']:.0f} PSS" if idle["pss_mb_engine"] else ""
        return f"{idle['rss_mb']:.1f} MB RSS, {idle['pss_mb']:.1f} PSS{engine}"

    group = ours_of(results)
    return Row(
        figure="G19",
        name=f"memory of the gossiping process, {results['nodes']} members",
        clock=WALL,
        ours=tell(group),
        peer=peers_told(results, tell),
        gate=PUBLISHED,
        met=None,
        evidence="median of all nodes at rest; our agent is more than gossip (policy, services, metrics)",
    )


def idle_cpu(results: Raw) -> Row:
    """CPU of the process that gossips."""

    def tell(group: Raw) -> str:
        idle = group.get("idle")
        return NOT_MEASURED if idle is None else f"{idle['cpu_percent']:.2f} % of a core"

    group = ours_of(results)
    idle = group.get("idle")
    return Row(
        figure="G20",
        name=f"CPU of the gossiping process at rest, {results['nodes']} members",
        clock=WALL,
        ours=tell(group),
        peer=peers_told(results, tell),
        gate="<= 0.5 % of a core (set for 1,000 members)",
        met=None if idle is None else idle["cpu_percent"] <= 0.5,
        evidence="user and system time over 20 s, mean of all nodes; our agent does more than gossip",
    )


# -- virtual ----------------------------------------------------------------------------------


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
        evidence="real cores and bytes; quantiles over nodes, the worst seed of each kind"
        + _left_out(results),
    )


def _left_out(results: Raw) -> str:
    left = results["virtual"].get("left_out", [])
    return f"; left out: {'; '.join(left)}" if left else ""


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
        evidence="datagrams over 20 virtual seconds" + _left_out(results),
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
        evidence=_scalar_evidence(key, days) + _left_out(results),
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
    ("G5", "false deaths in kinship's grid, 20 seeds a cell", "0 bad runs", "the simulator's grid"),
    ("G6", "false votes a run, 50 nodes, 5 starved", "<= 5", "the simulator's grid"),
    ("G8", "one-way flip-flop, 80 % egress loss", "out <= 30 s, 0 healthy removed", "the simulator"),
    ("G13", "bytes with 10 % starved", "<= 1,500 B/s with kernel stamps", "the simulator's grid"),
    ("G14", "worst second, 10 crashes at 1,000 nodes", "p99 <= 16 KB/s", "the simulator"),
    ("G16", "churn of 10 % a minute at 1,000 nodes", "queue <= members + documents", "the simulator"),
    ("G21", "hostile frame with 20,000 invented members", "rejected <= 5 ms", "the Byzantine tests"),
    ("G22", "what one compromised member can do", "nothing", "the Byzantine tests"),
)


def elsewhere(results: Raw) -> list[Row]:
    """Return a row for each figure that another command shows; filled where its result was given."""
    given = results.get("elsewhere", {})
    rows = []
    for figure, name, gate, where in ELSEWHERE:
        told_of = given.get(figure, {})
        rows.append(
            Row(
                figure=figure,
                name=name,
                clock=VIRTUAL,
                ours=told_of.get("ours", NOT_MEASURED),
                peer=told_of.get("peer", NOT_MEASURED),
                gate=gate,
                met=told_of.get("met"),
                evidence=told_of.get("evidence", f"not part of this run: see {where} (docs/TESTING.md)"),
            )
        )
    return rows
