"""From raw figures to rows: ours, the peers' in the same run, the gate, whether it was met, and why.

A row is made for every gate (G1, G2, ...) that this benchmark is about, measured or not: what
was not measured has no `met` and says so. Nothing here measures, and nothing is carried over between runs.
"""

import statistics
from collections.abc import Callable

from bench.gossip.field import HEADER_BYTES
from bench.gossip.row import NOT_MEASURED, OURS, PEERS, PUBLISHED, VIRTUAL, WALL, Raw, Row, pause_told, told
from bench.gossip.story_rows import elsewhere
from bench.gossip.virtual_rows import virtual_rows


def build_rows(results: Raw) -> list[Row]:
    """Return all rows, in the order of their gates, wall-clock before virtual."""
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

    def missed(group: Raw) -> list[str]:
        return [row["missed"] for row in group.get("join", []) if "missed" in row]

    def tell(group: Raw) -> str:
        wrong = missed(group)
        return told(times(group, "join", "join_s")) + (
            f"; not whole {len(wrong)}x: {wrong[0]}" if wrong else ""
        )

    group = ours_of(results)
    met = None
    if group.get("join"):
        met = not missed(group) and statistics.median(times(group, "join", "join_s")) <= 1.5
    return Row(
        figure="G15",
        name=f"join storm to one seed, {results['nodes']} nodes",
        clock=WALL,
        ours=tell(group),
        peer=peers_told(results, tell),
        gate="median <= 1.5 s (set for 100 nodes)",
        met=met,
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
